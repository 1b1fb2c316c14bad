"""Find examples of a log that cannot be learned, or that may ruin a state: what to quarantine."""

from collections.abc import Iterator

import msgspec
import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.loop.training.guard.learning_guard import LearningGuard
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
        :mod:`headwater.loop.training.guard.learning_guard` has it, or unusual.
    unusual
        Whether it may be true, and is only to look at: one of its numbers lies more than two ranges
        beyond nearly all of those of the newest 2,048 examples before it.
    """

    offset: int
    prediction_id: str
    what: str
    learnable: bool
    unusual: bool = False


def find_suspects(
    log: LogReader, task: Task, span: OffsetRange, *, far_out: bool = True
) -> Iterator[Suspect]:
    """Find examples of a range that no learner takes, that are far out, or unusual, by offset.

    Those that are quarantined already are left out. An example has one reason, its label's
    if that is one.

    Parameters
    ----------
    log, task
        Has the examples, and what is predicted.
    span
        Which offsets.
    far_out
        Whether to find those that are far out or unusual, too. The first hundred examples are judged
        by none before them.

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
        suspects = [_suspect(*row, learnable=False) for row in _rows(flat, wrong)]
        sound = flat.filter(~pl.col("offset").is_in([one.offset for one in suspects]))
        if far_out and sound.height:
            rows = list(_rows(sound, _by_column(guard.far_columns(*_example(sound)))))
            suspects += [_suspect(*row, ", far out", learnable=True) for row in rows]
            near = sound.filter(~pl.col("offset").is_in([offset for offset, *_ in rows]))
            rows = list(_rows(near, _by_column(guard.unusual_columns(*_example(near)))))
            suspects += [_suspect(*row, ", unusual", learnable=True, unusual=True) for row in rows]
            guard = guard.after(*_example(near))  # the unusual become usual if there are many
        yield from sorted(suspects, key=lambda suspect: suspect.offset)


def _pieces(log: LogReader, span: OffsetRange) -> Iterator[pl.DataFrame]:
    for start in range(span.start, span.stop, _READ_ROWS):
        frame = log.judged(start, min(start + _READ_ROWS, span.stop), _COLUMNS)
        yield from frame.iter_slices(_PIECE_ROWS)


def _example(flat: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    return flat.drop("offset", "prediction_id", "label"), flat["label"]


def _by_column(masks: dict[str, pl.Series]) -> dict[str, pl.Series]:
    return {name or "label": mask for name, mask in masks.items()}


def _rows(flat: pl.DataFrame, wrong: dict[str, pl.Series]) -> Iterator[tuple[int, str, str, float]]:
    """Yield the rows of which a column is wrong, once each: offset, id, column and number."""
    seen: set[int] = set()
    for name, mask in wrong.items():
        for offset, id_, value in flat.filter(mask).select("offset", "prediction_id", name).iter_rows():
            if offset not in seen:
                seen.add(offset)
                yield offset, id_, name, value


def _suspect(
    offset: int,
    id_: str,
    column: str,
    value: float,
    why: str = "",
    *,
    learnable: bool,
    unusual: bool = False,
) -> Suspect:
    subject = "the label" if column == "label" else f"feature {column!r}"
    what = f"{subject} is {value:g}{why}"
    return Suspect(offset=offset, prediction_id=id_, what=what, learnable=learnable, unusual=unusual)


def _beyond(column: pl.Series) -> pl.Series:
    """Return which numbers are NaN, infinite or beyond what is learned."""
    return (~column.is_between(-LARGEST, LARGEST)).fill_null(value=False)
