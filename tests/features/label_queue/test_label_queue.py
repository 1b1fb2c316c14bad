"""The label queue, step by step: selection, claims with a lease, answers, skips, statistics."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from math import isclose

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select
from tests.conftest import START, later
from tests.features.records import drain, label, prediction

from headwater.features.label_queue.label_queue import LabelQueue
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.schema import queue_tables
from headwater.spec.data.records import Label, LabelValue, Prediction
from headwater.spec.errors import (
    ConflictError,
    DeclarationError,
    NotFoundError,
    NotReadyError,
    SchemaError,
)
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import People

Opener = Callable[..., FeatureLog]


@pytest.fixture
def opened(pipeline: Pipeline, settings: Settings, clock: SimulatedClock) -> Iterator[Opener]:
    """Open a log whose pipeline asks people as said."""
    logs: list[FeatureLog] = []

    def opener(task: str = "binary", **people: object) -> FeatureLog:
        asking = People(**people)  # type: ignore[arg-type] # by name
        logs.append(FeatureLog(replace(pipeline, task=task, metrics=(), people=asking), settings, clock))
        return logs[-1]

    yield opener
    for log in logs:
        log.close()
        log.database.close()


def served(id_: str, output: float = 0.5, x: float | None = None, **changed: object) -> Prediction:
    """Make a prediction that a version answered; its features are its own if `x` does not say them."""
    features = {"x": float(int.from_bytes(id_.encode())) if x is None else x, "city": None}
    return replace(prediction(id_, output=output), version="1", features=features, **changed)


def serve(log: FeatureLog, *ids: str, output: float = 0.5) -> None:
    log.record([served(id_, output) for id_ in ids])
    drain(log)


def ids(queue: LabelQueue, person: str, many: int = 1, lease_s: int | None = None) -> list[str]:
    """Claim after filling, and return the ids."""
    queue.fill()
    return [claimed.prediction_id for claimed in queue.claim(person, many, lease_s)]


def labels_of(log: FeatureLog, id_: str) -> list[tuple[str, str | None, LabelValue]]:
    """Return person, key and value of the labels in the inbox."""
    recorded = log.recorder.find(id_)
    assert recorded is not None
    return [(one.label.by, one.label.key, one.label.value) for one in recorded.labels]


def test_the_most_uncertain_come_first(opened: Opener) -> None:
    log = opened(random=0.0, twice=0.0)
    outputs = [0.95, 0.52, 0.1, 0.4]
    log.record([served(f"p{n}", output, x=n + 0.5) for n, output in enumerate(outputs)])
    drain(log)
    queue = log.queue()
    queue.fill()
    claimed = queue.claim("ada", 3)
    assert [one.prediction_id for one in claimed] == ["p1", "p3", "p2"]
    first = claimed[0]
    assert (first.why, first.features, first.version) == ("uncertain", {"x": 1.5, "city": None}, "1")
    assert first.until == START + timedelta(minutes=15)
    assert not hasattr(first, "output")


def test_a_declared_share_of_the_questions_is_random(opened: Opener) -> None:
    log = opened(random=0.25, twice=0.0)
    serve(log, *(f"p{n}" for n in range(80)))
    queue = log.queue()
    queue.fill()
    whys = [
        one.why
        for _ in range(4)
        for one in queue.claim("ada", 20)
        if queue.answer("ada", one.prediction_id, True)
    ]
    assert len(whys) == 80
    assert whys[:40].count("random") == 10
    counts = queue.counts()
    assert (counts.answered, counts.open_random, counts.open_uncertain, counts.people) == (80, 0, 0, 1)


def test_nobody_is_asked_about_shadows_imports_and_labelled_predictions(opened: Opener) -> None:
    log = opened(random=0.0)
    log.label([label("early")])
    log.record(
        [
            served("shadow", role="shadow"),
            prediction("imported"),
            served("early"),
            served("known"),
            served("asked"),
        ]
    )
    log.label([label("known")])
    drain(log)
    assert ids(log.queue(), "ada", 10) == ["asked"]


def test_people_are_asked_about_a_prediction_labelled_by_a_timeout(
    opened: Opener, pipeline: Pipeline, clock: SimulatedClock, settings: Settings
) -> None:
    rule = replace(pipeline.label, timeout=False)
    log = FeatureLog(replace(pipeline, label=rule, people=People()), settings, clock)
    serve(log, "late")
    later(clock, hours=3)
    drain(log)
    queue = log.queue()
    assert ids(queue, "ada", 10) == ["late"]
    queue.answer("ada", "late", True)
    drain(log)
    assert log.examples()["label"].to_list() == [False, True]
    log.close()
    log.database.close()


def test_only_the_most_urgent_wait(opened: Opener) -> None:
    log = opened(random=0.5, most_open=10)
    queue = log.queue()
    for start in range(0, 300, 100):
        log.record([served(f"p{n}", n / 600) for n in range(start, start + 100)])
        drain(log)
        queue.fill()
    counts = queue.counts()
    assert (counts.open_random, counts.open_uncertain, counts.behind) == (5, 5, 0)
    uncertain = [one.prediction_id for one in queue.claim("ada", 10) if one.why == "uncertain"]
    assert min(int(id_[1:]) for id_ in uncertain) > 270


def test_filling_goes_on_where_it_stopped(opened: Opener) -> None:
    log = opened()
    serve(log, *(f"p{n}" for n in range(35)))
    assert log.queue(step_records=10).fill(2) == 20
    assert log.queue().counts().behind == 15
    assert log.queue(step_records=10).fill() == 15
    assert log.queue().fill() == 0
    counts = log.queue().counts()
    assert counts.open_random + counts.open_uncertain == 35


def test_a_claim_fills_nothing_and_says_that_records_wait(opened: Opener) -> None:
    log = opened(twice=0.0)
    queue = log.queue()
    assert queue.claim("ada") == []
    serve(log, "p", "q")
    with pytest.raises(NotReadyError, match="2 sequenced records wait") as refused:
        queue.claim("ada")
    assert "LabelQueue.fill()" in refused.value.hint
    assert queue.counts().behind == 2
    queue.fill()
    assert len(queue.claim("ada", 2)) == 2
    assert queue.claim("bob") == []
    serve(log, "r")
    assert len(queue.claim("ada", 2)) == 2  # what she holds is there, whatever waits


def test_processes_that_fill_at_once_ask_once(opened: Opener) -> None:
    log = opened(twice=0.0)
    serve(log, *(f"p{n}" for n in range(200)))
    looked: list[int] = []
    fillers = [
        threading.Thread(target=lambda: looked.append(log.queue(step_records=10).fill()))
        for _ in range(3)
    ]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
    assert sum(looked) == 200
    counts = log.queue().counts()
    assert (counts.open_random + counts.open_uncertain, counts.behind) == (200, 0)


def test_the_classes_are_those_that_labels_had(opened: Opener) -> None:
    log = opened(task="multiclass")
    log.record([replace(served(id_), output={"red": 0.5, "blue": 0.5}) for id_ in "abc"])
    log.label([label("a", "red"), label("b", "0123"), label("c", "red")])
    queue = log.queue()
    drain(log)
    assert queue.classes() == []
    queue.fill()
    log.label([label("c", "blue", key="again")])
    drain(log)
    queue.fill()
    assert [(one.value, one.text) for one in queue.classes()] == [
        ("0123", "0123"), ("blue", "blue"), ("red", "red"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("others", "offered"),
    [
        ({}, ["blue", "red"]),
        ({"open": True}, ["blue", "green", "red", "rde"]),
        ({"hold": True}, ["blue", "green", "red"]),
    ],
)
def test_declared_classes_are_offered_and_others_as_they_are_taken(
    pipeline: Pipeline,
    settings: Settings,
    clock: SimulatedClock,
    others: dict[str, bool],
    offered: list[str],
) -> None:
    rule = replace(pipeline.label, classes=("red", "blue"), **others)
    asking = replace(pipeline, task="multiclass", metrics=(), label=rule, people=People())
    log = FeatureLog(asking, settings, clock)
    log.record([replace(served(id_), output={"red": 1.0}) for id_ in "ab"])
    if others:
        log.label([label("a", "green"), label("b", "rde")])
    drain(log)
    log.queue().fill()
    if "hold" in others:
        log.new_classes.name("green", "green", by="test", reason="")
        log.new_classes.name("rde", "red", by="test", reason="")
    assert sorted(one.text for one in log.queue().classes()) == sorted(offered)
    log.close()
    log.database.close()


def test_the_classes_of_a_binary_task_are_true_and_false(opened: Opener) -> None:
    found = opened().queue().classes()
    assert [(one.value, one.text) for one in found] == [(False, "false"), (True, "true")]


def test_a_regression_has_no_classes(opened: Opener) -> None:
    with pytest.raises(NotFoundError, match="no classes"):
        opened(task="regression").queue().classes()


def test_a_question_is_kept_until_its_lease_ends(opened: Opener, clock: SimulatedClock) -> None:
    log = opened(twice=0.0)
    serve(log, "p")
    queue = log.queue()
    assert ids(queue, "ada", lease_s=60) == ["p"]
    assert ids(queue, "bob") == []
    later(clock, seconds=60)
    assert ids(queue, "bob") == ["p"]
    with pytest.raises(ConflictError, match="went to others"):
        queue.answer("ada", "p", True)
    assert queue.answer("bob", "p", False) == "recorded"
    assert labels_of(log, "p") == [("bob", "bob", False)]


def test_a_repeated_claim_returns_the_same_questions(opened: Opener, clock: SimulatedClock) -> None:
    log = opened()
    serve(log, *"abcdef")
    queue = log.queue()
    first = ids(queue, "ada", 3)
    later(clock, minutes=10)
    assert ids(queue, "ada", 3) == first
    later(clock, minutes=10)
    assert ids(queue, "ada", 5)[:3] == first


def test_an_answer_after_the_lease_counts_unless_others_took_over(
    opened: Opener, clock: SimulatedClock
) -> None:
    log = opened(twice=0.0)
    serve(log, "p")
    queue = log.queue()
    ids(queue, "ada")
    later(clock, hours=1)
    assert queue.answer("ada", "p", True) == "recorded"
    assert ids(queue, "bob") == []


def test_the_same_answer_is_one_and_another_a_revision(opened: Opener, clock: SimulatedClock) -> None:
    log = opened(twice=0.0)
    serve(log, "p")
    queue = log.queue()
    ids(queue, "ada")
    statuses = []
    for value in (True, True, False, False, True):
        later(clock, minutes=1)
        statuses.append(queue.answer("ada", "p", value))
    assert statuses == ["recorded", "known", "recorded", "known", "recorded"]
    assert labels_of(log, "p") == [("ada", "ada", True), ("ada", "ada#1", False), ("ada", "ada#2", True)]
    drain(log)
    rows = log.examples().select("label", "source", "revision").rows()
    assert rows == [(True, "human", 0), (False, "human", 1), (True, "human", 2)]
    assert queue.counts().answers == 1


def test_a_third_answer_decides_if_two_differ(opened: Opener) -> None:
    log = opened(twice=1.0)
    serve(log, "p", "q")
    queue = log.queue()
    for person, value in (("ada", True), ("bob", False)):
        for id_ in ids(queue, person, 2):
            queue.answer(person, id_, value if id_ == "p" else True)
    assert ids(queue, "cleo", 2) == ["p"]
    queue.answer("cleo", "p", True)
    assert ids(queue, "dora", 2) == []
    drain(log)
    newest = dict(log.examples().select("prediction_id", "label").rows())
    assert newest == {"p": True, "q": True}
    counts = queue.counts()
    assert (counts.answered, counts.answers, counts.agreement.pairs) == (2, 5, 2)
    assert counts.agreement.raw == 0.5


def test_a_change_of_mind_opens_a_question_again(opened: Opener) -> None:
    log = opened(twice=1.0)
    serve(log, "p")
    queue = log.queue()
    for person in ("ada", "bob"):
        ids(queue, person)
        queue.answer(person, "p", True)
    assert ids(queue, "cleo") == []
    queue.answer("ada", "p", False)
    assert ids(queue, "cleo") == ["p"]
    queue.answer("ada", "p", True)
    assert queue.answer("cleo", "p", True) == "recorded"  # he held it


def test_a_skipped_question_goes_to_others_three_times(opened: Opener) -> None:
    log = opened()
    serve(log, "p")
    queue = log.queue()
    for person in ("ada", "bob", "cleo"):
        assert ids(queue, person) == ["p"]
        queue.skip(person, "p")
        queue.skip(person, "p")
        assert ids(queue, person) == []
    assert ids(queue, "dora") == []
    counts = queue.counts()
    assert (counts.given_up, counts.skips, counts.answers, counts.claimed) == (1, 3, 0, 0)
    assert labels_of(log, "p") == []


def test_a_person_who_skipped_may_answer_while_there_is_room(opened: Opener) -> None:
    log = opened(twice=0.0)
    serve(log, "p", "q")
    queue = log.queue()
    for id_ in ids(queue, "ada", 2):
        queue.skip("ada", id_)
    assert queue.answer("ada", "p", True) == "recorded"
    assert sorted(ids(queue, "bob", 2)) == ["q"]
    with pytest.raises(ConflictError, match="went to others"):
        queue.answer("ada", "q", True)
    counts = queue.counts()
    assert (counts.answers, counts.skips) == (1, 1)


@pytest.mark.parametrize("sequenced", [True, False])
def test_a_natural_label_takes_the_question_away(opened: Opener, *, sequenced: bool) -> None:
    log = opened(random=0.0, twice=0.0)
    serve(log, "held", "free")
    queue = log.queue()
    assert ids(queue, "ada") == ["held"]
    log.label([label("held"), label("free")])
    if sequenced:
        drain(log)
        queue.fill()
    with pytest.raises(ConflictError, match="came from elsewhere"):
        queue.answer("ada", "held", False)
    assert ids(queue, "ada", 2) == []
    assert (queue.counts().labelled, queue.counts().claimed) == (2, 0)
    assert [value for _, _, value in labels_of(log, "held")] == [True]


def test_a_person_s_label_from_elsewhere_is_an_answer(opened: Opener) -> None:
    log = opened(twice=1.0)
    serve(log, "p")
    queue = log.queue()
    queue.fill()
    log.label([replace(label("p", key="x"), source="human", by="ada")])
    drain(log)
    assert ids(queue, "ada") == []
    assert ids(queue, "bob") == ["p"]
    assert queue.counts().answers == 1


def test_a_person_without_a_claim_cannot_answer(opened: Opener) -> None:
    log = opened()
    serve(log, "p")
    queue = log.queue()
    for act in (lambda: queue.answer("ada", "p", True), lambda: queue.skip("ada", "p")):
        with pytest.raises(NotFoundError, match="nothing is asked"):
            act()
    queue.fill()
    for act in (lambda: queue.answer("ada", "p", True), lambda: queue.skip("ada", "p")):
        with pytest.raises(ConflictError, match="has not claimed"):
            act()
    ids(queue, "ada")
    queue.answer("ada", "p", True)
    with pytest.raises(ConflictError, match="has answered"):
        queue.skip("ada", "p")


def test_a_wrong_answer_is_refused_and_never_recorded(opened: Opener) -> None:
    log = opened()
    serve(log, "p")
    queue = log.queue()
    ids(queue, "ada")
    for person, id_, value in (
        ("ada", "p", "yes"),
        ("a#b", "p", True),
        ("ada", "\ud800", True),
        ("ada", "", True),
    ):
        with pytest.raises(SchemaError):
            queue.answer(person, id_, value)
    for many, lease_s in ((0, None), (101, None), (1, 0), (1, 86_401)):
        with pytest.raises(SchemaError, match="not a number from 1 to"):
            queue.claim("ada", many, lease_s)
    assert labels_of(log, "p") == []


def test_a_regression_measures_how_far_apart_answers_are(opened: Opener) -> None:
    log = opened(task="regression", twice=1.0, tolerance=0.5)
    serve(log, "p", "q", output=7.0)
    queue = log.queue()
    queue.fill()
    for person, value in (("ada", 3), ("bob", 3.5)):
        for claimed in queue.claim(person, 2):
            assert claimed.why == "random"
            queue.answer(
                person, claimed.prediction_id, value if claimed.prediction_id == "p" else value * 2
            )
    assert labels_of(log, "p")[0] == ("ada", "ada", 3.0)
    found = queue.counts().agreement
    assert (found.pairs, found.raw, found.kappa) == (2, 0.5, None)
    assert found.mean_difference is not None
    assert isclose(found.mean_difference, 0.75)


def test_people_who_claim_at_once_share_the_questions(opened: Opener) -> None:
    log = opened(twice=0.0)
    serve(log, *(f"p{n}" for n in range(30)))
    queue, got = log.queue(), dict[str, list[str]]()
    queue.fill()

    def work(person: str) -> None:
        got[person] = [
            id_ for _ in range(4) for id_ in ids(queue, person, 4) if queue.answer(person, id_, True)
        ]

    threads = [threading.Thread(target=work, args=(person,)) for person in ("ada", "bob", "cleo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id_ for found in got.values() for id_ in found) == sorted(f"p{n}" for n in range(30))
    assert [len(labels_of(log, f"p{n}")) for n in range(30)] == [1] * 30


def test_a_pipeline_without_people_has_no_queue(log: FeatureLog) -> None:
    with pytest.raises(DeclarationError, match="has no label queue") as refused:
        log.queue()
    assert "people=People()" in refused.value.hint


def test_an_answer_by_one_person_twice_at_once_is_one(opened: Opener) -> None:
    log = opened(twice=0.0)
    serve(log, "p")
    queue = log.queue()
    ids(queue, "ada")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(queue.answer("ada", "p", True))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["known", "known", "known", "recorded"]
    assert len(labels_of(log, "p")) == 1


def test_unseen_questions_leave_no_row(opened: Opener) -> None:
    log = opened()
    serve(log, *(f"p{n}" for n in range(50)))
    queue = log.queue()
    queue.fill()
    log.label([Label(prediction_id=f"p{n}", value=True, known_at=START) for n in range(50)])
    drain(log)
    queue.fill()
    with log.database.reading() as connection:
        rows = connection.execute(select(func.count()).select_from(queue_tables.question)).scalar_one()
    assert (rows, queue.counts().labelled) == (0, 50)


def test_two_openings_are_one_queue(opened: Opener) -> None:
    log, other = opened(twice=0.0), opened(twice=0.0)
    serve(log, "p")
    assert ids(log.queue(), "ada") == ["p"]
    assert ids(other.queue(), "bob") == []
    assert other.queue().counts().claimed == 1
