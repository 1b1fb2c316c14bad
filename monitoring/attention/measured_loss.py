"""Measure the loss on mature labels, and weigh it against the estimates by precision.

A measured loss that no moved column explains is a changed concept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from headwater.monitoring.attention.concept_drift import concept_changed
from headwater.monitoring.attention.findings import CALL, ERRORS, cost, judge
from headwater.monitoring.attention.window_pair import WatchedChampion, WindowPair
from headwater.monitoring.measure.labelled_rows import (
    classes_of,
    labelled,
    labels_of,
    outputs_of,
    sample,
    served_numbers,
    served_or_predicted,
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
    """The loss of the metric, None if it cannot be measured, and notes on the measurement.

    `changed` says whether labels follow the outputs in another way than before; None if it is not known.
    """

    loss: Loss | None
    notes: list[str]
    changed: bool | None = None


class _Comparison(NamedTuple):
    """The rows that a mature window is compared with, and the allowances for them.

    `allowed` is forgiven, `doubt` is a standard error beside the metric's own; both in units of a loss.
    """

    rows: pl.DataFrame
    allowed: float
    doubt: float


def measured_loss(
    pair: WindowPair,
    reference: pl.DataFrame,
    mature: pl.DataFrame,
    earlier: pl.DataFrame | None,
    champion: WatchedChampion,
) -> MeasuredLoss:
    """Measure the loss of the metric between the rows before the mature window and the window.

    Parameters
    ----------
    pair
        The two windows, prepared.
    reference, mature, earlier, champion
        As for :func:`headwater.monitoring.attention.attention.attend`.
    """
    rows, least = labelled(mature), champion.least
    enough = max(least, 2 * GROUPS)
    if rows.height < enough:
        few = f"insufficient_data: {rows.height} labels in the mature window, fewer than {least}"
        return MeasuredLoss(None, [few])
    learned = labelled(reference)
    names, classes = [kind.name for kind in pair.features], classes_of(learned, champion.task)

    def predict(rows: pl.DataFrame) -> np.ndarray:
        return outputs_of(champion.predict(rows.select(names)), classes)

    def scored(rows: pl.DataFrame) -> Badness | None:
        rows = sample(rows, _ROWS, pair.rng)
        outputs = served_or_predicted(rows, classes, predict)
        return jackknifed(pair.metric, labels_of(rows, classes), outputs)

    comparison = _comparison(learned, earlier, enough)
    notes: list[str] = []
    if comparison.allowed:
        forgiven = f"{comparison.allowed} of a measured loss is forgiven"
        notes.append(f"the reference has no served outputs: {forgiven}")
    before, after = scored(comparison.rows), scored(rows)
    if before is None or after is None:
        return MeasuredLoss(None, [*notes, f"{pair.metric} is not defined on the mature window"])
    scale = unit(pair.metric, pair.labelled.labels)
    error = math.hypot(after.error / scale, before.error / scale, comparison.doubt)
    lost = Loss((after.value - before.value) / scale - comparison.allowed, error)
    return MeasuredLoss(lost, notes, _changed(comparison, rows) if champion.task == "binary" else None)


def _changed(comparison: _Comparison, rows: pl.DataFrame) -> bool | None:
    """Tell whether labels follow outputs in another way; None if others served the rows before."""
    if comparison.allowed or comparison.doubt:
        return None
    reference, current = served_numbers(comparison.rows), served_numbers(rows)
    if reference is None or current is None:
        return None
    return concept_changed(reference, labels_of(comparison.rows, ()), current, labels_of(rows, ()))


def _comparison(learned: pl.DataFrame, earlier: pl.DataFrame | None, enough: int) -> _Comparison:
    """Choose the rows to compare with: the champion's past, rows that others served, or learned rows."""
    past = learned[:0] if earlier is None else labelled(earlier)
    if past.height >= enough:
        return _Comparison(past, allowed=0.0, doubt=0.0)
    if "output" in learned.columns:
        served = learned.filter(pl.col("output").is_not_null())
        if served.height >= enough:
            return _Comparison(served, allowed=0.0, doubt=_OTHERS)
    return _Comparison(learned.drop("output", strict=False), allowed=_OPTIMISM, doubt=0.0)


def weighed(
    metric: Metric, findings: Sequence[Finding], measured: Loss | None, changed: bool | None = None
) -> list[Finding]:
    """Weigh estimated effects against the measured loss, each by its precision.

    Parameters
    ----------
    metric
        The pipeline's first one.
    findings
        With estimated effects.
    measured
        Loss of the mature window; if it is None, the findings stay as they are.
    changed
        Whether labels follow outputs in another way than before; None if it is not known.

    Returns
    -------
    list
        The corrected findings, and a changed concept if there is one.
    """
    if measured is None or not math.isfinite(measured.error):
        return list(findings)
    estimate = max((f.metric_effect for f in findings if f.metric_effect is not None), default=0.0)
    doubt = _NOTHING + _MODEL_ERROR * estimate
    if estimate >= _NOTHING:
        share = doubt**2 / (doubt**2 + measured.error**2)
        error = math.sqrt(share) * measured.error / ERRORS  # one, since two sources agree
        combined = Loss(share * measured.value + (1 - share) * estimate, error)
        sure = changed is not False and judge(measured, _HARM) == "act"
        corrected = [_corrected(metric, f, combined, measured, estimate, sure=sure) for f in findings]
        unexplained = Loss(measured.value - estimate, math.hypot(measured.error, doubt))
        return [*corrected, *_concept(metric, unexplained, changed, moved=True)]
    if judge(measured, _HARM) == "benign":
        findings = [msgspec.structs.replace(finding, verdict="benign") for finding in findings]
    moved = any(finding.what not in ("output", "label") for finding in findings)
    return [*findings, *_concept(metric, measured, changed, moved=moved)]


def _corrected(
    metric: Metric, finding: Finding, combined: Loss, measured: Loss, estimate: float, *, sure: bool
) -> Finding:
    """Correct an estimated effect by the measured loss of all of them together.

    A column that moved no further than from time to time is no second witness: labels must be sure.
    """
    if finding.metric_effect is None or finding.metric_effect < _NOTHING:
        return finding
    share = finding.metric_effect / estimate
    loss = Loss(combined.value * share, combined.error * share)
    verdict = judge(loss, CALL if finding.verdict == "act" else _HARM)
    return msgspec.structs.replace(
        finding,
        metric_effect=loss.value,
        verdict="watch" if verdict == "act" and not (finding.clear or sure) else verdict,
        sentence=f"{finding.sentence}; measured on labels, all together {cost(metric, measured.value)}",
    )


def _concept(metric: Metric, unexplained: Loss, changed: bool | None, *, moved: bool) -> list[Finding]:
    """Find a measured loss that no moved column explains.

    If labels follow outputs in another way, and no column moved that could be the cause, that is a
    second witness: the loss itself need not be clear of luck. If they follow as before, harder rows
    came, and the loss is no fault of the concept.
    """
    clear = judge(unexplained, _HARM) == "act"
    two_witnesses = changed is True and not moved and unexplained.value >= CALL
    if changed is False or not (clear or two_witnesses):
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
