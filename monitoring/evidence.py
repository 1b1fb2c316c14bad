"""Gather the evidence that triggers decide on: windows, scores and drift of the champion."""

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

__all__ = ["DecisionHistory", "EvidenceFrames", "gather"]

_WINDOWS = 30
_COMPARED = 8
_SERVED = ("version", "role", "output", "features")


class EvidenceFrames(NamedTuple):
    """The frames in which evidence was found.

    Parameters
    ----------
    reference, current
        The rows that the champion learned last, and the newest window: a column a feature, and ``label``
        and ``output``. Each is a sample of at most `drift_rows` rows.
    mature
        The labelled rows of the newest mature window, all of them, with ``features`` as a struct.
    """

    reference: pl.DataFrame
    current: pl.DataFrame
    mature: pl.DataFrame


class DecisionHistory(NamedTuple):
    """The earlier decisions of a pipeline, as far as the next one depends on them.

    Parameters
    ----------
    fired
        When earlier decisions fired, newest first.
    open
        The decision that is still being carried out.
    last
        The newest evidence, so that the same windows are not judged again.
    """

    fired: tuple[datetime, ...] = ()
    open: str | None = None
    last: Evidence | None = None


class _ChampionWindow(NamedTuple):
    """A window with the rows that the champion served in it."""

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
    history: DecisionHistory | None = None,
    *,
    drift_rows: int = 10_000,
) -> tuple[Evidence, EvidenceFrames | None]:
    """Gather evidence on the predictions that the champion served since it became champion.

    The reference is the newest examples that it learned. A window is judged on labels once it is
    mature; the newest window that is over is judged on features and outputs alone.

    Parameters
    ----------
    pipeline
        Says how it is watched.
    log, registry
        The predictions, and the champion.
    now
        The present, UTC.
    history
        The earlier decisions; none by default.
    drift_rows
        How many rows of each window are sampled for the tests of drift.

    Returns
    -------
    evidence : Evidence
        The evidence.
    frames : EvidenceFrames or None
        The frames in which it was found; None if no window is over yet.

    Raises
    ------
    TableError, StorageError, DigestError
        If a store does not hold what it should, or is away.
    """
    fired, open_, last = history or DecisionHistory()
    reign, champion = registry.championship.reign(), registry.champion()
    if reign is None or champion is None:
        nobody = Evidence(
            pipeline=pipeline.name, at=now, standing="no_champion", fired=fired, open=open_
        )
        return nobody, None
    served_windows = _served_windows(pipeline, log, reign, champion, now)
    reference = _reference(pipeline, log, champion)
    served = reference.filter(pl.col("role") != "imported", pl.col("version") != "")
    mature = [window for window in served_windows if window.span.mature]
    scores = _scores(pipeline, served, served_windows)
    frames = _frames(reference, served_windows, mature, drift_rows)
    attention = _repeated(last, champion, served_windows, mature) or _attention(
        pipeline, registry, champion, reference.height, served_windows, frames, drift_rows
    )
    labelled = mature[-1].labelled if mature else served.clear()
    evidence = Evidence(
        pipeline=pipeline.name,
        at=now,
        standing=_standing(pipeline, served_windows, mature),
        champion=champion.number,
        champion_since=reign.since,
        updated_at=max([champion.made_at, *fired[:1]]),
        retrained_at=champion.line_started_at,
        new_examples=log.stop() - champion.examples.stop,
        reference=_window_of(reference),
        current=served_windows[-1].window if served_windows else None,
        mature=mature[-1].window if mature else None,
        scores=scores,
        verdict=attention.verdict,
        findings=attention.findings,
        fell=_fell(scores),
        changed=labelled.height > 0 and errors_rose(*_errors(mature), pipeline.task),
        regret=_regret(scores, mature),
        train_s=champion.train_cpu_s,
        fired=fired,
        open=open_,
        notes=_notes(served_windows, mature, attention),
    )
    return evidence, frames


def _served_windows(
    pipeline: Pipeline, log: FeatureLog, reign: Reign, champion: Version, now: datetime
) -> list[_ChampionWindow]:
    wait = duration(pipeline.label.wait)
    spans = windows(log, pipeline.monitoring, reign.since, now, wait, last=_WINDOWS, aligned=False)
    mine = (pl.col("version") == champion.number) & (pl.col("role") == "champion")
    served: list[_ChampionWindow] = []
    for place, span in enumerate(spans):
        newest = place == len(spans) - 1 or (span.mature and not spans[place + 1].mature)
        columns = _SERVED if newest else _SERVED[:3]
        frame = log.served(span.first, span.behind, columns)
        served.append(_ChampionWindow(span, frame.filter(mine)))
    return served


def _reference(pipeline: Pipeline, log: FeatureLog, champion: Version) -> pl.DataFrame:
    stop = champion.examples.stop
    start = max(0, stop - pipeline.monitoring.reference_rows)
    learned = log.examples(start, stop, ("features", "label", "output", "role", "version", "served_at"))
    # Nobody served imported rows: their output is a stand-in.
    return learned.with_columns(pl.when(pl.col("role") != "imported").then("output"))


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


def _standing(
    pipeline: Pipeline, served_windows: Sequence[_ChampionWindow], mature: Sequence[_ChampionWindow]
) -> Standing:
    if not served_windows:
        return "insufficient_data"
    if mature and (of_mature := standing(mature[-1].window, pipeline.monitoring.least)) != "enough":
        return of_mature
    return standing(served_windows[-1].window, pipeline.monitoring.least)


def _scores(
    pipeline: Pipeline, served: pl.DataFrame, served_windows: Sequence[_ChampionWindow]
) -> tuple[Score, ...]:
    least, task, metrics = pipeline.monitoring.least, pipeline.task, pipeline.judged_by
    labelled = [window.labelled for window in served_windows if window.span.mature]
    labelled = [frame for frame in labelled if frame.height >= least]
    measured = [score(task, metrics, frame["output"], frame["label"]) for frame in labelled]
    reference = score(task, metrics, served["output"], served["label"]) if served.height >= least else {}
    estimates: dict[Metric, float] = {}
    if task == "binary" and served_windows and not served_windows[-1].span.mature:
        estimates = _estimates(metrics, served, labelled, measured, served_windows[-1])
    return tuple(
        Score(
            metric=metric,
            reference=reference.get(metric),
            current=measured[-1].get(metric) if measured else None,
            estimate=estimates.get(metric),
            past=tuple(values[metric] for values in measured[:-1] if metric in values),
            error=block_error(task, metric, labelled[-1]["output"], labelled[-1]["label"])
            if labelled
            else None,
        )
        for metric in metrics
    )


def _estimates(
    metrics: Sequence[Metric],
    served: pl.DataFrame,
    labelled: Sequence[pl.DataFrame],
    measured: Sequence[dict[str, float]],
    newest: _ChampionWindow,
) -> dict[Metric, float]:
    """Estimate the newest window, as far as estimates of the windows before have held."""
    compared: dict[Metric, list[Compared]] = {metric: [] for metric in metrics}
    first = max(len(labelled) - _COMPARED, 0)
    for i in range(first, len(labelled)):
        estimator = _estimator([served, *labelled[:i]])
        for metric in metrics:
            if metric in measured[i]:
                estimate = _estimate(estimator, metric, labelled[i])
                compared[metric].append(Compared(estimate, measured[i][metric]))
    estimator = _estimator([served, *labelled])
    raw = {metric: _estimate(estimator, metric, newest.frame) for metric in metrics}
    return {
        metric: shrunk(value, compared[metric]) for metric, value in raw.items() if value is not None
    }


def _estimator(frames: Sequence[pl.DataFrame]) -> Estimator:
    columns = ("output", "label")
    labelled = pl.concat([frame.select(columns) for frame in frames]).drop_nulls()
    outputs, labels = (labelled[name].cast(pl.Float64).to_numpy() for name in columns)
    return Estimator().fit(outputs, labels)


def _estimate(estimator: Estimator, metric: Metric, frame: pl.DataFrame) -> float | None:
    outputs = frame["output"].drop_nulls().to_numpy()
    return estimator.estimate(metric, outputs.astype(np.float64)) if len(outputs) else None


def _frames(
    reference: pl.DataFrame,
    served_windows: Sequence[_ChampionWindow],
    mature: Sequence[_ChampionWindow],
    drift_rows: int,
) -> EvidenceFrames | None:
    if not served_windows or reference.is_empty():
        return None
    labelled = mature[-1].labelled if mature else reference.clear().select("features", "output", "label")
    return EvidenceFrames(
        _sampled(reference, drift_rows), _sampled(served_windows[-1].frame, drift_rows), labelled
    )


def _repeated(
    last: Evidence | None,
    champion: Version,
    served_windows: Sequence[_ChampionWindow],
    mature: Sequence[_ChampionWindow],
) -> Attention | None:
    """Return the attention of the last evidence if it judged the same windows."""
    if last is None or not served_windows or last.champion != champion.number or last.current is None:
        return None
    same = last.current.start == served_windows[-1].span.start
    same = same and last.current.predictions == served_windows[-1].frame.height
    if not same or last.mature != (mature[-1].window if mature else None):
        return None
    return Attention(verdict=last.verdict, findings=last.findings, notes=last.notes)


def _attention(
    pipeline: Pipeline,
    registry: Registry,
    champion: Version,
    learned: int,
    served_windows: Sequence[_ChampionWindow],
    frames: EvidenceFrames | None,
    drift_rows: int,
) -> Attention:
    if frames is None:
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

    def judge(current: pl.DataFrame, **labels: pl.DataFrame | None) -> Attention:
        return attend(
            frames.reference,
            _sampled(current, drift_rows),
            watched,
            windows=learned // max(current.height, 1),
            **labels,
        )

    mature = [window for window in served_windows if window.span.mature]
    if not mature:
        return judge(served_windows[-1].frame)
    earlier, labels = _labels(pipeline, mature)
    on_labels = judge(mature[-1].frame, mature=labels, earlier=earlier)
    newest = served_windows[-1]
    return on_labels if mature[-1] is newest else overruled(judge(newest.frame), on_labels)


def _labels(
    pipeline: Pipeline, mature: Sequence[_ChampionWindow]
) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    """Return the labelled rows of the older windows, and of the newest, whose labels are judged."""
    newest = min(pipeline.monitoring.label_windows, max(len(mature) // 2, 1))
    labelled = [window.labelled.select("label", "output") for window in mature]
    return pl.concat(labelled[:-newest]) if labelled[:-newest] else None, pl.concat(labelled[-newest:])


def _sampled(frame: pl.DataFrame, drift_rows: int) -> pl.DataFrame:
    rows = sample(frame, drift_rows, np.random.default_rng(0))
    return rows.select(pl.col("features").struct.unnest(), "label", "output")


def _errors(mature: Sequence[_ChampionWindow]) -> tuple[pl.Series, pl.Series]:
    labelled = pl.concat([window.labelled.select("output", "label") for window in mature])
    return labelled["output"], labelled["label"]


def _fell(scores: Sequence[Score]) -> bool:
    first = scores[0] if scores else None
    if first is None or first.reference is None or first.current is None or first.error is None:
        return False
    return _loss(first.metric, first.current, first.reference) > 2 * first.error


def _regret(scores: Sequence[Score], mature: Sequence[_ChampionWindow]) -> float:
    first = scores[0] if scores else None
    if first is None or first.reference is None or first.current is None:
        return 0.0
    values = [*first.past, first.current]
    counts = [window.window.predictions for window in mature][-len(values) :]
    losses = [_loss(first.metric, value, first.reference) for value in values]
    return max(0.0, sum(loss * count for loss, count in zip(losses, counts, strict=False)))


def _loss(metric: str, value: float, reference: float) -> float:
    return value - reference if metric in LOWER_IS_BETTER else reference - value


def _notes(
    served_windows: Sequence[_ChampionWindow], mature: Sequence[_ChampionWindow], attention: Attention
) -> tuple[str, ...]:
    notes = list(attention.notes)
    if not served_windows:
        notes.append("no window is over since the champion began")
    elif not mature:
        notes.append("no window is mature since the champion began: labels are not judged yet")
    return tuple(dict.fromkeys(notes))
