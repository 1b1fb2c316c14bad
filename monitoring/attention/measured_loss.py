"""With mature labels: the measured loss stands beside the estimates, each weighted by its precision.

A measured loss that no moved column explains is a changed concept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import polars as pl

from headwater.monitoring.attention.concept_drift import concept_changed
from headwater.monitoring.attention.findings import CALL, ERRORS, cost, judge
from headwater.monitoring.attention.window_pair import WatchedChampion, WindowPair
from headwater.monitoring.measure.labelled_rows import (
    classes_of,
    given,
    labelled,
    labels_of,
    outputs_of,
    sample,
    served,
)
from headwater.monitoring.measure.losses import GROUPS, Badness, Loss, jackknifed, unit
from headwater.spec.pipeline import Metric
from headwater.spec.updating.evidence import Finding

__all__ = ["MeasuredLoss", "measured_loss", "weighed"]

_ROWS = 100_000  # drawn of labelled rows, for the metric
_HARM = 0.01  # loss of the metric that somebody should act on
_OPTIMISM = 0.02  # by how much a metric on learned rows may flatter
_OTHERS = 0.007  # standard deviation between versions of one learner, trained alike
_NOTHING = 0.003  # estimated loss below which there is none; no estimate is surer than that
_MODEL_ERROR = 0.25  # share of an estimated effect that the estimate may be wrong by


class MeasuredLoss(NamedTuple):
    """What the metric lost, None where that cannot be measured, and notes on how it was.

    `changed` says whether labels follow the outputs in another way than before; None where it is not
    known.
    """

    loss: Loss | None
    notes: list[str]
    changed: bool | None = None


class _Base(NamedTuple):
    """What a mature window is compared with, and what must be allowed for.

    `allowed` is forgiven, `doubt` is a standard error beside the metric's own; both in units of a loss.
    """

    rows: pl.DataFrame
    allowed: float
    doubt: float


def measured_loss(
    case: WindowPair,
    reference: pl.DataFrame,
    mature: pl.DataFrame,
    earlier: pl.DataFrame | None,
    champion: WatchedChampion,
) -> MeasuredLoss:
    """Measure what the metric lost between what came before and the mature window.

    Parameters
    ----------
    case
        The two windows, made ready.
    reference, mature, earlier, champion
        As for :func:`headwater.monitoring.attention.attention.attend`.
    """
    known, enough = labelled(mature), max(champion.least, 2 * GROUPS)
    if known.height < enough:
        few = (
            f"insufficient_data: {known.height} labels in the mature window, fewer than {champion.least}"
        )
        return MeasuredLoss(None, [few])
    learned = labelled(reference)
    names, classes = [kind.name for kind in case.features], classes_of(learned, champion.task)

    def scored(rows: pl.DataFrame) -> Badness | None:
        rows = sample(rows, _ROWS, case.drawn)
        said = given(
            rows, classes, lambda some: outputs_of(champion.predict(some.select(names)), classes)
        )
        return jackknifed(case.metric, labels_of(rows, classes), said)

    base = _base(learned, earlier, enough)
    notes: list[str] = []
    if base.allowed:
        forgiven = f"{base.allowed} of a measured loss is forgiven"
        notes.append(f"the reference has no served outputs: {forgiven}")
    before, now = scored(base.rows), scored(known)
    if before is None or now is None:
        return MeasuredLoss(None, [*notes, f"{case.metric} is not defined on the mature window"])
    scale = unit(case.metric, case.labelled.labels)
    error = math.hypot(now.error / scale, before.error / scale, base.doubt)
    lost = Loss((now.value - before.value) / scale - base.allowed, error)
    return MeasuredLoss(lost, notes, _changed(base, known) if champion.task == "binary" else None)


def _changed(base: _Base, known: pl.DataFrame) -> bool | None:
    """Tell whether labels follow outputs in another way; None where others served what came before."""
    if base.allowed or base.doubt:
        return None
    before, now = served(base.rows), served(known)
    if before is None or now is None:
        return None
    return concept_changed(before, labels_of(base.rows, ()), now, labels_of(known, ()))


def _base(learned: pl.DataFrame, earlier: pl.DataFrame | None, enough: int) -> _Base:
    """Choose what to compare with: the champion's own past, what others served, or what it learned."""
    past = learned[:0] if earlier is None else labelled(earlier)
    if past.height >= enough:
        return _Base(past, allowed=0.0, doubt=0.0)
    if "output" in learned.columns:
        served = learned.filter(pl.col("output").is_not_null())
        if served.height >= enough:
            return _Base(served, allowed=0.0, doubt=_OTHERS)
    return _Base(learned.drop("output", strict=False), allowed=_OPTIMISM, doubt=0.0)


def weighed(
    metric: Metric, findings: Sequence[Finding], measured: Loss | None, changed: bool | None = None
) -> list[Finding]:
    """Weigh what was estimated against what was measured, each by its precision.

    Parameters
    ----------
    metric
        The pipeline's first one.
    findings
        With estimated effects.
    measured
        Loss of the mature window; None where it is not known, and then nothing changes.
    changed
        Whether labels follow outputs in another way than before; None where it is not known.

    Returns
    -------
    list
        The findings corrected, and a changed concept where there is one.
    """
    if measured is None or not math.isfinite(measured.error):
        return list(findings)
    estimate = max((f.metric_effect for f in findings if f.metric_effect is not None), default=0.0)
    doubt = _NOTHING + _MODEL_ERROR * estimate
    if estimate >= _NOTHING:
        share = doubt**2 / (doubt**2 + measured.error**2)
        error = math.sqrt(share) * measured.error / ERRORS  # one, since two sources agree
        both = Loss(share * measured.value + (1 - share) * estimate, error)
        sure = changed is not False and judge(measured, _HARM) == "act"
        corrected = [_corrected(metric, f, both, measured, estimate, sure=sure) for f in findings]
        unexplained = Loss(measured.value - estimate, math.hypot(measured.error, doubt))
        return [*corrected, *_concept(metric, unexplained, changed, moved=True)]
    if judge(measured, _HARM) == "benign":
        findings = [msgspec.structs.replace(finding, verdict="benign") for finding in findings]
    moved = any(finding.what not in ("output", "label") for finding in findings)
    return [*findings, *_concept(metric, measured, changed, moved=moved)]


def _corrected(
    metric: Metric, finding: Finding, both: Loss, measured: Loss, estimate: float, *, sure: bool
) -> Finding:
    """Correct an estimated effect by what was measured of all of them together.

    What moved no further than it does from time to time is no second witness: labels must be sure.
    """
    if finding.metric_effect is None or finding.metric_effect < _NOTHING:
        return finding
    share = finding.metric_effect / estimate
    loss = Loss(both.value * share, both.error * share)
    verdict = judge(loss, CALL if finding.verdict == "act" else _HARM)
    return msgspec.structs.replace(
        finding,
        metric_effect=loss.value,
        verdict="watch" if verdict == "act" and not (finding.clear or sure) else verdict,
        sentence=f"{finding.sentence}; measured on labels, all together {cost(metric, measured.value)}",
    )


def _concept(metric: Metric, unexplained: Loss, changed: bool | None, *, moved: bool) -> list[Finding]:
    """Find a measured loss that no moved column explains.

    Two witnesses are better than one: where labels follow outputs in another way and no column moved
    that could be the cause, the loss itself need not be clear of luck. Where they follow as before,
    rows came that are harder, and no loss is laid to the concept.
    """
    clear = judge(unexplained, _HARM) == "act"
    seen = changed is True and not moved and unexplained.value >= CALL
    if changed is False or not (clear or seen):
        return []
    price = cost(metric, unexplained.value)
    return [
        Finding(
            what="concept",
            distance=unexplained.value,
            measure=f"loss of {metric}",
            drifted=False,
            metric_effect=unexplained.value,
            verdict="act",
            sentence=f"labels follow the features in another way than before, which {price}, measured",
        )
    ]
