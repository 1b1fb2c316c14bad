"""Agreement between two people who answered the same questions."""

from collections.abc import Sequence

from headwater.spec.data.records import LabelValue
from headwater.spec.serving.queue import People, agree
from headwater.spec.serving.queue_results import Agreement

__all__ = ["Pair", "agreement"]

Pair = tuple[LabelValue, LabelValue, int]
"""What the first said, what the second said, and about how many predictions."""


def agreement(people: People, task: str, pairs: Sequence[Pair]) -> Agreement:
    """Measure agreement.

    Kappa is scikit-learn's. Source: Cohen, "A coefficient of agreement for nominal scales", Educational
    and Psychological Measurement 20 (1960).

    Parameters
    ----------
    people, task
        As declared.
    pairs
        What was answered, each combination once.

    Examples
    --------
    >>> found = agreement(
    ...     People(),
    ...     "binary",
    ...     [(True, True, 20), (True, False, 5), (False, True, 10), (False, False, 15)],
    ... )
    >>> found.pairs, found.raw, round(found.kappa, 6)
    (50, 0.7, 0.4)
    """
    total = sum(count for _, _, count in pairs)
    if not total:
        return Agreement(pairs=0, raw=None, kappa=None, mean_difference=None)
    same = sum(count for one, other, count in pairs if agree(people, one, other))
    apart = None
    if task == "regression":
        apart = sum(abs(float(one) - float(other)) * count for one, other, count in pairs) / total
    kappa = None if task == "regression" else _kappa(pairs)
    return Agreement(pairs=total, raw=same / total, kappa=kappa, mean_difference=apart)


def _kappa(pairs: Sequence[Pair]) -> float | None:
    if len({str(value) for pair in pairs for value in pair[:2]}) < 2:
        return None  # agreement by chance is certain: nothing is beyond it
    from sklearn.metrics import cohen_kappa_score  # noqa: PLC0415 - heavy

    first, second = [str(one) for one, _, _ in pairs], [str(other) for _, other, _ in pairs]
    return float(cohen_kappa_score(first, second, sample_weight=[count for _, _, count in pairs]))
