"""The check of a label rule against the task of its pipeline."""

from collections.abc import Sequence

from msgspec import UNSET

from headwater.spec.data.feature import FeatureKind, RequestFeature
from headwater.spec.data.label import DUE_AT, LabelRule
from headwater.spec.data.values import LARGEST, is_sound, misfit_of_class
from headwater.spec.errors import DeclarationError, few

__all__ = ["check_due", "check_label"]

_TIMEOUT_TYPES: dict[str, type | tuple[type, ...]] = {
    "binary": bool,
    "multiclass": str,
    "regression": (int, float),
}


def check_label(rule: LabelRule, task: str) -> None:
    """Check that a label rule fits a task.

    Raises
    ------
    DeclarationError
        If timeout, range or classes are not those of such labels.
    """
    if task != "regression" and rule.range_words:
        raise DeclarationError(
            f"labels of a {task} task have no range, and it is {rule.range_words}",
            hint="leave low and high out",
        )
    if task != "multiclass" and rule.classes is not UNSET:
        raise DeclarationError(
            f"labels of a {task} task are no classes by name", hint="leave classes out"
        )
    _check_timeout(rule, task)


def check_due(rule: LabelRule, features: Sequence[FeatureKind]) -> None:
    """Check that what a label rule names as due can say a time.

    Raises
    ------
    DeclarationError
        If it names no feature, one of bools, or a text that is looked up, which no door checks.
    """
    if rule.due is UNSET or rule.due == DUE_AT:
        return
    feature = next((feature for feature in features if feature.name == rule.due), None)
    hint = f"name a feature of text or numbers, or write due={DUE_AT!r} for a time that is sent"
    if feature is None:
        raise DeclarationError(f"due={rule.due!r} is no feature", hint=hint)
    if feature.dtype == "bool":
        raise DeclarationError(f"due={rule.due!r} is a bool, and no time", hint=hint)
    if feature.dtype == "str" and not isinstance(feature, RequestFeature):
        raise DeclarationError(
            f"due={rule.due!r} is a text that is looked up, and not checked when a request comes",
            hint="look it up as a number, seconds since 1970; or send it",
        )


def _check_timeout(rule: LabelRule, task: str) -> None:
    timeout = rule.timeout
    label_type = _TIMEOUT_TYPES[task]
    fits = isinstance(timeout, label_type) and (task == "binary" or not isinstance(timeout, bool))
    if isinstance(timeout, str):
        fits = fits and misfit_of_class(timeout) is None
    elif isinstance(timeout, int | float):
        fits = fits and is_sound(timeout)
    if timeout is not None and not fits:
        raise DeclarationError(
            f"timeout={timeout!r} is not a label of a {task} task",
            hint={"binary": "write True or False", "multiclass": "write a class's name"}.get(
                task, f"write a number, at most {LARGEST:g}"
            ),
        )
    if isinstance(timeout, str) and rule.closed_classes and timeout not in rule.closed_classes:
        raise DeclarationError(
            f"timeout={timeout!r} is none of the classes",
            hint=f"write one of {few(rule.closed_classes)}",
        )
    if task == "regression" and isinstance(timeout, int | float) and not rule.is_within(timeout):
        raise DeclarationError(
            f"timeout={timeout!r} is not {rule.range_words}", hint="write one within the range"
        )
