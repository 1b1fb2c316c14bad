"""Live learning stops, with an alarm, before the example that would ruin the learned state."""

import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from tests.loop import models
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import NOW
from tests.serving.examples import fill
from tests.serving.keeper.test_catch_up import alarms, settle
from tests.serving.keeper.test_online_learning import EACH, folded, live_digest

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import UnlearnableError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange
from headwater.spec.serving.serving import Serving

MINUTES = replace(PIPELINE, name="minutes", task="regression", learn="each label", model=models.linear)
KNOWN = 300


def drive(bound: Bound, first: int, last: int, *, times: float = 1.0, **odd: float) -> None:
    """Record predictions and labels of some minutes; `odd` replaces a feature or the label."""
    rng = random.Random(first)
    rows = [{"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)} for _ in range(first, last)]
    truth = [times * (20 + 5 * row["a"] + 2 * row["b"] + rng.gauss(0, 1)) for row in rows]
    named = [f"m{number}" for number in range(first, last)]
    bound.log.record(
        [
            Prediction(
                id=id_,
                features={name: odd.get(name, value) for name, value in row.items()},
                output=20.0,
                served_at=NOW,
            )
            for id_, row in zip(named, rows, strict=True)
        ]
    )
    bound.log.label(
        [
            Label(prediction_id=id_, value=odd.get("label", value), known_at=NOW)
            for id_, value in zip(named, truth, strict=True)
        ]
    )


def begin(pipeline: Pipeline, home: Settings) -> Bound:
    """Bind a pipeline with a first version."""
    bound = Bound(pipeline, home, SimulatedClock(NOW))
    drive(bound, 0, KNOWN)
    collect(bound.log)
    train(bound)
    return bound


@pytest.fixture(params=[models.linear, models.leaves])
def minutes(request: pytest.FixtureRequest, home: Settings) -> Iterator[Bound]:
    with begin(replace(MINUTES, model=request.param), home) as bound:
        yield bound


@pytest.mark.parametrize("label", [1e9, -1e6, 1e38])
def test_a_label_that_ruins_waits_for_its_quarantine(minutes: Bound, label: float) -> None:
    with Keeper(minutes) as keeper:
        settle(keeper)
        drive(minutes, 300, 340)
        drive(minutes, 340, 341, label=label)
        drive(minutes, 341, 400)
        settle(keeper)
        ((kind, what, hint),) = alarms(minutes)
        assert kind == "learning"
        assert "example 340 of 'minutes' cannot be learned: it would ruin the learned state" in what
        assert "headwater quarantine minutes 340:341" in hint
        learned_to, digest, recipe = live_digest(minutes)
        assert (learned_to, digest) == (340, folded(minutes, recipe))
        minutes.registry.quarantine.add([OffsetRange(340, 341)], by="test", reason="poison")
        settle(keeper)
        learned_to, digest, recipe = live_digest(minutes)
        assert (learned_to, alarms(minutes)) == (400, [])
        assert digest == folded(minutes, recipe)


@pytest.mark.parametrize("label", [180.0, 350.0, -600.0])
def test_what_an_unusual_label_spoils_is_not_served_until_it_is_better(
    home: Settings, label: float
) -> None:
    """A few times the largest label may be true: it is learned, and what serves stays meanwhile."""
    with begin(MINUTES, home) as bound:
        keeper = Keeper(bound)
        keeper.__enter__()
        settle(keeper)
        drive(bound, 300, 340)
        settle(keeper)
        serving = live_digest(bound)
        drive(bound, 340, 341, label=label)
        settle(keeper)
        drive(bound, 341, 350)
        settle(keeper)
        ((kind, what, hint),) = alarms(bound)
        assert kind == "learning"
        assert "what 'minutes' learned from the unusual example 340 on is not served: the loss" in what
        assert "headwater quarantine minutes 340:341" in hint
        assert live_digest(bound) == serving
        reign = bound.registry.championship.reign()
        keeper.__exit__(None, None, None)
        assert bound.registry.championship.reign() == reign  # no version was made of it
    with Bound(MINUTES, home, SimulatedClock(NOW)) as bound, Keeper(bound) as keeper:
        for first in range(350, 1_800, 50):
            drive(bound, first, first + 50)
            settle(keeper)
        learned_to, digest, recipe = live_digest(bound)
        assert (learned_to, alarms(bound)) == (1_800, [])
        assert digest == folded(bound, recipe)


def test_a_quarantine_ends_what_an_unusual_label_began(home: Settings) -> None:
    with begin(MINUTES, home) as bound, Keeper(bound) as keeper:
        settle(keeper)
        drive(bound, 300, 340)
        drive(bound, 340, 341, label=400.0)
        drive(bound, 341, 350)
        settle(keeper)
        assert alarms(bound)
        bound.registry.quarantine.add([OffsetRange(340, 341)], by="test", reason="poison")
        settle(keeper)
        learned_to, digest, recipe = live_digest(bound)
        assert (learned_to, alarms(bound)) == (350, [])
        assert digest == folded(bound, recipe)


@pytest.mark.parametrize("times", [0.2, 3.0, 10.0])
def test_a_break_of_the_stream_is_learned(minutes: Bound, times: float) -> None:
    with Keeper(minutes) as keeper:
        settle(keeper)
        for first in range(300, 900, 60):
            drive(minutes, first, first + 60, times=1.0 if first < 500 else times)
            settle(keeper)
        learned_to, digest, recipe = live_digest(minutes)
        assert (learned_to, alarms(minutes)) == (900, [])
        assert digest == folded(minutes, recipe)


@pytest.mark.parametrize("a", [30.0, -300.0, 1e30])
def test_a_feature_that_ruins_waits_for_its_quarantine(home: Settings, a: float) -> None:
    with begin(MINUTES, home) as bound, Keeper(bound) as keeper:
        settle(keeper)
        for at in (300, 350):
            drive(bound, at, at + 1, a=a)
            drive(bound, at + 1, at + 50)
            settle(keeper)
            ((_, what, hint),) = alarms(bound)
            assert f"example {at} of 'minutes' cannot be learned" in what
            assert f"headwater quarantine minutes {at}:{at + 1}" in hint
            bound.registry.quarantine.add([OffsetRange(at, at + 1)], by="test", reason="poison")
            settle(keeper)
        assert (live_digest(bound)[0], alarms(bound)) == (400, [])


def test_scheduled_learning_ends_at_what_would_ruin_it(home: Settings) -> None:
    scheduled = replace(MINUTES, learn="on schedule")
    with begin(scheduled, home) as bound, Keeper(bound) as keeper:
        drive(bound, 300, 340)
        drive(bound, 340, 341, label=1e9)
        drive(bound, 341, 400)
        collect(bound.log)
        with pytest.raises(UnlearnableError, match="example 340 of 'minutes' cannot be learned"):
            train(bound)
        settle(keeper)
        ((kind, _, hint),) = alarms(bound)
        assert (kind, "headwater quarantine minutes 340:341" in hint) == ("learning", True)
        bound.registry.quarantine.add([OffsetRange(340, 341)], by="test", reason="poison")
        made = train(bound).version
        settle(keeper)
        assert made is not None
        assert (made.examples.stop, alarms(bound)) == (400, [])
        assert made.digest == folded(bound, bound.registry.store.recipe(made))


def test_scheduled_learning_waits_while_an_unusual_label_spoils_what_it_learns(home: Settings) -> None:
    with begin(replace(MINUTES, learn="on schedule"), home) as bound, Keeper(bound) as keeper:
        drive(bound, 300, 340)
        drive(bound, 340, 341, label=500.0)
        collect(bound.log)
        with pytest.raises(UnlearnableError, match="from the unusual example 340 on is not served"):
            train(bound)
        settle(keeper)
        ((kind, _, hint),) = alarms(bound)
        assert (kind, "headwater quarantine minutes 340:341" in hint) == ("learning", True)
        drive(bound, 341, 1_800)
        collect(bound.log)
        made = train(bound).version
        settle(keeper)
        assert made is not None
        assert (made.examples.stop, alarms(bound)) == (1_800, [])


def test_a_feature_that_ruins_is_named_in_its_batch_and_no_draw_is_lost(
    home: Settings, clock: SimulatedClock
) -> None:
    """The estimator draws from NumPy's own generator: what the refused batch drew is drawn again."""
    with Bound(EACH, home, clock) as bound, Keeper(bound) as keeper:
        settle(keeper)
        fill(bound, 0, 30)
        fill(bound, 30, 31, a=1e30)
        fill(bound, 31, 60)
        settle(keeper)
        ((_, what, _),) = alarms(bound)
        assert "example 230 of 'line'" in what
        assert live_digest(bound)[0] == 230
        bound.registry.quarantine.add([OffsetRange(230, 231)], by="test", reason="poison")
        settle(keeper)
        learned_to, digest, recipe = live_digest(bound)
        assert (learned_to, alarms(bound)) == (260, [])
        assert digest == folded(bound, recipe)


def test_a_champion_is_caught_up_past_no_poison(home: Settings) -> None:
    with begin(MINUTES, home) as bound, Keeper(bound) as keeper:
        settle(keeper)
        drive(bound, 300, 340)
        settle(keeper)
        serving = live_digest(bound)[1]
        made = train(bound, from_scratch=True).version
        assert made is not None
        drive(bound, 340, 341, label=1e12)
        drive(bound, 341, 380)
        settle(keeper)
        whats = [what for kind, what, _ in alarms(bound) if kind == "swap"]
        assert any("example 340" in what for what in whats), whats
        assert live_digest(bound)[1] == serving


def test_a_champion_that_an_unusual_label_spoils_while_it_is_caught_up_never_serves(
    home: Settings,
) -> None:
    with begin(MINUTES, home) as bound, Keeper(bound) as keeper:
        settle(keeper)
        drive(bound, 300, 340)
        settle(keeper)
        serving = live_digest(bound)[1]
        made = train(bound, from_scratch=True).version
        assert made is not None
        drive(bound, 340, 341, label=400.0)
        drive(bound, 341, 350)
        settle(keeper)
        whats = [what for kind, what, _ in alarms(bound) if kind == "swap"]
        assert any("from the unusual example 340 on is not served" in what for what in whats), whats
        assert live_digest(bound)[1] == serving


def test_without_the_guard_it_is_learned(home: Settings) -> None:
    unguarded = replace(MINUTES, serving=Serving(guard=False))
    with begin(unguarded, home) as bound, Keeper(bound) as keeper:
        settle(keeper)
        drive(bound, 300, 301, label=1e9)
        settle(keeper)
        assert (live_digest(bound)[0], alarms(bound)) == (301, [])
