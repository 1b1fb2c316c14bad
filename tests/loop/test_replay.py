"""Replays: updates when they are due, counted in timetables; what cannot be right is refused first."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pytest
from tests.conftest import START
from tests.loop.conftest import Binder

from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.replay.replay import Replay, Step
from headwater.spec.data.feature import Feature
from headwater.spec.errors import DeclarationError, NonFiniteError, SchemaError
from headwater.spec.updating.trigger import Trigger
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.triggers.volume import Volume

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BEGIN = START + 4 * DAY  # Friday, 5 January 2024
ROWS = 400
EVENTS = pl.DataFrame(
    {
        "id": [f"e{i}" for i in range(ROWS)],
        "served_at": [START + i * timedelta(hours=2) for i in range(ROWS)],
        "a": [float(i * 37 % 101) for i in range(ROWS)],
        "b": [float(i * 53 % 97) for i in range(ROWS)],
        "label": [i * 37 % 101 > 50 for i in range(ROWS)],
        "known_at": [START + i * timedelta(hours=2) + HOUR for i in range(ROWS)],
    }
)


def play(
    bind: Binder, *spans: tuple[int, float], update: bool = True, **changes: Any
) -> Iterator[list[Step]]:
    """Replay from `BEGIN` on: for each span so many days, in intervals of so many days."""
    clock = SimulatedClock(START)
    replay = Replay(bind(clock, **changes), clock, EVENTS)
    replay.begin(BEGIN)
    start = BEGIN
    for days, every in spans:
        yield list(replay.run(start, start + days * DAY, every * DAY, update=update))
        start += days * DAY


def times(steps: Sequence[Step]) -> list[str]:
    """When it was updated."""
    return [f"{step.stop:%d %H:%M}" for step in steps if step.updated is not None]


@pytest.mark.parametrize("every", [1, 20], ids="in steps of {} days".format)
@pytest.mark.parametrize(
    ("triggers", "wanted"),
    [
        ((), []),
        ((Every("7d"),), ["12 00:00", "19 00:00"]),
        ((Cron("30 6 * * mon", "Europe/Berlin"),), ["08 05:30", "15 05:30", "22 05:30"]),
        ((Every("8d"), Cron("0 0 13 * *")), ["13 00:00", "21 00:00"]),
    ],
    ids=str,
)
def test_updates_come_when_they_are_due(
    bind: Binder, every: float, triggers: tuple[Trigger, ...], wanted: list[str]
) -> None:
    (steps,) = play(bind, (20, every), triggers=triggers)
    assert times(steps) == wanted
    assert all(step.updated.version for step in steps if step.updated is not None)
    assert sum(step.served for step in steps) == 20 * 12
    assert all(step.decision is None for step in steps)


def test_a_version_learns_the_labels_known_when_it_was_due(bind: Binder) -> None:
    for steps in play(bind, (4, 4), triggers=(Cron("0 6 * * *"),)):
        learned = [step.updated.version.learned for step in steps if step.updated is not None]  # type: ignore[union-attr]
        assert learned == [3, 12, 12, 12]  # those of six hours, then of a day each


def test_two_runs_update_as_one_does(bind: Binder) -> None:
    parts = play(bind, (7, 1), (7, 1), (2, 3), triggers=(Every("7d"),))
    assert list(map(times, parts)) == [[], ["12 00:00"], ["19 00:00"]]


def test_a_trigger_that_asks_for_a_start_from_scratch_gets_it(bind: Binder) -> None:
    (steps,) = play(bind, (5, 1), triggers=(Every("2d", update="stateless"), Every("1d")))
    versions = [step.updated.version for step in steps if step.updated is not None]
    assert [version.parent is None for version in versions if version] == [False, True, False, True]


def test_a_clock_trigger_beside_one_by_evidence_is_decided_at_the_end_of_each_interval(
    bind: Binder,
) -> None:
    (steps,) = play(bind, (5, 1), triggers=(Every("2d"), Volume(1_000_000)))
    assert times(steps) == ["07 00:00", "09 00:00"]
    assert [step.decision is not None for step in steps] == [True] * 4 + [False]


def test_nothing_is_updated_unless_the_run_updates(bind: Binder) -> None:
    (steps,) = play(bind, (5, 1), triggers=(Every("1d"),), update=False)
    assert times(steps) == []
    assert [step.stop for step in steps] == [BEGIN + day * DAY for day in range(1, 6)]


@pytest.fixture
def bound(bind: Binder) -> Bound:
    return bind()


def untouched(bound: Bound) -> bool:
    return bound.log.counts().predictions == 0 and bound.log.inbox.count_after(0) == 0


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        (
            {"a": pl.lit("x")},
            SchemaError,
            r"row 0 \(from 0\): column 'a' \(String\) holds 'x'.*no float",
        ),
        ({"a": pl.lit(float("nan"))}, NonFiniteError, r"row 0 .*'a' holds nan"),
        ({"a": pl.lit(None)}, SchemaError, r"'a' is null"),
        ({"label": pl.lit(2)}, SchemaError, "'label'.* holds 2, which is no bool"),
        ({"known_at": pl.lit(None)}, SchemaError, "has no 'known_at'"),
        (
            {"served_at": pl.col("served_at").dt.replace_time_zone(None)},
            SchemaError,
            "no time with a zone",
        ),
        ({"label": None}, SchemaError, "no column label"),
    ],
)
def test_events_that_do_not_fit_are_refused_before_anything_is_recorded(
    bound: Bound, changed: dict[str, Any], error: type[Exception], said: str
) -> None:
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    gone = [name for name, how in changed.items() if how is None]
    events = EVENTS.drop(gone).with_columns(**{n: how for n, how in changed.items() if how is not None})
    with pytest.raises(error, match=said):
        Replay(bound, clock, events)
    assert untouched(bound)


def test_learning_each_label_is_refused_by_name(bind: Binder) -> None:
    bound = bind(learn="each label")
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    with pytest.raises(DeclarationError, match="'line' has learn=\"each label\""):
        Replay(bound, clock, EVENTS)
    assert untouched(bound)


def test_an_impossible_run_is_refused_before_anything_is_played(bind: Binder) -> None:
    clock = SimulatedClock(START)
    bound = bind(clock, triggers=(Cron("0 0 31 2 *"),))
    replay = Replay(bound, clock, EVENTS)
    replay.begin(BEGIN)
    before = bound.log.counts()
    for every, start, error in (
        (DAY, BEGIN, DeclarationError),
        (timedelta(0), BEGIN, DeclarationError),
        (DAY, datetime(2024, 1, 5), SchemaError),  # noqa: DTZ001 - that is what is refused
    ):
        with pytest.raises(error):
            next(replay.run(start, BEGIN + DAY, every, update=True))
    assert bound.log.counts() == before
    assert clock.now() == BEGIN


def test_a_pandas_dataframe_is_played_alike(bind: Binder) -> None:
    clock = SimulatedClock(START)
    frame = EVENTS.to_pandas().assign(label=[1, 0, None, *EVENTS["label"].cast(pl.Int64)[3:]])
    frame["known_at"] = frame["known_at"].dt.tz_convert("America/New_York")
    bound = bind(clock, features=(Feature("a", float), Feature("b", int)))
    assert isinstance(frame, pd.DataFrame)
    Replay(bound, clock, frame).begin(START + DAY)
    examples = bound.log.examples(0, None, ("label", "features", "known_at"))
    assert examples["label"].to_list()[:2] == [True, False]
    assert examples.height == 11  # one was never known, and all of the others are
    assert examples["known_at"][0] == START.astimezone(UTC) + HOUR
