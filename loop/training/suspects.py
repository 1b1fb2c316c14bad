"""Find examples of a log that cannot be learned, or that may ruin a state: what to quarantine."""

from collections.abc import Iterator

import msgspec
import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.loop.training.learning_guard import LearningGuard
from headwater.spec.data.values import LARGEST
from headwater.spec.pipeline import Task
from headwater.spec.recipe import OffsetRange

__all__ = ["Suspect", "find_suspects"]

_READ_ROWS, _PIECE_ROWS = 16_384, 128
_COLUMNS = ("offset", "prediction_id", "features", "label")


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """An example to quarantine, or to look at.

    Parameters
    ----------
    offset, prediction_id
        Which one.
    what
        What is wrong with it, in words.
    learnable
        Whether learners take it: then one of its numbers is *far out* of the examples before it, as
        :mod:`headwater.loop.training.learning_guard` has it.
    """

    offset: int
    prediction_id: str
    what: str
    learnable: bool


def find_suspects(
    log: LogReader, task: Task, span: OffsetRange, *, far_out: bool = True
) -> Iterator[Suspect]:
    """Find examples of a range that no learner takes, or that are far out, by offset.

    Those that are quarantined already are left out. An example has one reason, its label's
    if that is one.

    Parameters
    ----------
    log, task
        Has the examples, and what is predicted.
    span
        Which offsets.
    far_out
        Whether to find those that are far out, too.

    Raises
    ------
    NotFoundError, TableError, StorageError
        If the examples cannot be read.
    """
    guard = LearningGuard(task, pl.DataFrame(), pl.Series())
    for frame in _pieces(log, span):
        flat = frame.drop("features").hstack(frame["features"].struct.unnest())
        numbers = [name for name in flat.columns[2:] if flat[name].dtype.is_numeric()]
        wrong = {name: _beyond(flat[name]) for name in numbers}
        suspects = list(_suspects(flat, wrong, learnable=False))
        sound = flat.filter(~pl.col("offset").is_in([one.offset for one in suspects]))
        features, labels = sound.drop("offset", "prediction_id", "label"), sound["label"]
        if far_out and sound.height:
            far = guard.far_columns(features, labels)
            of_column = {name or "label": mask for name, mask in far.items()}
            suspects += _suspects(sound, of_column, learnable=True)
            near = ~sound["offset"].is_in([one.offset for one in suspects])
            guard = guard.after(features.filter(near), labels.filter(near))
        yield from sorted(suspects, key=lambda suspect: suspect.offset)


def _pieces(log: LogReader, span: OffsetRange) -> Iterator[pl.DataFrame]:
    for start in range(span.start, span.stop, _READ_ROWS):
        frame = log.judged(start, min(start + _READ_ROWS, span.stop), _COLUMNS)
        yield from frame.iter_slices(_PIECE_ROWS)


def _suspects(flat: pl.DataFrame, wrong: dict[str, pl.Series], *, learnable: bool) -> Iterator[Suspect]:
    """Yield the rows of which a column is wrong, once each."""
    seen: set[int] = set()
    for name, mask in wrong.items():
        for offset, id_, value in flat.filter(mask).select("offset", "prediction_id", name).iter_rows():
            if offset not in seen:
                seen.add(offset)
                subject = "the label" if name == "label" else f"feature {name!r}"
                yield Suspect(
                    offset=offset,
                    prediction_id=id_,
                    what=f"{subject} is {value:g}" + (", far out" if learnable else ""),
                    learnable=learnable,
                )


def _beyond(column: pl.Series) -> pl.Series:
    """Return which numbers are NaN, infinite or beyond what is learned."""
    return (~column.is_between(-LARGEST, LARGEST)).fill_null(value=False)
