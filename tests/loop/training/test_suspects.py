"""Poison of an older log is named with offsets and ids; its quarantine takes it out of metrics."""

import random
from datetime import timedelta

import msgspec
import pytest
from tests.conftest import START
from tests.loop import models
from tests.loop.conftest import Binder

from headwater.features.record.entries import LABEL, PREDICTION, Entry
from headwater.infra.clock import SimulatedClock, to_us
from headwater.infra.store.open_storage import open_storage
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.performance import keep_performance
from headwater.loop.training.guard.suspects import find_suspects
from headwater.loop.training.update import train
from headwater.monitoring.performance.performance_table import read_performance
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.alarms import KeeperStatusFile
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import NonFiniteError
from headwater.spec.recipe import OffsetRange
from headwater.spec.updating.monitoring import Monitoring

MINUTES = {"task": "regression", "model": models.linear, "metrics": ("mae",)}
DAY = timedelta(days=1)


def fill(bound: Bound, first: int, last: int, **odd: float) -> None:
    """Record predictions and labels as an older headwater did, without a check."""
    rng, now = random.Random(first), bound.clock.now()
    entries = []
    champion = bound.registry.champion()
    version = champion.number if champion else ""
    for number in range(first, last):
        id_, row = f"m{number}", {"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)}
        truth = odd.get("label", 20 + 5 * row["a"] + rng.gauss(0, 1))
        features = {name: odd.get(name, value) for name, value in row.items()}
        prediction = Prediction(id=id_, features=features, output=20.0, served_at=now, version=version)
        label = Label(prediction_id=id_, value=truth, known_at=now)
        entries += [
            Entry(PREDICTION, id_, "", to_us(now), msgspec.json.encode(prediction)),
            Entry(LABEL, id_, "old", to_us(now), msgspec.json.encode(label)),
        ]
    bound.log.inbox.append(entries, "record")
    collect(bound.log)


def worst(bound: Bound) -> float:
    """Return the greatest error of a window as stored."""
    stored = read_performance(open_storage(bound.settings), bound.log.identity)
    value = stored.filter(metric="mae", estimated=False)["value"].max()
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("odd", "what"), [({"label": 1e308}, "the label"), ({"b": -1e39}, "feature 'b'")]
)
def test_what_cannot_be_learned_is_named_and_alarmed_until_it_is_quarantined(
    bind: Binder, odd: dict[str, float], what: str
) -> None:
    bound = bind(**MINUTES)
    fill(bound, 0, 200)
    train(bound)
    fill(bound, 200, 202, **odd)
    fill(bound, 202, 220)
    with pytest.raises(NonFiniteError) as refused:
        train(bound)
    assert f"200 (prediction 'm200'): {what} is" in refused.value.what
    assert "headwater quarantine line 200:201 201:202" in refused.value.hint
    with Keeper(bound) as keeper:
        keeper.step()
        (alarm,) = KeeperStatusFile("line", bound.settings).read().alarms
        assert (alarm.kind, alarm.what) == ("learning", refused.value.what)
        bound.registry.quarantine.add([OffsetRange(200, 202)], by="test", reason="poison")
        made = train(bound).version
        assert made is not None
        assert made.learned == 18
        keeper.step()
        assert KeeperStatusFile("line", bound.settings).read().alarms == ()


def test_suspects_are_found_once_by_offset(bind: Binder) -> None:
    bound = bind(**MINUTES)
    fill(bound, 0, 300)
    fill(bound, 300, 301, label=1e308, a=1e39)
    fill(bound, 301, 302, a=1e12)
    fill(bound, 302, 303, label=-1e9)
    fill(bound, 303, 500)
    fill(bound, 500, 501, label=-1e9)  # the first one is no measure for the second
    found = list(find_suspects(bound.log, "regression", OffsetRange(0, bound.log.stop())))
    assert [(one.offset, one.prediction_id, one.learnable) for one in found] == [
        (300, "m300", False),
        (301, "m301", True),
        (302, "m302", True),
        (500, "m500", True),
    ]
    assert found[0].what == "the label is 1e+308"
    assert "far out" in found[2].what
    bound.registry.quarantine.add(
        [OffsetRange(300, 303), OffsetRange(500, 501)], by="test", reason="poison"
    )
    assert not list(find_suspects(bound.log, "regression", OffsetRange(0, bound.log.stop())))


def test_unusual_numbers_are_found_apart_until_they_are_usual(bind: Binder) -> None:
    bound = bind(**MINUTES)
    fill(bound, 0, 500)  # labels of about 5 to 35
    for number in (500, 501, 502):
        fill(bound, number, number + 1, label=130.0)
    fill(bound, 503, 504, b=40.0)
    fill(bound, 504, 505, label=70.0)
    fill(bound, 505, 506, a=1e12)
    fill(bound, 506, 650)
    whole = OffsetRange(0, bound.log.stop())
    found = list(find_suspects(bound.log, "regression", whole))
    assert [(one.offset, one.unusual) for one in found] == [
        (500, True),
        (501, True),
        (502, True),
        (503, True),
        (505, False),
    ]
    assert found[0].what == "the label is 130, unusual"
    assert found[3].what == "feature 'b' is 40, unusual"
    assert not list(find_suspects(bound.log, "regression", whole, far_out=False))
    fill(bound, 650, 950, label=130.0)  # a break
    newest = list(find_suspects(bound.log, "regression", OffsetRange(0, bound.log.stop())))[-1]
    assert newest.offset < 800


def test_what_is_quarantined_leaves_stored_and_new_metrics(bind: Binder) -> None:
    clock = SimulatedClock(START)
    watched = Monitoring(window="1d", least=20)
    bound = bind(clock, **MINUTES, monitoring=watched)
    fill(bound, 0, 100)
    train(bound)
    clock.advance_to(START + DAY)
    fill(bound, 100, 150)
    fill(bound, 150, 151, label=1e30)
    clock.advance_to(START + 4 * DAY)
    collect(bound.log)
    assert keep_performance(bound) > 0
    assert worst(bound) > 1e20
    clock.advance_to(START + 5 * DAY)
    bound.registry.quarantine.add([OffsetRange(150, 151)], by="test", reason="poison")
    assert keep_performance(bound) > 0
    assert worst(bound) < 20
    assert bound.log.judged(0, 151).height == 150
