"""Send what happened to a live service, in the order and at the pace at which it happened."""

import time
from collections.abc import Iterator
from itertools import groupby, islice, repeat
from typing import Any, NamedTuple

import msgspec
import polars as pl

from headwater.infra.clock import to_us
from headwater.serving.api.schemas import MOST_ITEMS
from headwater.serving.client.client import Client
from headwater.spec.errors import ConflictError, NotEnoughError
from headwater.spec.pipeline import Pipeline

__all__ = ["ReplayProgress", "replay"]

_SLICE_S = 0.05


class ReplayProgress(msgspec.Struct, kw_only=True):
    """What a replay has sent so far.

    Parameters
    ----------
    predictions, labels
        How many were recorded.
    total
        Events there are in all, of both kinds.
    versions
        How many predictions each version answered.
    behind_s
        How far it is behind its pace, in seconds.
    """

    total: int
    predictions: int = 0
    labels: int = 0
    versions: dict[str, int] = {}
    behind_s: float = 0.0


class _Event(NamedTuple):
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
    """Send predictions as they were asked for, and labels as they became known.

    One request at a time: the service records events in exactly this order, so that offsets and digests
    are those of a replay in process (:class:`headwater.loop.replay.replay.Replay`).

    Parameters
    ----------
    client
        Of the service.
    pipeline
        Whose events.
    events
        Columns ``id``, ``served_at``, ``label`` and ``known_at`` (both null where never known), the
        features that come with a request, and the entity keys by which others are looked up; sorted by
        ``served_at``.
    speed
        How many times faster than it happened; infinity sends as fast as it can.
    known_later
        Events that were predicted before, of which only the labels are sent.

    Yields
    ------
    Sent
        After each request; always the same record, which grows.

    Raises
    ------
    NotEnoughError
        If there are no events.
    ConflictError
        If the service has another label under the same key.
    HeadwaterError
        As the service says.
    """
    if events.is_empty():
        raise NotEnoughError("there are no events to replay", hint="choose other days")
    ordered = _ordered(pipeline, events, known_later)
    sent, first_us, began_s = ReplayProgress(total=len(ordered)), ordered[0].at_us, time.monotonic()

    def due_s(event: _Event) -> float:
        return (event.at_us - first_us) / 1e6 / speed

    for _, slice_ in groupby(ordered, key=lambda event: due_s(event) // _SLICE_S):
        for is_label, same in groupby(slice_, key=lambda event: event.is_label):
            while some := list(islice(same, MOST_ITEMS)):
                ahead_s = due_s(some[0]) - (time.monotonic() - began_s)
                sent.behind_s = max(0.0, -ahead_s)
                time.sleep(max(0.0, ahead_s))
                _send(client, pipeline.name, is_label, [event.body for event in some], sent)
                yield sent


def _ordered(pipeline: Pipeline, events: pl.DataFrame, known_later: pl.DataFrame | None) -> list[_Event]:
    found = list(_labels(events))
    if known_later is not None:
        found += _labels(known_later)
    names = [feature.name for feature in pipeline.request_features]
    keys = [pl.col(key).cast(pl.String) for key in pipeline.entity_keys]
    features, entities = _dicts(events.select(names)), _dicts(events.select(keys))
    for id_, at, values, entity in zip(
        events["id"], events["served_at"], features, entities, strict=False
    ):
        body = {"id": str(id_), "features": values, "entity": entity}
        found.append(_Event(to_us(at), False, body))
    found.sort(key=lambda event: (event.at_us, event.is_label))
    return found


def _dicts(columns: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Give a dict a row; empty ones for ever where there are no columns."""
    return columns.iter_rows(named=True) if columns.width else repeat({})


def _labels(events: pl.DataFrame) -> Iterator[_Event]:
    told = events.select("id", "label", "known_at").drop_nulls()
    for id_, label, known_at in told.iter_rows():
        body = {"prediction_id": str(id_), "value": label, "known_at": known_at}
        yield _Event(to_us(known_at), True, body)


def _send(
    client: Client, pipeline: str, is_label: bool, bodies: list[dict[str, Any]], sent: ReplayProgress
) -> None:
    if not is_label:
        for answer in client.send_predictions(bodies, pipeline=pipeline):
            sent.versions[answer.version] = sent.versions.get(answer.version, 0) + 1
        sent.predictions += len(bodies)
        return
    results = client.send_labels(bodies, pipeline=pipeline)
    refused = [one for one in results if one.status in ("conflict", "refused")]
    if refused:
        raise ConflictError(
            f"{len(refused)} labels were refused, first that of {refused[0].prediction_id!r}: "
            f"{refused[0].detail}",
            hint=refused[0].hint,
        )
    sent.labels += len(bodies)
