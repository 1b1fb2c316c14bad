"""The time of receipt decides; a clock that goes back puts nothing out of order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.conftest import START, later
from tests.features.records import drain, label, prediction, seen

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock, SystemClock
from headwater.infra.settings import Settings
from headwater.spec.errors import ClockError
from headwater.spec.pipeline import Pipeline

Opener = Callable[..., FeatureLog]


@pytest.mark.parametrize("hours", [-48, -2, 0, 2, 48])
def test_the_clients_time_is_stored_and_decides_nothing(
    log: FeatureLog, clock: SimulatedClock, hours: int
) -> None:
    told = START + timedelta(hours=hours)
    log.record([msgspec.structs.replace(prediction("a"), served_at=told)])
    now = later(clock, minutes=5)
    log.label([msgspec.structs.replace(label("a"), known_at=told)])
    drain(log)
    (row,) = log.examples().to_dicts()
    assert (row["late"], row["emitted_at"]) == (False, now)
    assert (row["served_at"], row["known_at"]) == (told, told)


def test_a_machine_whose_clock_went_back_keeps_the_order(
    log: FeatureLog, pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    later(clock, hours=5)
    log.record([prediction("a")])
    log.label([label("a")])
    behind = FeatureLog(pipeline, settings, SimulatedClock(START), log.database)
    behind.record([prediction("b")])
    behind.label([label("b")])
    assert drain(behind) == 2
    behind.record([prediction("c")])
    behind.label([label("c")])
    assert drain(behind) == 1
    behind.close()
    assert [id_ for id_, _ in seen(log)] == ["a", "b", "c"]
    assert log.examples()["emitted_at"].to_list() == [clock.now()] * 3


def test_a_window_closes_by_the_clock_alone(open_log: Opener, clock: SimulatedClock) -> None:
    log = open_log(maturity="window")
    log.record([prediction("a")])
    log.label([label("a")])
    later(clock, hours=2)
    assert drain(log) == 0  # a label may still come at this very moment
    later(clock, microseconds=1)
    assert drain(log) == 1
    assert log.examples()["emitted_at"].to_list() == [START + timedelta(hours=2)]


def test_draining_again_at_the_same_time_emits_nothing(open_log: Opener, clock: SimulatedClock) -> None:
    log = open_log(timeout=False)
    log.record([prediction(str(i)) for i in range(3)])
    later(clock, days=1)
    assert [drain(log), drain(log)] == [3, 0]
    log.label([label("1", False)])
    assert drain(log) == 0


def test_predictions_sequenced_before_their_deadline_time_out_in_order(
    open_log: Opener, clock: SimulatedClock
) -> None:
    log = open_log(timeout=False)
    for name in "abc":
        log.record([prediction(name)])
        drain(log)
        later(clock, minutes=50)
    log.label([label("b", True)])
    later(clock, days=1)
    drain(log)
    assert seen(log) == [("a", False), ("b", True), ("c", False)]


def test_a_clock_ahead_records_nothing_and_moves_no_horizon(
    pipeline: Pipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    by_window = msgspec.structs.replace(pipeline.label, maturity="window")
    log = FeatureLog(msgspec.structs.replace(pipeline, label=by_window), settings)
    log.record([prediction("a")])
    log.label([label("a")])
    assert drain(log) == 0  # its wait has not passed
    monkeypatch.setattr(SystemClock, "now", lambda _: now + timedelta(days=365))
    with pytest.raises(ClockError):
        log.record([prediction("b")])
    with pytest.raises(ClockError):
        log.label([label("b")])
    with pytest.raises(ClockError):
        drain(log)
    monkeypatch.undo()
    assert drain(log) == 0
    log.record([prediction("b")])
    assert log.inbox.end() == 3
    log.close()
    log.database.close()


def test_a_clock_before_1970_keeps_records_in_order(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock, log: FeatureLog
) -> None:
    log.record([prediction("a")])
    log.label([label("a")])
    early = FeatureLog(
        pipeline, settings, SimulatedClock(datetime(1969, 1, 1, tzinfo=UTC)), log.database
    )
    early.record([prediction("b")])
    early.label([label("b")])
    assert drain(early) == 2
    assert [id_ for id_, _ in seen(early)] == ["a", "b"]
    assert early.examples()["emitted_at"].to_list() == [clock.now()] * 2
    early.close()
