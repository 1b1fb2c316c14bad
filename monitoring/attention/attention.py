"""Which change needs somebody: most are benign, and a count of drifted columns does not tell.

What each change would cost is played through on the labelled reference, in one of two ways: other rows
came, or a column says something else than before. Which one it is, the other columns tell. With mature
labels the measured loss stands beside the estimate. The parts, in the order of their imports:

- :mod:`~headwater.monitoring.measure.columns` and
  :mod:`~headwater.monitoring.measure.labelled_rows`: rows as arrays;
- :mod:`~headwater.monitoring.measure.block_errors`: errors of rows that come together and are alike;
- :mod:`~headwater.monitoring.measure.losses`: the metric, a loss of it, and its error;
- :mod:`~headwater.monitoring.attention.relations`: how columns hang together;
- :mod:`~headwater.monitoring.attention.counterfactual`: a column that moved alone, played through;
- :mod:`~headwater.monitoring.attention.window_pair`: two windows, made ready;
- :mod:`~headwater.monitoring.attention.attribution`: what moved, looked at closer;
- :mod:`~headwater.monitoring.attention.findings`: verdicts and sentences;
- :mod:`~headwater.monitoring.attention.measured_loss`: what labels change of them.

Limits: a column that is independent of all others and keeps its distribution can be shuffled unseen
until labels come. Whether such a column moved alone cannot be known; it is taken to be so where it is a
number.
Only binary outputs are measured by the benchmark; regression and classes go through the same code.
"""

from collections.abc import Sequence

import msgspec
import polars as pl

from headwater.monitoring.attention.attribution import look
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

_AS_MUCH = 0.5  # of what moves the outputs now that must have been there when labels judged it


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """What was found between two windows.

    Parameters
    ----------
    verdict
        The worst of the findings; None where there was too little to judge.
    findings
        What moved, the most harmful first.
    columns
        Every column that was judged by itself, as Evidently would.
    notes
        What could not be judged, and why.
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
    """Say which change between two windows needs somebody.

    Rows of every frame are in order of time: those that come together are alike, and say less than as
    many others (:mod:`headwater.monitoring.measure.block_errors`).

    Parameters
    ----------
    reference
        A column for each feature and ``label``: what the champion has learned. Its ``output`` column,
        where there is one, is what was served before anything learned the row; without it, and without
        `earlier`, measured losses are taken for optimism up to 0.02.
    current
        The newest predictions; labels are not looked at. Here and below, an ``output`` column says what
        the champion served; without it, the champion is asked again.
    champion
        The champion, and how its windows are judged.
    windows
        How many windows as long as the current one the reference has; by their rows, if not given, which
        is wrong where rows were drawn of one of them.
    mature
        The newest window whose labels are all due. Rows with ``label`` and ``output`` are enough.
    earlier
        As `mature`: rows that the same champion had not learned either, and with which `mature` is best
        compared: its mature windows so far. Without them what was served of the reference must do, most
        of it by other versions.

    Returns
    -------
    Attention
        Its verdict is None where it could not be judged; the notes say why.
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
    case = prepare(reference, current, champion, windows=windows)
    if isinstance(case, str):
        return Attention(columns=tuple(columns), notes=(*notes, case))
    looked = look(case, columns)
    findings = column_findings(case, columns, looked)
    findings += joint_findings(case, looked)
    findings += output_findings(case, champion.task)
    if mature is not None:
        measured = measured_loss(case, reference, mature, earlier, champion)
        findings = weighed(champion.metric, findings, measured.loss, measured.changed)
        findings += label_findings(reference, mature, champion.task)
        notes = [*notes, *measured.notes]
    return _attention(findings, columns, notes)


def overruled(newest: Attention, judged: Attention) -> Attention:
    """Let labels overrule what is estimated of a newer window, as far as they have seen it.

    What moved the outputs at least half as much in the judged window is what labels say of it there. Of
    what moved since, or moved on, no label tells: its estimate stands.

    Parameters
    ----------
    newest
        Of the newest window, without labels.
    judged
        Of an older one, with its labels.

    Returns
    -------
    Attention
        Of the newest window, with what only labels show.
    """
    seen = {finding.what: finding for finding in judged.findings}
    findings = [_overruled(finding, seen.get(finding.what)) for finding in newest.findings]
    findings += [finding for finding in judged.findings if finding.what in ("concept", "label")]
    found = _attention(findings, newest.columns, (*newest.notes, *judged.notes))
    if newest.verdict is None and found.verdict != "act":
        return msgspec.structs.replace(found, verdict=None)  # too little to judge is not benign
    return found


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
