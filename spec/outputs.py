"""Valid outputs by task: a chance, a chance by class, or a number."""

from collections.abc import Mapping

from headwater.spec.data.records import FeatureValue
from headwater.spec.data.values import LARGEST, is_sound, misfit_of_class
from headwater.spec.pipeline import Task

__all__ = ["misfit_of_output", "where_to_look"]

_ROUNDING = 1e-6
"""How far beyond 0 and 1 a chance may lie: as far as computing with 32 bits takes it."""

_MOST_SHARES = 1.01
"""What chances of all classes come to at most: they may have been rounded to hundredths."""


def misfit_of_output(task: Task, output: object) -> str | None:
    """Return why an output does not fit a task; None if it does.

    Binary: a chance from 0 to 1. Multiclass: a chance by class, each from 0 to 1, that together come to
    at most 1: to less where classes were left out; there are none if nothing is known. Regression: a
    finite number that is not beyond :data:`~headwater.spec.data.values.LARGEST`. Rounding is allowed
    for: a millionth for a chance, a hundredth for their sum.

    Parameters
    ----------
    task
        The pipeline's.
    output
        What was answered.

    Examples
    --------
    >>> misfit_of_output("binary", 1.5)
    'is not within 0 and 1'
    >>> misfit_of_output("multiclass", {"red": 0.7}), misfit_of_output("multiclass", {})
    (None, None)
    >>> misfit_of_output("multiclass", {"red": 0.7, "blue": 0.7})
    'has chances that come to 1.4'
    """
    if type(output) is float and 0.0 <= output <= 1.0 and task != "multiclass":
        return None  # nearly every one
    if task == "multiclass":
        return _misfit_of_shares(output)
    if not isinstance(output, float | int) or isinstance(output, bool):
        return "is no number"
    if task == "binary":
        return None if _is_chance(output) else "is not within 0 and 1"
    return None if is_sound(output) else f"is not finite, or beyond {LARGEST:g}"


def where_to_look(features: Mapping[str, FeatureValue]) -> str:
    """Return what to look at where a version fails: the largest number is most likely at fault.

    >>> where_to_look({"a": 1.0, "b": -1e38, "c": "x"})
    "look for values far from what it has learned; the largest is 'b': -1e+38"
    """
    far = "look for values far from what it has learned"
    numbers = {name: abs(value) for name, value in features.items() if isinstance(value, int | float)}
    if not numbers:
        return far
    largest = max(numbers, key=numbers.__getitem__)
    return f"{far}; the largest is {largest!r}: {features[largest]}"


def _misfit_of_shares(output: object) -> str | None:
    if not isinstance(output, dict) or not all(
        isinstance(share, float | int) and not isinstance(share, bool) for share in output.values()
    ):
        return "is not a chance by class"
    for name, share in output.items():
        why = misfit_of_class(name)
        if why is not None:
            return f"has a class that {why}"
        if not _is_chance(share):
            return f"has a chance that is not within 0 and 1: {share!r}"
    total = sum(output.values())
    return None if total <= _MOST_SHARES else f"has chances that come to {total:.6g}"


def _is_chance(number: float) -> bool:
    return -_ROUNDING <= number <= 1.0 + _ROUNDING
