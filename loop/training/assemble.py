"""Assemble the batches of a recipe: select its examples, and cut them into batches."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.registry.restore import factory_of
from headwater.spec.duration import duration
from headwater.spec.recipe import OffsetRange, Recipe
from headwater.spec.updating.update import Subsample

__all__ = ["Batch", "Offsets", "batches", "classes", "code_of", "draw", "is_batch_free", "unlearned"]

_PIECE_ROWS = 65_536
_COLUMNS = ("offset", "features", "label")

Offsets = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Examples that are learned together.

    Parameters
    ----------
    features
        A column a feature, in the recipe's order.
    labels
        As many, without nulls.
    offsets
        As many, rising.
    """

    features: pl.DataFrame
    labels: pl.Series
    offsets: pl.Series


def batches(log: LogReader, recipe: Recipe) -> Iterator[Batch]:
    """Yield the batches of one pass, cut as the recipe says.

    If ``batch_rows`` is set, batches are cut at its multiples among all offsets, so that they do not
    depend on how examples were collected. Otherwise an update is one batch. An excluded example makes
    its batch smaller, and moves no cut.

    Parameters
    ----------
    log
        Has the examples.
    recipe
        Names the examples, and how to cut them.

    Raises
    ------
    NotFoundError, TableError, StorageError
        If the examples cannot be read.
    """
    excluded, chosen = unlearned(log, recipe), None
    if recipe.subsample is not None:
        emitted_us = np.array(log.repository.emitted(recipe.examples.start, recipe.examples.stop))
        chosen = draw(recipe.subsample, recipe.examples, emitted_us, excluded)
    model = code_of(recipe)
    for piece in _pieces(recipe):
        low, high = np.searchsorted(excluded, [piece.start, piece.stop])
        left_out = excluded[low:high].tolist()
        frame = log.projected(piece.start, piece.stop, _COLUMNS, recipe.features, model, left_out)
        offset = pl.col("offset")
        if chosen is not None:
            frame = frame.filter(offset.is_in(_within(chosen, piece)))
        for batch in [frame] if is_batch_free(recipe) else _cut(frame, recipe.batch_rows or 1):
            if batch.height:
                features = batch["features"].struct.unnest()
                yield Batch(features, batch["label"], batch["offset"])


def code_of(recipe: Recipe) -> Callable[[], object] | None:
    """Return the kept factory in whose file the functions are that features name; None if none does.

    Raises
    ------
    NotRebuildableError
        If its code does not run here.
    """
    named = any(feature.fill or feature.convert for feature in recipe.features)
    return factory_of(recipe.learner) if named else None


def classes(log: LogReader, recipe: Recipe) -> list[str]:
    """Return the classes among a recipe's examples, sorted; none if the task has no classes."""
    if recipe.task != "multiclass":
        return []
    values: set[str] = set()
    for batch in batches(log, recipe):
        values.update(batch.labels.unique().to_list())
    return sorted(values)


def unlearned(log: LogReader, recipe: Recipe) -> Offsets:
    """Return the offsets of a recipe's range that are not learned, rising.

    They are the quarantined offsets. A stateless update leaves out the examples whose label is corrected
    within the range, too. A stateful update leaves out the corrections, if the pipeline ignores them.
    """
    start, stop = recipe.examples.start, recipe.examples.stop
    excluded = [
        np.arange(max(start, span.start), min(stop, span.stop), dtype=np.int64)
        for span in recipe.exclusions
        if span.start < stop and span.stop > start
    ]
    if recipe.update == "stateless":
        excluded.append(np.array(log.repository.superseded(start, stop), dtype=np.int64))
    elif recipe.revisions == "ignore":
        excluded.append(np.array(log.repository.corrections(start, stop), dtype=np.int64))
    return np.unique(np.concatenate(excluded)) if excluded else np.empty(0, dtype=np.int64)


def draw(subsample: Subsample, examples: OffsetRange, emitted_us: Offsets, excluded: Offsets) -> Offsets:
    """Draw offsets without replacement, newer ones more often.

    Each offset gets the key ``log(u) / w`` with its weight *w*, and the largest keys win (Efraimidis
    and Spirakis, 2006, in logarithms). The draw depends on the seed and on where the range stops.

    Parameters
    ----------
    subsample
        How many, how fast weights fall with age, and the seed.
    examples
        The range.
    emitted_us
        Emission time of each offset of the range, in microseconds.
    excluded
        Offsets that cannot be drawn.

    Returns
    -------
    numpy.ndarray of int64
        The drawn offsets, rising.
    """
    offsets = np.arange(examples.start, examples.stop, dtype=np.int64)
    uniform = np.random.default_rng([subsample.seed, examples.stop]).random(len(offsets))
    keys = np.log(np.maximum(uniform, np.finfo(np.float64).tiny))
    if subsample.half_life is not None and len(offsets):
        half_us = duration(subsample.half_life).total_seconds() * 1e6
        keys = keys * np.exp2((emitted_us[-1] - emitted_us) / half_us)
    keys[excluded - examples.start] = -np.inf
    count = min(subsample.rows, len(offsets) - len(excluded))
    return np.sort(offsets[np.argsort(-keys, kind="stable")[:count]])


def _pieces(recipe: Recipe) -> Iterator[OffsetRange]:
    """Cut the range so that each piece holds whole batches, and fits in memory."""
    start, stop = recipe.examples.start, recipe.examples.stop
    rows = recipe.batch_rows
    if rows is None:
        if start < stop:
            yield recipe.examples
        return
    step = max(1, _PIECE_ROWS // rows) * rows
    while start < stop:
        end = min(stop, (start // step + 1) * step)
        yield OffsetRange(start, end)
        start = end


def is_batch_free(recipe: Recipe) -> bool:
    """Tell whether the size of batches does not matter to the learner.

    If an update is one batch, it is not cut. River learns one by one, whatever the batch. To
    scikit-learn, a batch of one example is not the same as half a batch of two.
    """
    one_by_one = recipe.batch_rows == 1 and recipe.learner.adapter == "river"
    return recipe.batch_rows is None or one_by_one


def _cut(frame: pl.DataFrame, batch_rows: int) -> Iterator[pl.DataFrame]:
    places = (frame["offset"] // batch_rows).to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), frame.height]
    for start, stop in pairwise(edges):
        yield frame[start:stop]


def _within(offsets: Offsets, piece: OffsetRange) -> pl.Series:
    low, high = np.searchsorted(offsets, [piece.start, piece.stop])
    return pl.Series(offsets[low:high]).implode()
