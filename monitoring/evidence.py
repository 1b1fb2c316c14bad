"""Gather the evidence that triggers decide on: windows, scores and drift of the champion."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.learners.learner import Learner
from headwater.monitoring.attention.attention import Attention, attend, overruled
from headwater.monitoring.attention.window_pair import WatchedChampion
from headwater.monitoring.measure.labelled_rows import sample
from headwater.monitoring.performance.champion_scores import (
    champion_scores,
    errors_changed,
    fell,
    regret,
)
from headwater.monitoring.performance.champion_windows import (
    ChampionWindow,
    ChampionWindows,
    learned_rows,
    window_of_rows,
)
from headwater.registry.registry import Registry
from headwater.registry.version import Version
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.evidence import Evidence

__all__ = ["DecisionHistory", "EvidenceFrames", "gather"]


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


def gather(
    pipeline: Pipeline,
    log: LogReader,
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
    windows = ChampionWindows(pipeline, log, reign, champion, now)
    learned = learned_rows(pipeline, log, champion)
    scores = champion_scores(
        pipeline, learned.filter(pl.col("role") != "imported", pl.col("version") != ""), windows
    )
    frames = _frames(learned, windows, drift_rows)
    attention = _repeated(last, champion, windows) or _attention(
        pipeline, registry, champion, windows, frames, learned.height, drift_rows
    )
    newest, mature = windows.newest, windows.newest_mature
    evidence = Evidence(
        pipeline=pipeline.name,
        at=now,
        standing=windows.standing(),
        champion=champion.number,
        champion_since=reign.since,
        updated_at=max([champion.made_at, *fired[:1]]),
        retrained_at=champion.line_started_at,
        new_examples=log.stop() - champion.examples.stop,
        reference=window_of_rows(learned),
        current=None if newest is None else newest.window,
        mature=None if mature is None else mature.window,
        scores=scores,
        verdict=attention.verdict,
        findings=attention.findings,
        fell=fell(scores),
        changed=errors_changed(pipeline, windows),
        regret=regret(scores, windows),
        train_s=champion.train_cpu_s,
        fired=fired,
        open=open_,
        notes=_notes(windows, attention),
    )
    return evidence, frames


def _frames(learned: pl.DataFrame, windows: ChampionWindows, drift_rows: int) -> EvidenceFrames | None:
    newest, mature = windows.newest, windows.newest_mature
    if newest is None or learned.is_empty():
        return None
    nothing = learned.clear().select("features", "output", "label")
    return EvidenceFrames(
        _sampled(learned, drift_rows),
        _sampled(newest.frame, drift_rows),
        nothing if mature is None else mature.labelled,
    )


def _repeated(last: Evidence | None, champion: Version, windows: ChampionWindows) -> Attention | None:
    """Return the attention of the last evidence if it judged the same windows."""
    newest, mature = windows.newest, windows.newest_mature
    if last is None or newest is None or last.champion != champion.number or last.current is None:
        return None
    same = last.current.start == newest.span.start
    same = same and last.current.predictions == newest.frame.height
    if not same or last.mature != (None if mature is None else mature.window):
        return None
    return Attention(verdict=last.verdict, findings=last.findings, notes=last.notes)


def _attention(
    pipeline: Pipeline,
    registry: Registry,
    champion: Version,
    windows: ChampionWindows,
    frames: EvidenceFrames | None,
    learned: int,
    drift_rows: int,
) -> Attention:
    newest, mature = windows.newest, windows.newest_mature
    if frames is None or newest is None:
        return Attention()
    watched = _watched(pipeline, registry.store.learner(champion, pipeline.model))

    def judge(current: pl.DataFrame, **labels: pl.DataFrame | None) -> Attention:
        return attend(
            frames.reference,
            _sampled(current, drift_rows),
            watched,
            windows=learned // max(current.height, 1),
            **labels,
        )

    if mature is None:
        return judge(newest.frame)
    earlier, labels = _labels(pipeline, windows.mature)
    on_labels = judge(mature.frame, mature=labels, earlier=earlier)
    return on_labels if mature is newest else overruled(judge(newest.frame), on_labels)


def _watched(pipeline: Pipeline, learner: Learner) -> WatchedChampion:
    return WatchedChampion(
        features=pipeline.features,
        task=pipeline.task,
        metric=pipeline.judged_by[0],
        predict=learner.predict,
        least=pipeline.monitoring.least,
        seed=pipeline.seed,
    )


def _labels(
    pipeline: Pipeline, mature: Sequence[ChampionWindow]
) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    """Return the labelled rows of the older windows, and of the newest, whose labels are judged."""
    newest = min(pipeline.monitoring.label_windows, max(len(mature) // 2, 1))
    labelled = [window.labelled.select("label", "output") for window in mature]
    return pl.concat(labelled[:-newest]) if labelled[:-newest] else None, pl.concat(labelled[-newest:])


def _sampled(frame: pl.DataFrame, drift_rows: int) -> pl.DataFrame:
    rows = sample(frame, drift_rows, np.random.default_rng(0))
    return rows.select(pl.col("features").struct.unnest(), "label", "output")


def _notes(windows: ChampionWindows, attention: Attention) -> tuple[str, ...]:
    notes = list(attention.notes)
    if not windows.served:
        notes.append("no window is over since the champion began")
    elif not windows.mature:
        notes.append("no window is mature since the champion began: labels are not judged yet")
    return tuple(dict.fromkeys(notes))
