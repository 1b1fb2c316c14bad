"""What is said of what was found: a verdict from a loss and its error, and a sentence for a person."""

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


def judge(found: Loss, call: float = CALL) -> Verdict:
    """Give the verdict on a loss.

    Parameters
    ----------
    found
        The loss, and its standard error.
    call
        From which somebody should act.

    Examples
    --------
    >>> judge(Loss(0.02, 0.004)), judge(Loss(0.02, 0.02)), judge(Loss(0.001, 0.004))
    ('act', 'watch', 'benign')
    """
    if found.value >= call and found.value > ERRORS * found.error:
        return "act"
    return "watch" if found.value + found.error >= call else "benign"


def cost(metric: Metric, value: float) -> str:
    """Say what a loss costs.

    Examples
    --------
    >>> cost("roc_auc", 0.0123)
    'costs about 0.012 ROC AUC'
    """
    name = {"roc_auc": "ROC AUC", "log_loss": "log loss", "f1": "F1"}.get(metric, metric)
    unit = "standard deviations of the label, by " + name if metric in ("mae", "rmse") else name
    return f"costs about {value:.3f} {unit}" if value >= 0.0005 else f"costs no {name}"


def column_findings(
    case: WindowPair, columns: Sequence[ColumnDrift], looked: Attributions
) -> list[Finding]:
    """Judge each column that moved, or whose relations broke.

    Parameters
    ----------
    case
        The two windows.
    columns
        How far each of them moved, as far as that was judged.
    looked
        What was found about those that moved.
    """
    by_name = {column.name: column for column in columns}
    found = [_column_finding(case, by_name.get(one.name), one) for one in looked.closer]
    return found + [_skipped_finding(one) for one in looked.skipped]


def _column_finding(case: WindowPair, column: ColumnDrift | None, closer: ColumnAttribution) -> Finding:
    return Finding(
        what=closer.name,
        distance=column.distance if column else 1.0,
        measure=column.measure if column else "share without a value",
        drifted=bool(column and column.drifted),
        clear=closer.alone or closer.clear,
        output_effect=closer.output_effect,
        metric_effect=closer.loss.value,
        verdict=_verdict(closer),
        sentence=_sentence(case, closer),
    )


def _verdict(closer: ColumnAttribution) -> Verdict:
    if closer.alone:
        return judge(closer.loss)
    found = judge(closer.loss, _CALL_WORLD)
    return "watch" if found == "act" and not closer.clear else found


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


def _sentence(case: WindowPair, closer: ColumnAttribution) -> str:
    price = cost(case.metric, closer.loss.value)
    effect = f"the champion's outputs move {closer.output_effect:.2g} because of it, which {price}"
    move = _move(closer.name, case.reference[closer.name], case.current[closer.name])
    if not closer.alone and not closer.clear:
        return f"{move}, no further than it goes from time to time; {effect}"
    if not closer.alone:
        return f"{move}, and the columns that go with it move too; {effect}"
    why = " and no longer agrees with the other columns" if closer.kept < 0.7 else " by itself"
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
    before, now = np.nanmean(numbers(first)), np.nanmean(numbers(second))
    if abs(now - before) < 0.05 * np.nanstd(numbers(first)):
        return f"{name} kept its mean and moved otherwise"
    return f"{name} moved {abs(now - before):.3g} units {'up' if now > before else 'down'}"


def joint_findings(case: WindowPair, looked: Attributions) -> list[Finding]:
    """Find what no single column shows: relations broken, and columns that cost only together.

    Parameters
    ----------
    case
        The two windows.
    looked
        What was found about single columns.
    """
    alone = [one for one in looked.closer if one.alone]
    broken = [one for one in alone if one.broken]
    if len(alone) < 2 and not broken:
        return []
    side = case.labelled
    replaced = [one.column for one in alone if one.column is not None]
    outputs = case.predict(side.frame.with_columns(replaced))
    lost = loss(case.metric, side, outputs)
    names = ", ".join(one.name for one in broken or alone)
    go = "goes" if len(broken) == 1 else "go"
    broke = f"no longer {go} with the other columns as before"
    what = broke if broken else "moved by themselves together"
    return [
        Finding(
            what="joint",
            distance=max(1 - one.kept for one in broken or alone),
            measure="rank correlation lost",
            drifted=False,
            output_effect=float(np.abs(outputs - side.outputs).mean()),
            metric_effect=lost.value,
            verdict=judge(lost),
            sentence=f"{names} {what}, which {cost(case.metric, lost.value)}",
        )
    ]


def output_findings(case: WindowPair, task: Task) -> list[Finding]:
    """Compare the champion's outputs in both windows, but of classes; by itself a move is benign.

    Parameters
    ----------
    case
        The two windows.
    task
        What is predicted.
    """
    if task == "multiclass":
        return []
    found = column_drift(pl.Series(case.before), pl.Series(case.now), Feature("outputs", float))
    if isinstance(found, str) or not found.drifted:
        return []
    moved = float(case.now.mean() - case.before.mean())
    way = "higher" if moved > 0 else "lower"
    return [
        Finding(
            what="output",
            distance=found.distance,
            measure=found.measure,
            drifted=True,
            output_effect=abs(moved),
            verdict="benign",
            sentence=f"the champion's outputs are {abs(moved):.2g} {way} on average",
        )
    ]


def label_findings(reference: pl.DataFrame, mature: pl.DataFrame, task: Task) -> list[Finding]:
    """Compare the labels of both windows; what a changed share costs is the metric's to say.

    Parameters
    ----------
    reference
        With ``label``.
    mature
        With ``label``, or nothing is said.
    task
        Labels of all but regression are categories.
    """
    if "label" not in mature.columns:
        return []
    first, second = reference["label"].drop_nulls(), mature["label"].drop_nulls()
    if task == "regression":
        found = column_drift(first, second, Feature("labels", float))
    else:
        found = column_drift(first.cast(pl.String), second.cast(pl.String), Feature("labels", str))
    if isinstance(found, str) or not found.drifted:
        return []
    return [
        Finding(
            what="label",
            distance=found.distance,
            measure=found.measure,
            drifted=True,
            verdict="benign",
            sentence=f"labels came in other shares than before ({found.measure} {found.distance:.2g})",
        )
    ]
