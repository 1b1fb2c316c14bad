import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.conftest import later
from tests.features.records import NOW, drain, label, prediction, seen

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import ConflictError, NonFiniteError, NotFoundError, SchemaError, StorageError

Opener = Callable[..., FeatureLog]


def test_a_prediction_and_its_label_become_an_example(log: FeatureLog) -> None:
    assert log.record([prediction("a", 2.5, 0.25)]) == 1
    assert log.label([label("a", True)]) == 1
    assert drain(log) == 1
    (row,) = log.examples().to_dicts()
    assert (row["offset"], row["label"], row["output"]) == (0, True, 0.25)
    assert row["features"] == {"x": 2.5, "city": None}
    assert (row["served_at"], row["emitted_at"], row["late"]) == (NOW, NOW, False)


def test_the_same_record_twice_is_one(log: FeatureLog) -> None:
    assert log.record([prediction("a")]) == 1
    assert log.record([prediction("a")]) == 0
    assert log.label([label("a")]) == 1
    assert log.label([label("a")]) == 0
    assert drain(log) == 1


def test_the_same_instant_in_another_zone_is_the_same_record(log: FeatureLog) -> None:
    from datetime import timedelta, timezone  # noqa: PLC0415

    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    log.record([prediction("a")])
    moved = Prediction(id="a", features={"x": 1.0, "city": None}, output=0.5, served_at=elsewhere)
    assert log.record([moved]) == 0


def test_another_payload_is_a_conflict_and_keeps_nothing(log: FeatureLog) -> None:
    log.record([prediction("a")])
    with pytest.raises(ConflictError, match="payload: a"):
        log.record([prediction("b"), prediction("a", x=9.0)])
    assert log.counts().unsequenced == 1
    log.label([label("a", True, key="k")])
    with pytest.raises(ConflictError):
        log.label([label("a", False, key="k")])
    assert log.counts().unsequenced == 2


@pytest.mark.parametrize(
    ("features", "error", "named"),
    [
        ({"x": 1.0}, SchemaError, "city"),
        ({"x": 1.0, "city": None, "more": 1.0}, SchemaError, "more"),
        ({"x": "1", "city": None}, SchemaError, "x"),
        ({"x": None, "city": None}, SchemaError, "x"),
        ({"x": float("nan"), "city": None}, NonFiniteError, "x"),
        ({"x": float("inf"), "city": "here"}, NonFiniteError, "x"),
    ],
)
def test_features_that_do_not_fit_keep_nothing(
    log: FeatureLog, features: dict[str, object], error: type[Exception], named: str
) -> None:
    bad = Prediction(id="b", features=features, output=0.5, served_at=NOW)  # type: ignore[arg-type] # on purpose
    with pytest.raises(error, match=named):
        log.record([prediction("a"), bad])
    assert log.counts().unsequenced == 0


@pytest.mark.parametrize("value", ["yes", -1, 2, 0.5])
def test_a_label_of_another_type_keeps_nothing(log: FeatureLog, value: object) -> None:
    with pytest.raises(SchemaError, match="binary"):
        log.label([label("a"), label("b", value)])  # type: ignore[arg-type] # on purpose
    assert log.counts().unsequenced == 0


def test_naive_times_are_refused() -> None:
    with pytest.raises(SchemaError, match="zone"):
        Label(prediction_id="a", value=True, known_at=datetime(2024, 1, 1))  # noqa: DTZ001 - on purpose


def test_a_label_may_come_first(log: FeatureLog, clock: SimulatedClock) -> None:
    log.label([label("a")])
    assert drain(log) == 0
    assert log.counts().parked == 1
    later(clock, minutes=30)
    log.record([prediction("a")])
    assert drain(log) == 1
    assert log.counts().parked == 0


def test_a_label_that_waited_too_long_for_its_prediction_is_dropped(
    log: FeatureLog, clock: SimulatedClock
) -> None:
    log.label([label("a")])
    later(clock, hours=3)
    log.record([prediction("a")])
    assert drain(log) == 0
    assert (log.counts().parked, log.counts().expired, log.repository.expired()) == (0, 1, 1)


def test_a_label_without_a_prediction_makes_no_example_and_expires(
    log: FeatureLog, clock: SimulatedClock
) -> None:
    log.label([label("nobody")])
    assert drain(log) == 0
    assert (log.counts().parked, log.counts().expired) == (1, 0)
    later(clock, hours=2)
    assert (log.counts().parked, log.counts().expired) == (1, 0)
    later(clock, microseconds=1)
    assert (log.counts().parked, log.counts().expired) == (0, 1)
    log.record([prediction("nobody")])
    assert drain(log) == 0
    assert (log.counts().parked, log.counts().expired) == (0, 1)


def test_a_late_label_is_marked(log: FeatureLog, clock: SimulatedClock) -> None:
    log.record([prediction("a")])
    later(clock, hours=3)
    log.label([label("a")])
    drain(log)
    assert log.examples()["late"].to_list() == [True]
    assert log.counts().late == 1


def test_a_revision_supersedes_and_the_same_value_again_does_not(
    log: FeatureLog, clock: SimulatedClock
) -> None:
    log.record([prediction("a")])
    log.label([label("a", True, "1")])
    drain(log)
    log.label([label("a", True, "2"), label("a", False, "3")])
    drain(log)
    assert seen(log) == [("a", True), ("a", False)]
    assert log.examples()["supersedes"].to_list() == [None, 0]
    assert log.repository.superseded(0, 2) == [0]
    assert log.repository.corrections(0, 2) == [1]


def test_window_maturity_waits_for_every_outcome_alike(open_log: Opener, clock: SimulatedClock) -> None:
    log = open_log(maturity="window")
    log.record([prediction("late"), prediction("soon")])
    later(clock, minutes=5)
    log.label([label("soon", True)])
    assert drain(log) == 0
    later(clock, minutes=100)
    log.label([label("late", False), label("soon", False, "again")])
    later(clock, hours=1)
    drain(log)
    assert seen(log) == [("late", False), ("soon", False)]


def test_a_timeout_makes_a_label_only_if_declared(open_log: Opener, clock: SimulatedClock) -> None:
    log = open_log(timeout=False)
    log.record([prediction("silent"), prediction("known")])
    log.label([label("known", True)])
    drain(log)
    later(clock, hours=3)
    drain(log)
    assert seen(log) == [("known", True), ("silent", False)]
    assert log.examples()["source"].to_list() == ["natural", "timeout"]


def test_unavailable_is_never_negative(log: FeatureLog, clock: SimulatedClock) -> None:
    log.record([prediction("silent")])
    later(clock, hours=30)
    assert drain(log) == 0
    assert log.counts().unlabelled == 1


def test_examples_are_the_same_from_the_database_and_from_the_archive(log: FeatureLog) -> None:
    for batch in range(4):
        ids = [f"{batch}-{i}" for i in range(10)]
        log.record([prediction(i, x=float(n)) for n, i in enumerate(ids)])
        log.label([label(i, n % 2 == 0) for n, i in enumerate(ids)])
        drain(log)
    before = log.examples(5, 33)
    assert log.collect() == 40
    assert log.collect() == 0
    assert log.examples(5, 33).equals(before)
    log.record([prediction("new")])
    log.label([label("new")])
    drain(log)
    assert log.examples(5, 33).equals(before)
    assert log.examples(38, 41)["prediction_id"].to_list() == ["3-8", "3-9", "new"]


def test_a_range_that_is_not_there_is_an_error(log: FeatureLog) -> None:
    with pytest.raises(NotFoundError, match=r"\[0, 0\)"):
        log.examples(0, 1)


def test_history_has_the_order_of_its_times(log: FeatureLog) -> None:
    def at(hour: int) -> datetime:
        return datetime(2023, 12, 1, hour, tzinfo=UTC)

    def past(id_: str, served: int) -> Prediction:
        return Prediction(id=id_, features={"x": 0.0, "city": None}, output=0.5, served_at=at(served))

    def truth(id_: str, known: int) -> Label:
        return Label(prediction_id=id_, value=True, known_at=at(known))

    history = [(past("b", 2), truth("b", 3)), (past("a", 1), truth("a", 4)), (past("c", 5), None)]
    assert log.import_history(history) == 5
    drain(log)
    assert [id_ for id_, _ in seen(log)] == ["b", "a"]
    assert log.examples()["emitted_at"].to_list() == [at(3), at(4)]
    assert log.offset_at(at(4)) == 1
    assert log.offset_at(at(5)) == 2


def test_one_sync_keeps_nothing_if_a_refusal_was_passed_over(log: FeatureLog) -> None:
    log.record([prediction("a", 1.0)])

    def careless() -> None:
        with log.one_sync():
            log.record([prediction("b")])
            with contextlib.suppress(ConflictError):
                log.record([prediction("c"), prediction("a", 2.0)])

    with pytest.raises(StorageError, match="passed over"):
        careless()
    assert [row[2] for row in log.inbox.read(0, 10)] == ["a"]
    assert log.record([prediction("b")]) == 1


def test_one_sync_keeps_all_or_nothing(log: FeatureLog) -> None:
    def half() -> None:
        with log.one_sync():
            log.record([prediction("a")])
            log.label([label("a", "no bool")])

    with pytest.raises(SchemaError):
        half()
    assert log.counts().unsequenced == 0
    with log.one_sync():
        log.record([prediction("a")])
        log.label([label("a")])
    assert log.counts().unsequenced == 2
