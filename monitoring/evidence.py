"""Gather what triggers decide on: windows, scores and drift of the version that serves."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.features.log import FeatureLog
from headwater.monitoring.attention.attention import Attention, attend, overruled
from headwater.monitoring.attention.window_pair import WatchedChampion
from headwater.monitoring.measure.estimate import Compared, Estimator, shrunk
from headwater.monitoring.measure.labelled_rows import sample
from headwater.monitoring.measure.scores import block_error, score
from headwater.monitoring.measure.windows import WindowSpan, standing, windows
from headwater.monitoring.performance.error_rise import errors_rose
from headwater.registry.registry import Registry
from headwater.registry.version import Version
from headwater.spec.duration import duration
from headwater.spec.pipeline import Metric, Pipeline
from headwater.spec.rulings import Reign
from headwater.spec.updating.evidence import LOWER_IS_BETTER, Evidence, Score, Standing, Window

__all__ = ["EvidenceFrames", "gather"]

_WINDOWS = 30
_COMPARED = 8
_DRIFT_ROWS = 10_000
_SERVED = ("version", "role", "output", "features")


class EvidenceFrames(NamedTuple):
    """The frames that were looked at.

    Parameters
    ----------
    reference, current
        What the champion learned last, and the newest window: a column a feature, and ``label`` and
        ``output``. At most 10,000 rows are drawn of each.
    mature
        What has a label in the newest mature window, whole, with ``features`` as a struct.
    """

    reference: pl.DataFrame
    current: pl.DataFrame
    mature: pl.DataFrame


class _Seen(NamedTuple):
    """A window with what was served in it by the champion."""

    span: WindowSpan
    frame: pl.DataFrame

    @property
    def labelled(self) -> pl.DataFrame:
        return self.frame.drop_nulls("label").drop_nulls("output")

    @property
    def window(self) -> Window:
        return self.span.window(self.frame.height, self.frame["label"].count())


def gather(
    pipeline: Pipeline,
    log: FeatureLog,
    registry: Registry,
    now: datetime,
    *,
    fired: tuple[datetime, ...] = (),
    open_: str | None = None,
    last: Evidence | None = None,
) -> tuple[Evidence, EvidenceFrames | None]:
    """Look at what the champion served since it became champion.

    The reference is the newest examples that it learned. A window is judged on labels once it is
    mature; the newest one that is over is judged on features and outputs alone.

    Parameters
    ----------
    pipeline
        Says how it is watched.
    log, registry
        What was served, and who serves.
    now
        The present, UTC.
    fired
        When earlier decisions fired, newest first.
    open_
        The decision that is still being carried out.
    last
        What was found before: what moved is not asked again of the same windows.

    Returns
    -------
    evidence : Evidence
        What was found.
    shown : Shown or None
        What it was found in; None where no window is over yet.

    Raises
    ------
    TableError, StorageError, DigestError
        If a store does not hold what it should, or is away.
    """
    reign, champion = registry.championship.reign(), registry.champion()
    if reign is None or champion is None:
        nobody = Evidence(
            pipeline=pipeline.name, at=now, standing="no_champion", fired=fired, open=open_
        )
        return nobody, None
    seen = _seen(pipeline, log, reign, champion, now)
    reference = _reference(pipeline, log, champion)
    served = reference.filter(pl.col("role") != "imported", pl.col("version") != "")
    mature = [one for one in seen if one.span.mature]
    scores = _scores(pipeline, served, seen)
    shown = _shown(reference, seen, mature)
    attention = _again(last, champion, seen, mature) or _attention(
        pipeline, registry, champion, reference.height, seen, shown
    )
    known = mature[-1].labelled if mature else served.clear()
    evidence = Evidence(
        pipeline=pipeline.name,
        at=now,
        standing=_standing(pipeline, seen, mature),
        champion=champion.number,
        champion_since=reign.since,
        updated_at=max([champion.made_at, *fired[:1]]),
        retrained_at=champion.line_started_at,
        new_examples=log.stop() - champion.examples.stop,
        reference=_window_of(reference),
        current=seen[-1].window if seen else None,
        mature=mature[-1].window if mature else None,
        scores=scores,
        verdict=attention.verdict,
        findings=attention.findings,
        fell=_fell(scores),
        changed=known.height > 0 and errors_rose(*_errors(mature), pipeline.task),
        regret=_regret(scores, mature),
        train_s=champion.train_cpu_s,
        fired=fired,
        open=open_,
        notes=_notes(seen, mature, attention),
    )
    return evidence, shown


def _seen(
    pipeline: Pipeline, log: FeatureLog, reign: Reign, champion: Version, now: datetime
) -> list[_Seen]:
    wait = duration(pipeline.label.wait)
    spans = windows(log, pipeline.monitoring, reign.since, now, wait, last=_WINDOWS, aligned=False)
    mine = (pl.col("version") == champion.number) & (pl.col("role") == "champion")
    found = []
    for place, span in enumerate(spans):
        newest = place == len(spans) - 1 or (span.mature and not spans[place + 1].mature)
        columns = _SERVED if newest else _SERVED[:3]
        frame = log.served(span.first, span.behind, columns)
        found.append(_Seen(span, frame.filter(mine)))
    return found


def _reference(pipeline: Pipeline, log: FeatureLog, champion: Version) -> pl.DataFrame:
    stop = champion.examples.stop
    start = max(0, stop - pipeline.monitoring.reference_rows)
    found = log.examples(start, stop, ("features", "label", "output", "role", "version", "served_at"))
    # What was imported was served by nobody: its output only stands in.
    return found.with_columns(pl.when(pl.col("role") != "imported").then("output"))


def _window_of(reference: pl.DataFrame) -> Window | None:
    if reference.is_empty():
        return None
    times = reference["served_at"]
    first, last = times.min(), times.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return None
    return Window(
        start=first,
        stop=last + timedelta(microseconds=1),
        predictions=reference.height,
        labelled=reference.height,
        mature=True,
    )


def _standing(pipeline: Pipeline, seen: Sequence[_Seen], mature: Sequence[_Seen]) -> Standing:
    if not seen:
        return "insufficient_data"
    if mature and (found := standing(mature[-1].window, pipeline.monitoring.least)) != "enough":
        return found
    return standing(seen[-1].window, pipeline.monitoring.least)


def _scores(pipeline: Pipeline, served: pl.DataFrame, seen: Sequence[_Seen]) -> tuple[Score, ...]:
    least, task, metrics = pipeline.monitoring.least, pipeline.task, pipeline.judged_by
    judged = [one.labelled for one in seen if one.span.mature]
    judged = [frame for frame in judged if frame.height >= least]
    measured = [score(task, metrics, frame["output"], frame["label"]) for frame in judged]
    before = score(task, metrics, served["output"], served["label"]) if served.height >= least else {}
    estimates: dict[Metric, float] = {}
    if task == "binary" and seen and not seen[-1].span.mature:
        estimates = _estimates(metrics, served, judged, measured, seen[-1])
    return tuple(
        Score(
            metric=metric,
            reference=before.get(metric),
            current=measured[-1].get(metric) if measured else None,
            estimate=estimates.get(metric),
            past=tuple(found[metric] for found in measured[:-1] if metric in found),
            error=block_error(task, metric, judged[-1]["output"], judged[-1]["label"])
            if judged
            else None,
        )
        for metric in metrics
    )


def _estimates(
    metrics: Sequence[Metric],
    served: pl.DataFrame,
    judged: Sequence[pl.DataFrame],
    measured: Sequence[dict[str, float]],
    newest: _Seen,
) -> dict[Metric, float]:
    """Estimate the newest window, as far as estimates of the windows before have held."""
    compared: dict[Metric, list[Compared]] = {metric: [] for metric in metrics}
    first = max(len(judged) - _COMPARED, 0)
    for i in range(first, len(judged)):
        estimator = _estimator([served, *judged[:i]])
        for metric in metrics:
            if metric in measured[i]:
                told = _estimate(estimator, metric, judged[i])
                compared[metric].append(Compared(told, measured[i][metric]))
    estimator = _estimator([served, *judged])
    raw = {metric: _estimate(estimator, metric, newest.frame) for metric in metrics}
    return {
        metric: shrunk(value, compared[metric]) for metric, value in raw.items() if value is not None
    }


def _estimator(frames: Sequence[pl.DataFrame]) -> Estimator:
    columns = ("output", "label")
    known = pl.concat([frame.select(columns) for frame in frames]).drop_nulls()
    outputs, labels = (known[name].cast(pl.Float64).to_numpy() for name in columns)
    return Estimator().fit(outputs, labels)


def _estimate(estimator: Estimator, metric: Metric, frame: pl.DataFrame) -> float | None:
    outputs = frame["output"].drop_nulls().to_numpy()
    return estimator.estimate(metric, outputs.astype(np.float64)) if len(outputs) else None


def _shown(
    reference: pl.DataFrame, seen: Sequence[_Seen], mature: Sequence[_Seen]
) -> EvidenceFrames | None:
    if not seen or reference.is_empty():
        return None
    labelled = mature[-1].labelled if mature else reference.clear().select("features", "output", "label")
    return EvidenceFrames(_flat(reference), _flat(seen[-1].frame), labelled)


def _again(
    last: Evidence | None, champion: Version, seen: Sequence[_Seen], mature: Sequence[_Seen]
) -> Attention | None:
    """Give what was said of the same windows before, as far as it goes into evidence."""
    if last is None or not seen or last.champion != champion.number or last.current is None:
        return None
    same = last.current.start == seen[-1].span.start
    same = same and last.current.predictions == seen[-1].frame.height
    if not same or last.mature != (mature[-1].window if mature else None):
        return None
    return Attention(verdict=last.verdict, findings=last.findings, notes=last.notes)


def _attention(
    pipeline: Pipeline,
    registry: Registry,
    champion: Version,
    learned: int,
    seen: Sequence[_Seen],
    shown: EvidenceFrames | None,
) -> Attention:
    if shown is None:
        return Attention()
    learner = registry.store.learner(champion, pipeline.model)

    watched = WatchedChampion(
        features=pipeline.features,
        task=pipeline.task,
        metric=pipeline.judged_by[0],
        predict=learner.predict,
        least=pipeline.monitoring.least,
        seed=pipeline.seed,
    )

    def ask(current: pl.DataFrame, **labels: pl.DataFrame | None) -> Attention:
        return attend(
            shown.reference,
            _flat(current),
            watched,
            windows=learned // max(current.height, 1),
            **labels,
        )

    mature = [one for one in seen if one.span.mature]
    if not mature:
        return ask(seen[-1].frame)
    earlier, labels = _labels(pipeline, mature)
    judged = ask(mature[-1].frame, mature=labels, earlier=earlier)
    return judged if mature[-1] is seen[-1] else overruled(ask(seen[-1].frame), judged)


def _labels(pipeline: Pipeline, mature: Sequence[_Seen]) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    """Give what the champion served long ago, and newly: the windows whose labels are judged."""
    newest = min(pipeline.monitoring.label_windows, max(len(mature) // 2, 1))
    known = [one.labelled.select("label", "output") for one in mature]
    return pl.concat(known[:-newest]) if known[:-newest] else None, pl.concat(known[-newest:])


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    rows = sample(frame, _DRIFT_ROWS, np.random.default_rng(0))
    return rows.select(pl.col("features").struct.unnest(), "label", "output")


def _errors(mature: Sequence[_Seen]) -> tuple[pl.Series, pl.Series]:
    known = pl.concat([one.labelled.select("output", "label") for one in mature])
    return known["output"], known["label"]


def _fell(scores: Sequence[Score]) -> bool:
    first = scores[0] if scores else None
    if first is None or first.reference is None or first.current is None or first.error is None:
        return False
    return _loss(first.metric, first.current, first.reference) > 2 * first.error


def _regret(scores: Sequence[Score], mature: Sequence[_Seen]) -> float:
    first = scores[0] if scores else None
    if first is None or first.reference is None or first.current is None:
        return 0.0
    values = [*first.past, first.current]
    counts = [one.window.predictions for one in mature][-len(values) :]
    losses = [_loss(first.metric, value, first.reference) for value in values]
    return max(0.0, sum(loss * count for loss, count in zip(losses, counts, strict=False)))


def _loss(metric: str, value: float, reference: float) -> float:
    return value - reference if metric in LOWER_IS_BETTER else reference - value


def _notes(seen: Sequence[_Seen], mature: Sequence[_Seen], attention: Attention) -> tuple[str, ...]:
    notes = list(attention.notes)
    if not seen:
        notes.append("no window is over since the champion began")
    elif not mature:
        notes.append("no window is mature since the champion began: labels are not judged yet")
    return tuple(dict.fromkeys(notes))
