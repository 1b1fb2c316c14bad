"""Replay past events to a live service, in their order and at their pace."""

import time
from collections.abc import Iterator
from itertools import groupby, islice, repeat
from typing import Any, NamedTuple

import msgspec
import polars as pl

from headwater.infra.clock import to_us
from headwater.serving.api.schemas import MOST_ITEMS
from headwater.serving.client.client import Client
from headwater.spec.data.label import DUE_AT
from headwater.spec.errors import ConflictError, NotEnoughError
from headwater.spec.pipeline import Pipeline

__all__ = ["ReplayProgress", "replay"]

_SLICE_S = 0.05


class ReplayProgress(msgspec.Struct, kw_only=True):
    """The progress of a replay.

    Parameters
    ----------
    predictions, labels
        The numbers of recorded predictions and labels.
    total
        The number of events of both kinds.
    versions
        The number of answers by version.
    behind_s
        Seconds by which it is behind its pace.
    """

    total: int
    predictions: int = 0
    labels: int = 0
    versions: dict[str, int] = {}
    behind_s: float = 0.0


class _TimedRequest(NamedTuple):
    """A prediction or a label to send, and the time at which it happened."""

    at_us: int
    is_label: bool
    body: dict[str, Any]


def replay(
    client: Client,
    pipeline: Pipeline,
    events: pl.DataFrame,
    speed: float,
    *,
    known_later: pl.DataFrame | None = None,
) -> Iterator[ReplayProgress]:
    """Send predictions when they were made, and labels when they became known.

    It sends one request at a time. The service records events in exactly this order, so that offsets and
    digests are those of a replay in process (:class:`headwater.loop.replay.replay.Replay`).

    Parameters
    ----------
    client
        A client of the service.
    pipeline
        The pipeline of the events.
    events
        Columns ``id``, ``served_at``, ``label`` and ``known_at`` (both null if never known), the request
        features, the entity keys by which other features are looked up, and ``due_at`` if the label
        rule has ``due="due_at"``; sorted by ``served_at``.
    speed
        The factor by which it is faster than the events; infinity sends as fast as it can.
    known_later
        Events that were predicted before, of which only the labels are sent.

    Yields
    ------
    ReplayProgress
        After each request; always the same record, which grows.

    Raises
    ------
    NotEnoughError
        If there are no events.
    ConflictError
        If the service has another label under the same key.
    HeadwaterError
        The error of the service.
    """
    if events.is_empty():
        raise NotEnoughError("there are no events to replay", hint="choose other days")
    ordered = _ordered(pipeline, events, known_later)
    progress, first_us, began_s = ReplayProgress(total=len(ordered)), ordered[0].at_us, time.monotonic()

    def due_s(event: _TimedRequest) -> float:
        return (event.at_us - first_us) / 1e6 / speed

    for _, in_slice in groupby(ordered, key=lambda event: due_s(event) // _SLICE_S):
        for is_label, same_kind in groupby(in_slice, key=lambda event: event.is_label):
            while part := list(islice(same_kind, MOST_ITEMS)):
                ahead_s = due_s(part[0]) - (time.monotonic() - began_s)
                progress.behind_s = max(0.0, -ahead_s)
                time.sleep(max(0.0, ahead_s))
                _send(client, pipeline.name, is_label, [event.body for event in part], progress)
                yield progress


def _ordered(
    pipeline: Pipeline, events: pl.DataFrame, known_later: pl.DataFrame | None
) -> list[_TimedRequest]:
    requests = list(_labels(events))
    if known_later is not None:
        requests += _labels(known_later)
    names = [feature.name for feature in pipeline.request_features]
    keys = [pl.col(key).cast(pl.String) for key in pipeline.entity_keys]
    features, entities = _row_dicts(events.select(names)), _row_dicts(events.select(keys))
    dues = events[DUE_AT] if pipeline.label.due == DUE_AT else repeat(None)
    for id_, at, values, entity, due_at in zip(
        events["id"], events["served_at"], features, entities, dues, strict=False
    ):
        body = {"id": str(id_), "features": values, "entity": entity}
        if due_at is not None:
            body["due_at"] = due_at
        requests.append(_TimedRequest(to_us(at), False, body))
    requests.sort(key=lambda event: (event.at_us, event.is_label))
    return requests


def _row_dicts(columns: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a dictionary for each row; empty ones without end if there are no columns."""
    return columns.iter_rows(named=True) if columns.width else repeat({})


def _labels(events: pl.DataFrame) -> Iterator[_TimedRequest]:
    known = events.select("id", "label", "known_at").drop_nulls()
    for id_, label, known_at in known.iter_rows():
        body = {"prediction_id": str(id_), "value": label, "known_at": known_at}
        yield _TimedRequest(to_us(known_at), True, body)


def _send(
    client: Client, pipeline: str, is_label: bool, bodies: list[dict[str, Any]], progress: ReplayProgress
) -> None:
    if not is_label:
        for answer in client.send_predictions(bodies, pipeline=pipeline):
            progress.versions[answer.version] = progress.versions.get(answer.version, 0) + 1
        progress.predictions += len(bodies)
        return
    results = client.send_labels(bodies, pipeline=pipeline)
    refused = [result for result in results if result.status in ("conflict", "refused")]
    if refused:
        raise ConflictError(
            f"{len(refused)} labels were refused, first that of {refused[0].prediction_id!r}: "
            f"{refused[0].detail}",
            hint=refused[0].hint,
        )
    progress.labels += len(bodies)
