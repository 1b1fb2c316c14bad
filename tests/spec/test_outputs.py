"""Valid outputs of a version, by task."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.spec.data.values import LARGEST
from headwater.spec.outputs import misfit_of_output
from headwater.spec.pipeline import Task


@pytest.mark.parametrize(
    ("task", "output", "why"),
    [
        ("binary", 1.5, "not within 0 and 1"),
        ("binary", -0.01, "not within 0 and 1"),
        ("binary", float("nan"), "not within 0 and 1"),
        ("binary", 10**400, "not within 0 and 1"),
        ("binary", True, "no number"),
        ("binary", {"a": 1.0}, "no number"),
        ("binary", "0.5", "no number"),
        ("regression", float("inf"), "not finite"),
        ("regression", 1.01 * LARGEST, "beyond 1e\\+38"),
        ("regression", -(10**400), "beyond"),
        ("regression", None, "no number"),
        ("multiclass", 0.5, "by class"),
        ("multiclass", {"a": "1"}, "by class"),
        ("multiclass", {"a": True}, "by class"),
        ("multiclass", {"a": 1.5}, "not within"),
        ("multiclass", {"a": float("nan")}, "not within"),
        ("multiclass", {"a": -0.1, "b": 1.0}, "not within"),
        ("multiclass", {"a": 0.6, "b": 0.6}, "come to 1.2"),
        ("multiclass", {"a\n": 0.6}, "control character"),
        ("multiclass", {1: 0.6}, "no text"),
    ],
)
def test_a_wrong_output_is_named_with_its_reason(task: Task, output: Any, why: str) -> None:
    misfit = misfit_of_output(task, output)
    assert misfit is not None
    assert re.search(why, misfit)


@given(st.lists(st.floats(0, 1), max_size=5), st.floats(0, 1))
def test_shares_that_come_to_one_are_accepted(given_shares: list[float], left_out: float) -> None:
    total = sum(given_shares) or 1.0
    shares = {str(place): share / total * left_out for place, share in enumerate(given_shares)}
    assert misfit_of_output("multiclass", shares) is None


@pytest.mark.parametrize(
    ("task", "output"),
    [
        ("binary", 0), ("binary", 1), ("binary", 1.0000001), ("binary", -1e-9), ("binary", 5e-324),
        ("regression", LARGEST), ("regression", -0.0), ("regression", 7),
        ("multiclass", {}), ("multiclass", {"a": 0.7}),
        ("multiclass", {"a": 0.34, "b": 0.33, "c": 0.335}),
    ],
)  # fmt: skip
def test_outputs_of_models_are_accepted(task: Task, output: Any) -> None:
    assert misfit_of_output(task, output) is None
