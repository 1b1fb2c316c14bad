"""Findings: a verdict from a loss and its error, and a sentence for a person."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from headwater.monitoring.attention.attribution import (
    MOST,
    Attributions,
    ColumnAttribution,
    SkippedColumn,
)
from headwater.monitoring.attention.window_pair import WindowPair
from headwater.monitoring.measure.columns import missing_share, numbers, texts
from headwater.monitoring.measure.drift import ColumnDrift, column_drift
from headwater.monitoring.measure.losses import Loss, loss
from headwater.spec.data.feature import Feature
from headwater.spec.pipeline import Metric, Task
from headwater.spec.updating.evidence import Finding, Verdict

__all__ = [
    "CALL",
    "ERRORS",
    "column_findings",
    "cost",
    "joint_findings",
    "judge",
    "label_findings",
    "output_findings",
]

CALL = 0.007
"""Estimated loss from which a column is called harmful."""

ERRORS = 2.0
"""Standard errors that a loss must be above 0 by."""

_CALL_WORLD = 0.011  # as CALL where other rows came: one column's density ratio is a coarse weight


def judge(lost: Loss, call: float = CALL) -> Verdict:
    """Return the verdict on a loss.

    Parameters
    ----------
    lost
        The loss, and its standard error.
    call
        The loss from which somebody should act.

    Examples
    --------
    >>> judge(Loss(0.02, 0.004)), judge(Loss(0.02, 0.02)), judge(Loss(0.001, 0.004))
    ('act', 'watch', 'benign')
    """
    if lost.value >= call and lost.value > ERRORS * lost.error:
        return "act"
    return "watch" if lost.value + lost.error >= call else "benign"


def cost(metric: Metric, value: float) -> str:
    """Write a loss as a phrase, in the metric's unit.

    Examples
    --------
    >>> cost("roc_auc", 0.0123)
    'costs about 0.012 ROC AUC'
    """
    name = {"roc_auc": "ROC AUC", "log_loss": "log loss", "f1": "F1"}.get(metric, metric)
    unit = "standard deviations of the label, by " + name if metric in ("mae", "rmse") else name
    return f"costs about {value:.3f} {unit}" if value >= 0.0005 else f"costs no {name}"


def column_findings(
    pair: WindowPair, columns: Sequence[ColumnDrift], attributions: Attributions
) -> list[Finding]:
    """Judge each column that moved, or whose relations broke.

    Parameters
    ----------
    pair
        The two windows.
    columns
        How far each of them moved, as far as that was judged.
    attributions
        Of those that moved.
    """
    by_name = {column.name: column for column in columns}
    findings = [_column_finding(pair, by_name.get(each.name), each) for each in attributions.columns]
    return findings + [_skipped_finding(each) for each in attributions.skipped]


def _column_finding(
    pair: WindowPair, column: ColumnDrift | None, attribution: ColumnAttribution
) -> Finding:
    return Finding(
        what=attribution.name,
        distance=column.distance if column else 1.0,
        measure=column.measure if column else "share without a value",
        drifted=bool(column and column.drifted),
        clear=attribution.alone or attribution.clear,
        output_effect=attribution.output_effect,
        metric_effect=attribution.loss.value,
        verdict=_verdict(attribution),
        sentence=_sentence(pair, attribution),
    )


def _verdict(attribution: ColumnAttribution) -> Verdict:
    if attribution.alone:
        return judge(attribution.loss)
    verdict = judge(attribution.loss, _CALL_WORLD)
    return "watch" if verdict == "act" and not attribution.clear else verdict


def _skipped_finding(skipped: SkippedColumn) -> Finding:
    column = skipped.column
    return Finding(
        what=column.name,
        distance=column.distance,
        measure=column.measure,
        drifted=column.drifted,
        output_effect=skipped.weight or 0.0,
        verdict="watch",
        sentence=f"{column.name} moved too, and {MOST} other columns weigh more in the outputs",
    )


def _sentence(pair: WindowPair, attribution: ColumnAttribution) -> str:
    price = cost(pair.metric, attribution.loss.value)
    effect = f"the champion's outputs move {attribution.output_effect:.2g} because of it, which {price}"
    move = _move(attribution.name, pair.reference[attribution.name], pair.current[attribution.name])
    if not attribution.alone and not attribution.clear:
        return f"{move}, no further than it goes from time to time; {effect}"
    if not attribution.alone:
        return f"{move}, and the columns that go with it move too; {effect}"
    why = (
        " and no longer agrees with the other columns" if attribution.rank_share < 0.7 else " by itself"
    )
    return f"{move}{why}; {effect}"


def _move(name: str, first: pl.Series, second: pl.Series) -> str:
    missing, now_missing = missing_share(first), missing_share(second)
    if now_missing - missing > 0.02:
        return f"{name} is missing in {now_missing:.0%} of rows, before in {missing:.0%}"
    if not first.dtype.is_numeric() or not second.dtype.is_numeric():
        new = ~np.isin(texts(second), np.unique(texts(first)))
        if new.any():
            return f"{name} has values never seen in {new.mean():.0%} of rows"
        return f"shares of {name} moved"
    if missing == 1 or now_missing == 1:
        return f"{name} has no value in a window"
    if second.n_unique() == 1 and first.n_unique() > 1:
        return f"{name} is stuck at {second[0]}"
    mean, mean_now = np.nanmean(numbers(first)), np.nanmean(numbers(second))
    if abs(mean_now - mean) < 0.05 * np.nanstd(numbers(first)):
        return f"{name} kept its mean and moved otherwise"
    return f"{name} moved {abs(mean_now - mean):.3g} units {'up' if mean_now > mean else 'down'}"


def joint_findings(pair: WindowPair, attributions: Attributions) -> list[Finding]:
    """Find broken relations and costs of columns together, which no single column shows.

    Parameters
    ----------
    pair
        The two windows.
    attributions
        Of single columns.
    """
    alone = [each for each in attributions.columns if each.alone]
    broken = [each for each in alone if each.broken]
    if len(alone) < 2 and not broken:
        return []
    side = pair.labelled
    replaced = [each.column for each in alone if each.column is not None]
    outputs = pair.predict(side.frame.with_columns(replaced))
    lost = loss(pair.metric, side, outputs)
    names = ", ".join(each.name for each in broken or alone)
    go = "goes" if len(broken) == 1 else "go"
    broke = f"no longer {go} with the other columns as before"
    what = broke if broken else "moved by themselves together"
    return [
        Finding(
            what="joint",
            distance=max(1 - each.rank_share for each in broken or alone),
            measure="rank correlation lost",
            drifted=False,
            output_effect=float(np.abs(outputs - side.outputs).mean()),
            metric_effect=lost.value,
            verdict=judge(lost),
            sentence=f"{names} {what}, which {cost(pair.metric, lost.value)}",
        )
    ]


def output_findings(pair: WindowPair, task: Task) -> list[Finding]:
    """Compare the champion's outputs in both windows, except shares by class; a move alone is benign.

    Parameters
    ----------
    pair
        The two windows.
    task
        What is predicted.
    """
    if task == "multiclass":
        return []
    drift = column_drift(
        pl.Series(pair.reference_outputs), pl.Series(pair.current_outputs), Feature("outputs", float)
    )
    if isinstance(drift, str) or not drift.drifted:
        return []
    move_by = float(pair.current_outputs.mean() - pair.reference_outputs.mean())
    way = "higher" if move_by > 0 else "lower"
    return [
        Finding(
            what="output",
            distance=drift.distance,
            measure=drift.measure,
            drifted=True,
            output_effect=abs(move_by),
            verdict="benign",
            sentence=f"the champion's outputs are {abs(move_by):.2g} {way} on average",
        )
    ]


def label_findings(reference: pl.DataFrame, mature: pl.DataFrame, task: Task) -> list[Finding]:
    """Compare the labels of both windows; a changed share is benign, since the metric measures its cost.

    Parameters
    ----------
    reference
        With ``label``.
    mature
        With ``label``; without it, there are no findings.
    task
        Labels of all but regression are categories.
    """
    if "label" not in mature.columns:
        return []
    first, second = reference["label"].drop_nulls(), mature["label"].drop_nulls()
    if task == "regression":
        drift = column_drift(first, second, Feature("labels", float))
    else:
        drift = column_drift(first.cast(pl.String), second.cast(pl.String), Feature("labels", str))
    if isinstance(drift, str) or not drift.drifted:
        return []
    return [
        Finding(
            what="label",
            distance=drift.distance,
            measure=drift.measure,
            drifted=True,
            verdict="benign",
            sentence=f"labels came in other shares than before ({drift.measure} {drift.distance:.2g})",
        )
    ]
