"""Long logs, written in bulk as rows of the form in which the sequencer writes them.

The inbox, which no update reads, stays empty; the tables of the archive are written by the log itself.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

import msgspec
from sqlalchemy import update

from benchmarks.models import river_regression
from headwater.features.log import FeatureLog
from headwater.features.sequence.join_records import (
    NewExample,
    NewLabel,
    NewPrediction,
    example_rows,
    label_rows,
    prediction_rows,
)
from headwater.infra.clock import to_us
from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import tables
from headwater.spec.data.checksum import payload_crc
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["BULK", "fill", "moment"]

_START = datetime(2024, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_CHUNK = 50_000
_NAMES = ("a", "b", "c", "d")
_ENCODER = msgspec.json.Encoder(order="deterministic")

BULK = Pipeline(
    name="bulk",
    task="binary",
    features=tuple(Feature(name, float) for name in _NAMES),
    label=LabelRule(wait="1d"),
    model=river_regression,
    update=Stateful(window="5h"),
)
"""A pipeline that gets an example each second; its first version learns the last five hours."""


class _Rows(NamedTuple):
    predictions: list[tuple[object, ...]]
    labels: list[tuple[object, ...]]
    examples: list[tuple[object, ...]]


def moment(offset: int) -> datetime:
    """Give the time at which an example is emitted."""
    return _START + offset * _SECOND


def fill(log: FeatureLog, stop: int) -> None:
    """Lengthen a log up to an offset, in the database and in the archive."""
    start = log.stop()
    for first in range(start, stop, _CHUNK):
        last = min(first + _CHUNK, stop)
        rows = _Rows([], [], [])
        for offset, prediction, label in _records(first, last):
            _add(rows, log.pipeline_id, offset, prediction, label)
        _write(log, rows, last)
    log.collect()


def _records(start: int, stop: int) -> Iterator[tuple[int, Prediction, Label]]:
    drawn = Random(start)
    for offset in range(start, stop):
        at = moment(offset)
        values = {name: drawn.random() for name in _NAMES}
        id_ = f"p{offset:09}"
        label = Label(prediction_id=id_, value=values["a"] > values["b"], known_at=at, key="first")
        prediction = Prediction(id=id_, features=dict(values), output=0.5, served_at=at, version="1")
        yield offset, prediction, label


def _add(rows: _Rows, pipeline_id: int, offset: int, prediction: Prediction, label: Label) -> None:
    """Add one example: its prediction and its label take the next two positions."""
    at_us, position = to_us(label.known_at), 2 * offset
    predicted, told = _ENCODER.encode(prediction), _ENCODER.encode(label)
    made = NewPrediction(position, prediction.id, at_us, predicted, payload_crc(predicted))
    rows.predictions.extend(prediction_rows(pipeline_id, [made]))
    crc = payload_crc(told)
    answer = NewLabel(position + 1, position, None, 0, at_us, False, told, None, crc)
    rows.labels.extend(label_rows(pipeline_id, [answer]))
    example = NewExample(offset, position, position + 1, at_us, None)
    rows.examples.extend(example_rows(pipeline_id, [example]))


def _write(log: FeatureLog, rows: _Rows, stop: int) -> None:
    place = tables.sequencer
    with log.database.transaction() as connection:
        insert_many(connection, tables.prediction, rows.predictions)
        insert_many(connection, tables.label, rows.labels)
        insert_many(connection, tables.example, rows.examples)
        connection.execute(
            update(place)
            .where(place.c.pipeline_id == log.pipeline_id)
            .values(next_position=2 * stop, next_offset=stop, horizon_us=to_us(moment(stop - 1)))
        )
