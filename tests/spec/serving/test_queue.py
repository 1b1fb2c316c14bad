"""The policy of the label queue: strata, priorities, numbers of people."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.spec.errors import DeclarationError, SchemaError
from headwater.spec.serving.queue import (
    People,
    agree,
    ask,
    check_person,
    closing,
    places,
    random_next,
    required_answers,
    uncertainty,
)

IDS = [f"p-{n}" for n in range(20_000)]


def test_the_strata_are_dealt_by_id_and_seed_alone() -> None:
    people = People(random=0.2, twice=0.1)
    questions = [ask(people, "binary", "flights 0", id_, 0.3) for id_ in IDS]
    assert questions == [ask(people, "binary", "flights 0", id_, 0.3) for id_ in IDS]
    assert questions != [ask(people, "binary", "flights 1", id_, 0.3) for id_ in IDS]
    counts = Counter(one.why for one in questions)
    assert counts["random"] / len(IDS) == pytest.approx(0.2, abs=0.015)
    assert sum(one.people == 2 for one in questions) / len(IDS) == pytest.approx(0.1, abs=0.01)


def test_the_random_stratum_does_not_look_at_the_output() -> None:
    people = People()
    for id_ in IDS[:500]:
        sure, unsure = (ask(people, "binary", "f 0", id_, output) for output in (0.99, 0.5))
        assert sure.why == unsure.why
        assert (sure.priority == unsure.priority) == (sure.why == "random")


def test_the_three_draws_of_an_id_are_independent() -> None:
    asked = [ask(People(random=0.5, twice=0.5), "binary", "f 0", id_, 0.0) for id_ in IDS]
    random = [one for one in asked if one.why == "random"]
    assert sum(one.people == 2 for one in random) / len(random) == pytest.approx(0.5, abs=0.02)
    twice = [one.priority for one in random if one.people == 2]
    assert sum(twice) / len(twice) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        ("binary", [0.0, 0.9, 0.2, 0.45, 0.5]),
        ("multiclass", [{"a": 1.0}, {"a": 0.8, "b": 0.2}, {"a": 0.4, "b": 0.35, "c": 0.25}, {}]),
    ],
)
def test_less_certain_predictions_have_higher_priority(task: str, outputs: list[Any]) -> None:
    found = [uncertainty(task, output) for output in outputs]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0.0, 1.0)


def test_a_regression_asks_at_random_alone() -> None:
    people = People(random=0.0)
    assert {ask(people, "regression", "f 0", id_, 7.0).why for id_ in IDS[:100]} == {"random"}
    assert places(people, "regression") == {"random": 1_000, "uncertain": 0}


@given(st.floats(0, 1), st.lists(st.integers(1, 20), max_size=30))
def test_the_share_holds_over_all_that_was_dealt(share: float, batches: list[int]) -> None:
    people, random, dealt = People(random=share), 0, 0
    for many in batches:
        random += random_next(people, "binary", random, dealt, many)
        dealt += many
        assert 0 <= share * dealt - random + 1e-6 < 1 + 2e-6


@given(st.floats(0, 1), st.integers(2, 1_000))
def test_each_stratum_has_its_places(share: float, most: int) -> None:
    found = places(People(random=share, most_open=most), "binary")
    assert sum(found.values()) == most
    assert (found["random"] > 0, found["uncertain"] > 0) == (share > 0, share < 1)


def test_a_third_answer_is_required_if_two_differ() -> None:
    people = People(tolerance=0.5)
    answers = ([], [1.0], [1.0, 1.5], [1.0, 2.0])
    assert [required_answers(people, 2, values) for values in answers] == [2, 2, 2, 3]
    assert required_answers(people, 1, ["red", "blue"]) == 3
    assert agree(people, True, True)
    assert not agree(people, "a", "b")


def test_a_question_ends_with_its_answers_or_three_skips() -> None:
    assert closing(2, 1, 2) is None
    assert closing(2, 2, 0) == closing(2, 1, 3) == "answered"
    assert closing(1, 0, 3) == "skipped"


@pytest.mark.parametrize("name", ["", " ada", "a#1", "a\nb", "\ud800", "x" * 101, "a\0"])
def test_a_wrong_name_of_a_person_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="is not a name"):
        check_person(name)


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"random": 1.5}, "random=0.2"),
        ({"random": True}, "random=0.2"),
        ({"twice": "some"}, "twice=0.1"),
        ({"twice": float("nan")}, "twice=0.1"),
        ({"most_open": 1}, "most_open=1_000"),
        ({"most_open": 1.5}, "most_open=1_000"),
        ({"lease": "2d"}, "lease='15m'"),
        ({"lease": "soon"}, "'15m'"),
        ({"tolerance": -1}, "tolerance=0.5"),
        ({"tolerance": float("inf")}, "tolerance=0.5"),
    ],
)
def test_wrong_people_are_refused_with_a_hint(changed: dict[str, Any], hint: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        People(**changed)
    assert hint in refused.value.hint
