"""Equal questions are asked once, and each of their predictions gets the answers as its own labels."""

import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from msgspec.structs import replace
from sqlalchemy import select
from tests.conftest import START, later
from tests.features.label_queue.test_label_queue import ids, labels_of, served
from tests.features.label_queue.test_queue_orders import PIPELINE
from tests.features.records import drain, label

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.schema import queue_tables
from headwater.spec.data.records import LabelValue
from headwater.spec.errors import ConflictError, NotFoundError
from headwater.spec.serving.queue import People

Serve = Callable[..., None]
ONE_PERSON = replace(PIPELINE, people=People(twice=0.0, random=0.0))


@pytest.fixture
def log(settings: Settings, clock: SimulatedClock) -> Iterator[FeatureLog]:
    log = FeatureLog(ONE_PERSON, settings, clock)
    yield log
    log.close()
    log.database.close()


def serve(log: FeatureLog, *ids_: str, x: float = 1.0) -> None:
    """Serve predictions whose features are equal, and sequence them."""
    log.record([served(id_, x=x) for id_ in ids_])
    drain(log)


def test_equal_questions_are_asked_once_and_all_predictions_are_labelled(log: FeatureLog) -> None:
    serve(log, "a", "b", "c")
    serve(log, "other", x=2.0)
    queue = log.queue()
    queue.fill()
    asked = {one.prediction_id: one.predictions for one in queue.claim("ada", 10)}
    assert asked == {"a": 3, "other": 1}
    assert queue.answer("ada", "a", True) == "recorded"
    assert [labels_of(log, id_) for id_ in "abc"] == [[("ada", "ada", True)]] * 3
    assert labels_of(log, "other") == []
    drain(log)
    assert sorted(log.examples()["prediction_id"]) == ["a", "b", "c"]
    counts = queue.counts()
    assert (counts.answers, counts.answered, counts.equal) == (1, 1, 2)


def test_entity_keys_are_part_of_what_a_question_shows(log: FeatureLog) -> None:
    log.record([served(id_, x=1.0, entity={"customer": id_}) for id_ in ("a", "b")])
    drain(log)
    assert sorted(ids(log.queue(), "ada", 10)) == ["a", "b"]


def test_a_repeated_answer_adds_nothing_and_another_is_a_revision_of_all(log: FeatureLog) -> None:
    serve(log, "a", "b")
    queue = log.queue()
    ids(queue, "ada")
    statuses = [queue.answer("ada", "a", value) for value in (True, True, False)]
    assert statuses == ["recorded", "known", "recorded"]
    for id_ in ("a", "b"):
        assert labels_of(log, id_) == [("ada", "ada", True), ("ada", "ada#1", False)]


def test_an_equal_prediction_that_comes_later_joins_an_open_question(log: FeatureLog) -> None:
    serve(log, "a")
    queue = log.queue()
    assert ids(queue, "ada") == ["a"]
    serve(log, "b")
    assert ids(queue, "bob") == []
    queue.answer("ada", "a", True)
    assert labels_of(log, "b") == [("ada", "ada", True)]


def test_an_answer_goes_to_what_was_served_before_it_and_looked_at_after(
    log: FeatureLog, clock: SimulatedClock
) -> None:
    serve(log, "a")
    queue = log.queue()
    assert ids(queue, "ada") == ["a"]
    log.record([served("b", x=1.0)])
    later(clock, minutes=1)
    queue.answer("ada", "a", True)
    drain(log)
    assert ids(queue, "bob") == []
    assert labels_of(log, "b") == [("ada", "ada", True)]


def test_what_is_served_after_an_answer_is_asked_anew(log: FeatureLog, clock: SimulatedClock) -> None:
    serve(log, "a")
    queue = log.queue()
    ids(queue, "ada")
    queue.answer("ada", "a", True)
    later(clock, minutes=1)
    serve(log, "b")
    assert ids(queue, "bob") == ["b"]
    assert labels_of(log, "b") == []


def test_a_truth_from_elsewhere_is_not_overwritten(log: FeatureLog) -> None:
    serve(log, "a", "b", "c")
    queue = log.queue()
    assert ids(queue, "ada") == ["a"]
    log.label([label("b", False, key="truth")])
    queue.answer("ada", "a", True)
    assert labels_of(log, "b") == [("", "truth", False)]
    assert labels_of(log, "c") == [("ada", "ada", True)]


@pytest.mark.parametrize("claimed", [True, False])
def test_an_equal_prediction_takes_the_place_of_one_whose_truth_came(
    log: FeatureLog, *, claimed: bool
) -> None:
    serve(log, "a", "b", "c")
    queue = log.queue()
    queue.fill()
    if claimed:
        assert ids(queue, "ada") == ["a"]
    log.label([label("a", False, key="truth")])
    drain(log)
    assert ids(queue, "bob") == ["b"]
    queue.answer("bob", "b", True)
    assert [value for _, _, value in labels_of(log, "a")] == [False]
    assert labels_of(log, "c") == [("bob", "bob", True)]


def test_a_process_killed_before_the_others_are_labelled_loses_nothing(log: FeatureLog) -> None:
    serve(log, "a", "b")
    queue = log.queue()
    ids(queue, "ada")
    log.label([replace(label("a", True, key="ada"), source="human", by="ada")])  # all that it did
    drain(log)
    queue.fill()
    assert labels_of(log, "b") == [("ada", "ada", True)]


def test_many_equal_predictions_are_labelled_in_the_end(log: FeatureLog) -> None:
    many = [f"p{n}" for n in range(250)]
    serve(log, *many)
    queue = log.queue()
    ids(queue, "ada")
    queue.answer("ada", "p0", True)
    queue.fill()
    queue.fill()
    assert [labels_of(log, id_) for id_ in many] == [[("ada", "ada", True)]] * 250


def test_questions_that_leave_take_their_equal_predictions_with_them(
    settings: Settings, clock: SimulatedClock
) -> None:
    log = FeatureLog(replace(ONE_PERSON, people=People(random=0.0, most_open=2)), settings, clock)
    for n in range(6):
        log.record([served(f"{n}{part}", 0.5 + n / 100, x=float(n)) for part in "ab"])
    drain(log)
    queue = log.queue(step_records=4)
    queue.fill()
    counts = queue.counts()
    assert (counts.open_uncertain, counts.equal) == (2, 2)
    log.close()
    log.database.close()


DEEDS = st.one_of(
    st.tuples(st.just("serve"), st.sampled_from([1.0, 2.0])),
    st.tuples(st.just("answer"), st.sampled_from(["ada", "bob", "cleo"]), st.booleans()),
    st.tuples(st.just("label"), st.integers(0, 10)),
    st.tuples(st.just("fill"), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.integers(1, 60)),
)


@given(st.lists(DEEDS, max_size=25))
@hypothesis_settings(max_examples=25, deadline=None)
def test_equal_predictions_have_the_labels_of_their_question(deeds: list[tuple[str, ...]]) -> None:
    """Whatever the order: what shares a question has the same newest answer of each person."""
    clock = SimulatedClock(START)
    with tempfile.TemporaryDirectory() as folder:
        log = FeatureLog(PIPELINE, Settings(home=Path(folder)), clock)
        _do(log, clock, deeds)
        drain(log)
        log.queue().fill()
        log.queue().fill()
        with log.database.reading() as connection:
            table, question = queue_tables.equal_prediction.c, queue_tables.question.c
            pairs = connection.execute(
                select(table.prediction_id, question.prediction_id).join(
                    queue_tables.question, table.question == question.position
                )
            ).all()
        for equal, asked in pairs:
            newest = _newest(log, equal)
            if "" not in newest:
                assert newest == {who: v for who, v in _newest(log, asked).items() if who}
        log.close()
        log.database.close()


def _do(log: FeatureLog, clock: SimulatedClock, deeds: list[tuple[str, ...]]) -> None:
    queue, count, labelled = log.queue(), 0, set[int]()
    for deed, *how in deeds:
        match deed, *how:
            case "serve", float(x):
                log.record([served(f"p{count}", x=x)])
                drain(log)
                count += 1
            case "answer", str(person), bool(value):
                queue.fill()
                for one in queue.claim(person, 2):
                    try:
                        queue.answer(person, one.prediction_id, value)
                    except (ConflictError, NotFoundError):
                        continue
            case "label", int(n) if n < count and n not in labelled:
                labelled.add(n)
                log.label([label(f"p{n}", key="truth")])
            case "fill", int(steps):
                queue.fill(steps)
            case "wait", int(seconds):
                clock.advance_to(clock.now() + timedelta(seconds=seconds))


def _newest(log: FeatureLog, id_: str) -> dict[str | None, LabelValue]:
    return {by: value for by, _, value in labels_of(log, id_)}
