"""The rows of predictions, labels and examples in the database, each held against its checksum.

A row that fails its checksum, or that lies in a damaged page, is left out; an example whose prediction
or label is left out is, too. Whoever needs every row compares what came with what there must be.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam, select

from headwater.features.read.frames import ExampleRow, LabelRow, PredictionRow
from headwater.infra.store.database import Database, is_damage
from headwater.infra.store.schema import tables
from headwater.spec.data.checksum import (
    example_checksum,
    label_checksum,
    payload_crc,
    prediction_checksum,
)
from headwater.spec.errors import StorageError

__all__ = ["StoredRows"]

_Row = TypeVar("_Row", bound=tuple[Any, ...])


class StoredRows:
    """One pipeline's whole rows, by range.

    Parameters
    ----------
    database, pipeline_id
        Where they are, and whose.
    afresh
        Read the file, and not what this process has read of it before: who looks for damage does so.
    """

    def __init__(self, database: Database, pipeline_id: int, *, afresh: bool = False) -> None:
        self._database = database
        self._afresh = afresh
        # Built once: SQLAlchemy takes longer to put such a statement together than SQLite to run it.
        self._predictions = _predictions_of(pipeline_id)
        self._labels = _labels_of(pipeline_id)
        self._examples = _examples_of(pipeline_id)
        self._links = _links_of(pipeline_id)

    def predictions(self, start: int, stop: int) -> list[PredictionRow]:
        """Return the whole predictions of a range of positions, in order."""
        rows = self._read(self._predictions, start, stop)
        return [row[:4] for row in _whole(rows, _is_whole_prediction)]

    def labels(self, start: int, stop: int) -> list[LabelRow]:
        """Return the whole labels of a range of positions, in order."""
        rows = self._read(self._labels, start, stop)
        return [(*row[:5], row[8] is not None) for row in _whole(rows, _is_whole_label)]

    def examples(self, start: int, stop: int) -> list[ExampleRow]:
        """Return the whole examples of a range of offsets, in order, with both their halves."""
        rows = self._read(self._examples, start, stop)
        whole = _whole(rows, _is_whole_example)
        return [(row[0], row[1], row[2], row[10], row[12], row[7], row[13], row[15]) for row in whole]

    def damaged(self, start: int, stop: int) -> list[int]:
        """Return the positions of a range at which no whole row stands."""
        there = {row[0] for row in self.predictions(start, stop)}
        there.update(row[0] for row in self.labels(start, stop))
        return [position for position in range(start, stop) if position not in there]

    def damaged_links(self, start: int, stop: int, damaged: Collection[int]) -> list[int]:
        """Return the offsets of a range at which no whole example stands, given damaged positions.

        It reads the examples' own rows, whose halves :meth:`damaged` reads.
        """
        rows = _whole(self._read(self._links, start, stop), _is_whole_link)
        there = {row[0] for row in rows if row[3] not in damaged and row[4] not in damaged}
        return [offset for offset in range(start, stop) if offset not in there]

    def damaged_examples(self, start: int, stop: int) -> list[int]:
        """Return the offsets of a range at which no whole example stands."""
        there = {row[0] for row in self.examples(start, stop)}
        return [offset for offset in range(start, stop) if offset not in there]

    def _read(self, statement: Select[_Row], start: int, stop: int) -> list[_Row]:
        """Read around damaged pages: halve the range until what cannot be read is one row."""

        def within(first: int, end: int) -> list[_Row]:
            with self._database.reading(afresh=self._afresh) as connection:
                values = {"start": first, "stop": end}
                return list(connection.execute(statement, values).tuples().all())

        return _around_damage(within, start, stop)


def _around_damage(read: Callable[[int, int], list[_Row]], start: int, stop: int) -> list[_Row]:
    try:
        return read(start, stop)
    except StorageError as error:
        if not is_damage(error):
            raise
    if stop - start <= 1:
        return []
    middle = (start + stop) // 2
    return _around_damage(read, start, middle) + _around_damage(read, middle, stop)


def _whole(rows: list[_Row], is_whole: Callable[[_Row], bool]) -> list[_Row]:
    """Return the whole ones of some rows; a value of another type is damage, too."""

    def decide(row: _Row) -> bool:
        try:
            return is_whole(row)
        except TypeError:
            return False

    try:
        return [row for row in rows if is_whole(row)]
    except TypeError:
        return [row for row in rows if decide(row)]


def _is_whole_prediction(
    row: tuple[int, int, bytes, int | None, str, int | None, int | None],
) -> bool:
    position, effective_us, payload, recorded_by, id_, checksum, due_us = row
    crc = payload_crc(payload)
    return checksum is None or (
        prediction_checksum(position, id_, effective_us, crc, recorded_by, due_us) == checksum
    )


def _is_whole_label(
    row: tuple[int, int, int, bool, bytes, int | None, str | None, int | None, str | None],
) -> bool:
    position, revision, effective_us, late, payload, of, id_, checksum, _ = row
    named = of if of is not None else id_
    return checksum is None or (
        named is not None
        and label_checksum(position, named, revision, effective_us, late, payload_crc(payload))
        == checksum
    )


def _is_whole_link(row: tuple[int, int, int | None, int, int, int | None]) -> bool:
    offset, emitted_us, supersedes, prediction, label, checksum = row
    return checksum is None or (
        example_checksum(offset, prediction, label, emitted_us, supersedes) == checksum
    )


def _is_whole_example(row: Sequence[Any]) -> bool:
    _, _, _, prediction, label, _, us, payload, id_ = row[:9]
    of_prediction, revision, label_us, late, told, of_label, recorded_by, due_us = row[9:]
    if not _is_whole_link(tuple(row[:6])):
        return False
    crc = payload_crc(payload)
    if of_prediction is not None and (
        prediction_checksum(prediction, id_, us, crc, recorded_by, due_us) != of_prediction
    ):
        return False
    if of_label is None:
        return True
    crc = payload_crc(told)
    if label_checksum(label, prediction, revision, label_us, late, crc) == of_label:  # nearly always
        return True
    by_id: bool = label_checksum(label, id_, revision, label_us, late, crc) == of_label  # it came first
    return by_id


def _within(table: Any, key: str, pipeline_id: int) -> tuple[Any, ...]:
    column = table.c[key]
    return (
        table.c.pipeline_id == pipeline_id,
        column >= bindparam("start"),
        column < bindparam("stop"),
    )


def _predictions_of(
    pipeline_id: int,
) -> Select[tuple[int, int, bytes, int | None, str, int | None, int | None]]:
    row = tables.prediction.c
    return (
        select(
            row.position,
            row.effective_at_us,
            row.payload,
            row.recorded_by,
            row.id,
            row.checksum,
            row.due_us,
        )
        .where(*_within(tables.prediction, "position", pipeline_id))
        .order_by(row.position)
    )


def _labels_of(
    pipeline_id: int,
) -> Select[tuple[int, int, int, bool, bytes, int | None, str | None, int | None, str | None]]:
    row = tables.label.c
    return (
        select(
            row.position,
            row.revision,
            row.effective_at_us,
            row.late,
            row.payload,
            row.prediction_position,
            row.prediction_id,
            row.checksum,
            row.held_class,
        )
        .where(*_within(tables.label, "position", pipeline_id))
        .order_by(row.position)
    )


def _links_of(pipeline_id: int) -> Select[tuple[int, int, int | None, int, int, int | None]]:
    row = tables.example.c
    return (
        select(
            row.offset,
            row.emitted_at_us,
            row.supersedes,
            row.prediction_position,
            row.label_position,
            row.checksum,
        )
        .where(*_within(tables.example, "offset", pipeline_id))
        .order_by(row.offset)
    )


def _examples_of(pipeline_id: int) -> Select[Any]:
    """Select the examples from offset ``start`` up to ``stop``, with all that their checksums cover."""
    example, prediction, label = tables.example.c, tables.prediction.c, tables.label.c
    of_prediction = (prediction.pipeline_id == example.pipeline_id) & (
        prediction.position == example.prediction_position
    )
    of_label = (label.pipeline_id == example.pipeline_id) & (label.position == example.label_position)
    return (
        select(
            example.offset,
            example.emitted_at_us,
            example.supersedes,
            example.prediction_position,
            example.label_position,
            example.checksum,
            prediction.effective_at_us,
            prediction.payload,
            prediction.id,
            prediction.checksum,
            label.revision,
            label.effective_at_us,
            label.late,
            label.payload,
            label.checksum,
            prediction.recorded_by,
            prediction.due_us,
        )
        .join(tables.prediction, of_prediction)
        .join(tables.label, of_label)
        .where(*_within(tables.example, "offset", pipeline_id))
        .order_by(example.offset)
    )
