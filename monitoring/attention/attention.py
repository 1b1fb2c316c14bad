"""Judge which change needs somebody: most are benign, and a count of drifted columns does not tell.

The cost of each change is computed on the labelled reference, by one of two stories: other rows came, or
a column now holds other values for the same rows. The other columns decide between the two. With mature
labels, the measured loss corrects the estimate. The parts, in the order of their imports:

- :mod:`~headwater.monitoring.measure.columns` and
  :mod:`~headwater.monitoring.measure.labelled_rows`: rows as arrays;
- :mod:`~headwater.monitoring.measure.block_errors`: standard errors over rows that are alike;
- :mod:`~headwater.monitoring.measure.losses`: the metric, a loss of it, and its error;
- :mod:`~headwater.monitoring.attention.relations`: how columns depend on each other;
- :mod:`~headwater.monitoring.attention.counterfactual`: a column that moved alone, replaced;
- :mod:`~headwater.monitoring.attention.window_pair`: two windows, prepared;
- :mod:`~headwater.monitoring.attention.attribution`: the cost of each column that moved;
- :mod:`~headwater.monitoring.attention.findings`: verdicts and sentences;
- :mod:`~headwater.monitoring.attention.measured_loss`: their correction by labels.

Limits: if a column is independent of all others and keeps its distribution, nobody sees that it is
shuffled until labels come. Whether such a column moved alone cannot be known; a number is taken to have.
The benchmark measures binary outputs only; regression and classes go through the same code.
"""

from collections.abc import Sequence

import msgspec
import polars as pl

from headwater.monitoring.attention.attribution import attribute
from headwater.monitoring.attention.findings import (
    column_findings,
    joint_findings,
    label_findings,
    output_findings,
)
from headwater.monitoring.attention.measured_loss import measured_loss, weighed
from headwater.monitoring.attention.window_pair import WatchedChampion, prepare
from headwater.monitoring.measure.drift import ColumnDrift, drift
from headwater.spec.updating.evidence import Finding, Verdict

__all__ = ["Attention", "attend", "overruled"]

_AS_MUCH = 0.5  # share of the present effect on outputs that labels must have judged


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """The findings between two windows.

    Parameters
    ----------
    verdict
        The worst of the findings; None if there was too little to judge.
    findings
        What moved, the most harmful first.
    columns
        Every column that was judged by itself, as Evidently would.
    notes
        Which columns could not be judged, and why.
    """

    verdict: Verdict | None = None
    findings: tuple[Finding, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    notes: tuple[str, ...] = ()


def attend(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    champion: WatchedChampion,
    *,
    windows: int | None = None,
    mature: pl.DataFrame | None = None,
    earlier: pl.DataFrame | None = None,
) -> Attention:
    """Judge which changes between two windows need somebody.

    Rows of every frame are in order of time: those that come together are alike, and say less than as
    many others (:mod:`headwater.monitoring.measure.block_errors`).

    Parameters
    ----------
    reference
        The rows that the champion has learned: a column for each feature, and ``label``. Its ``output``
        column, if there is one, holds the outputs that were served before the row was learned; without
        it, and without `earlier`, measured losses are taken for optimism up to 0.02.
    current
        The newest predictions; labels are ignored. Here and below, an ``output`` column holds the
        champion's served outputs; without it, the champion predicts again.
    champion
        The champion, and how its windows are judged.
    windows
        How many windows as long as the current one the reference has. If it is None, their rows are
        compared, which is wrong if one of them is a sample.
    mature
        The newest window whose labels are all due. Rows with ``label`` and ``output`` are enough.
    earlier
        Mature windows before `mature` that the same champion had not learned either: the best rows to
        compare with. Without them, the served outputs of the reference are used, most of them by other
        versions.

    Returns
    -------
    Attention
        Its verdict is None if the windows could not be judged; the notes say why.
    """
    few = [
        f"insufficient_data: {frame.height} rows in the {which} window, fewer than {champion.least}"
        for which, frame in (("reference", reference), ("current", current))
        if frame.height < max(champion.least, 2)
    ]
    if few:
        return Attention(notes=tuple(few))
    columns, notes = drift(reference, current, champion.features)
    if any(k.name not in reference.columns or k.name not in current.columns for k in champion.features):
        return Attention(columns=tuple(columns), notes=(*notes, "not judged: a window lacks a feature"))
    windows = reference.height // current.height if windows is None else windows
    pair = prepare(reference, current, champion, windows=windows)
    if isinstance(pair, str):
        return Attention(columns=tuple(columns), notes=(*notes, pair))
    attributions = attribute(pair, columns)
    findings = column_findings(pair, columns, attributions)
    findings += joint_findings(pair, attributions)
    findings += output_findings(pair, champion.task)
    if mature is not None:
        measured = measured_loss(pair, reference, mature, earlier, champion)
        findings = weighed(champion.metric, findings, measured.loss, measured.changed)
        findings += label_findings(reference, mature, champion.task)
        notes = [*notes, *measured.notes]
    return _attention(findings, columns, notes)


def overruled(newest: Attention, judged: Attention) -> Attention:
    """Let labels of an older window overrule the estimates of a newer one, as far as they cover them.

    If a column moved the outputs at least half as much in the judged window, its finding there holds. If
    it moved since, or moved further, no label covers that, and its estimate stands.

    Parameters
    ----------
    newest
        Of the newest window, without labels.
    judged
        Of an older one, with its labels.

    Returns
    -------
    Attention
        Of the newest window, with the findings that only labels show.
    """
    by_column = {finding.what: finding for finding in judged.findings}
    findings = [_overruled(finding, by_column.get(finding.what)) for finding in newest.findings]
    findings += [finding for finding in judged.findings if finding.what in ("concept", "label")]
    attention = _attention(findings, newest.columns, (*newest.notes, *judged.notes))
    if newest.verdict is None and attention.verdict != "act":
        return msgspec.structs.replace(attention, verdict=None)  # too little to judge is not benign
    return attention


def _overruled(estimated: Finding, judged: Finding | None) -> Finding:
    if judged is None or judged.output_effect < _AS_MUCH * estimated.output_effect:
        return estimated
    return msgspec.structs.replace(
        estimated,
        metric_effect=judged.metric_effect,
        verdict=judged.verdict,
        sentence=judged.sentence,
    )


def _attention(
    findings: Sequence[Finding], columns: Sequence[ColumnDrift], notes: Sequence[str]
) -> Attention:
    order: tuple[Verdict, ...] = ("act", "watch", "benign")
    ranked = sorted(findings, key=lambda f: (order.index(f.verdict), -(f.metric_effect or 0.0)))
    verdict: Verdict = ranked[0].verdict if ranked else "benign"
    return Attention(verdict=verdict, findings=tuple(ranked), columns=tuple(columns), notes=tuple(notes))
