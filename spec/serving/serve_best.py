"""Automatic promotion of the best shadow."""

import math
from collections.abc import Sequence

import msgspec

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import LOWER_IS_BETTER
from headwater.spec.updating.pace import check_count

__all__ = ["Progress", "ServeBest", "best"]


class ServeBest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule by which a shadow becomes champion by itself; :func:`best` applies it.

    Parameters
    ----------
    metric
        The progressive metric that it goes by; the pipeline's first if not given.
    margin
        It must be better than the champion's by more than this.
    sure
        And by more than so many standard errors of the difference, where that is known. It is looked at
        again and again, so that two would be passed by chance before long.
    least
        How many labels both must have been judged by.

    Raises
    ------
    DeclarationError
        If a number is negative, or `least` is no count.
    """

    metric: str | None = None
    margin: float = 0.0
    sure: float = 3.0
    least: int = 1_000

    def __post_init__(self) -> None:
        for field in ("margin", "sure"):
            value = getattr(self, field)
            number = isinstance(value, float | int) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise DeclarationError(
                    f"ServeBest({field}={value!r}) is not a number from 0 on",
                    hint=f"write {field}=0.01, say",
                )
        check_count("ServeBest", self.least)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progressive metric of a version on its own predictions.

    Parameters
    ----------
    version
        Its number.
    metric
        What it is judged by.
    value
        The progressive metric: each label was predicted before it was learned.
    labels
        How many labels it rests on.
    error
        Standard error of its difference from the champion's, where that is known.
    """

    version: str
    metric: str
    value: float
    labels: int
    error: float | None = None


def best(progress: Sequence[Progress], champion: str, rule: ServeBest) -> str | None:
    """Return the shadow to promote; None if there is none.

    Parameters
    ----------
    progress
        That of the champion and of its shadows, by one metric and on the same labels.
    champion
        Number of the version that serves.
    rule
        How much better a shadow must be, and for how long.

    Returns
    -------
    str or None
        The version with the best metric of those that pass; of equal ones the first in `progress`.

    Examples
    --------
    >>> def auc(version: str, value: float) -> Progress:
    ...     return Progress(version=version, metric="roc_auc", value=value, labels=2_000)
    >>> best([auc("3", 0.70), auc("5", 0.72), auc("6", 0.74)], "3", ServeBest(margin=0.03))
    '6'
    >>> best([auc("3", 0.70), auc("5", 0.72)], "3", ServeBest(margin=0.03)) is None
    True
    """
    judged = [one for one in progress if one.labels >= rule.least and math.isfinite(one.value)]
    serving = next((one for one in judged if one.version == champion), None)
    if serving is None:
        return None
    leader: tuple[float, str] | None = None
    for one in judged:
        gain = _gain(one, serving)
        if gain <= max(rule.margin, rule.sure * (one.error or 0.0)):
            continue
        if leader is None or gain > leader[0]:
            leader = gain, one.version
    return None if leader is None else leader[1]


def _gain(one: Progress, serving: Progress) -> float:
    better_by = one.value - serving.value
    return -better_by if one.metric in LOWER_IS_BETTER else better_by
