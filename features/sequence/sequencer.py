"""The sequencer: the one process per pipeline that assigns offsets."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, Self

import msgspec
from msgspec.structs import astuple
from sqlalchemy import Connection, bindparam, func, select, update

from headwater.features.identity.belonging import check_inbox
from headwater.features.record.inbox import LABEL, Inbox, InboxRow
from headwater.features.sequence.joining import (
    Arrival,
    Deadline,
    Joined,
    Joiner,
    KnownLabel,
    KnownPrediction,
)
from headwater.infra.clock import Clock, to_us
from headwater.infra.commit_points import reached
from headwater.infra.store import tables
from headwater.infra.store.database import Database, insert_many
from headwater.infra.store.lease import Lease, acquire, keep, release
from headwater.spec.data.records import LabelValue
from headwater.spec.duration import duration
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["BATCH_ENTRIES", "Sequencer"]

BATCH_ENTRIES = 5_000
"""How many entries one transaction sequences at most."""

_CHUNK = 1_000
_REMEMBERED = 20_000


class _Place(NamedTuple):
    """The state of a pipeline's sequencing."""

    next_position: int
    next_offset: int
    next_deadline: int
    horizon_us: int
    parked: int
    inbox_position: int


class _Value(msgspec.Struct, gc=False):
    value: LabelValue


_VALUE = msgspec.json.Decoder(_Value)


class Sequencer:
    """The sequencer, which joins predictions with labels and assigns offsets to the examples.

    Made by whoever collects; lives as long as that. Holds the lease ``sequence/PIPELINE`` between
    ``with`` and its end: a second one is refused, and one that was taken over writes nothing more.

    Parameters
    ----------
    pipeline, pipeline_id
        What to sequence, and its number in the database.
    inbox, database, clock
        Where records wait, where examples go, and the time.
    agreed
        Checks that the pipeline's declaration is in force still; called under the lease.
    batch_entries
        How many entries of the inbox, and how many deadlines, one transaction takes at most.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        pipeline_id: int,
        inbox: Inbox,
        database: Database,
        clock: Clock,
        agreed: Callable[[], None],
        *,
        batch_entries: int = BATCH_ENTRIES,
    ) -> None:
        self._batch_entries = batch_entries
        self._agreed = agreed
        self._rule = pipeline.label
        self._name = pipeline.name
        self._pipeline_id = pipeline_id
        self._inbox = inbox
        self._database = database
        self._clock = clock
        self._watches = self._rule.maturity == "window" or self._rule.timeout is not None
        self._lease: Lease | None = None
        # While the lease holds, nobody else writes: what was read or written lately is still so.
        self._remembered: dict[str, KnownPrediction] = {}
        self._only_inbox = False
        # Built once: SQLAlchemy takes longer to put such a statement together than SQLite to run it.
        sequencer, read = tables.sequencer, tables.inbox_position
        mine = sequencer.c.pipeline_id == pipeline_id
        from_mine = (read.c.pipeline_id == pipeline_id) & (read.c.inbox == inbox.id)
        beside = sequencer.join(read, read.c.pipeline_id == sequencer.c.pipeline_id)
        self._select_place = (
            select(
                sequencer.c.next_position,
                sequencer.c.next_offset,
                sequencer.c.next_deadline,
                sequencer.c.horizon_us,
                sequencer.c.parked,
                read.c.position,
            )
            .select_from(beside)
            .where(mine, from_mine)
        )
        self._move_place = update(sequencer).where(mine)
        self._move_inbox = update(read).where(from_mine).values(position=bindparam("read_to"))

    def __enter__(self) -> Self:
        self._lease = acquire(self._database, self._clock, f"sequence/{self._name}")
        try:
            self._agreed()
            with self._database.reading() as connection:  # a copy may have been read since it was opened
                check_inbox(connection, self._pipeline_id, self._inbox)
        except HeadwaterError:
            release(self._database, self._lease)
            raise
        inboxes = select(func.count()).where(tables.inbox_position.c.pipeline_id == self._pipeline_id)
        with self._database.reading() as connection:
            self._only_inbox = connection.execute(inboxes).scalar_one() == 1
        return self

    def __exit__(self, *_: object) -> None:
        if self._lease is not None:
            release(self._database, self._lease)

    def drain(self) -> int:
        """Sequence all records and deadlines up to the clock's present.

        Returns
        -------
        int
            How many examples were emitted.

        Raises
        ------
        FencedError
            If another sequencer took over.
        """
        emitted = 0
        while True:
            step, finished = self.step()
            emitted += step
            if finished:
                return emitted

    def step(self) -> tuple[int, bool]:
        """Sequence one batch in one transaction.

        Returns
        -------
        emitted : int
            How many examples were emitted.
        finished : bool
            Whether nothing is left that is due.
        """
        if self._lease is None:
            raise RuntimeError("a sequencer works inside its with block")
        try:
            return self._step(self._lease)
        except BaseException:
            self._remembered.clear()  # it may hold what was not committed
            raise

    def _step(self, lease: Lease) -> tuple[int, bool]:
        with self._database.transaction() as connection:
            keep(connection, self._clock, lease)
            place = self._place(connection)
            entries = self._inbox.read(place.inbox_position, self._batch_entries)
            more = len(entries) == self._batch_entries
            arrivals = _arrivals(entries, place.horizon_us)
            last_us = arrivals[-1].effective_at_us if arrivals else place.horizon_us
            until_us = last_us if more else max(last_us, to_us(self._clock.now()))
            deadlines = self._deadlines(connection, place, until_us)
            if len(deadlines) > self._batch_entries:
                more, until_us = True, deadlines[self._batch_entries - 1].due_us + 1
                arrivals = [a for a in arrivals if a.effective_at_us < until_us]
            if not arrivals and not deadlines:
                return 0, not more
            joiner = self._join(connection, place, arrivals, deadlines, until_us)
            self._write(connection, joiner.joined)
            horizon_us = until_us if self._watches else last_us
            read_to = entries[len(arrivals) - 1][0] if arrivals else place.inbox_position
            self._move(connection, place, joiner, read_to, horizon_us)
            reached("sequence.before_commit")
        reached("sequence.after_commit")
        for id_ in list(islice(self._remembered, max(0, len(self._remembered) - _REMEMBERED))):
            del self._remembered[id_]
        return len(joiner.joined.examples), not more

    def _place(self, connection: Connection) -> _Place:
        return _Place._make(connection.execute(self._select_place).one())

    def _deadlines(self, connection: Connection, place: _Place, until_us: int) -> list[Deadline]:
        if not self._watches:
            return []
        table = tables.prediction.c
        wait_us = round(duration(self._rule.wait).total_seconds() * 1_000_000)
        rows = connection.execute(
            select(table.effective_at_us, table.position, table.id)
            .where(
                table.pipeline_id == self._pipeline_id,
                table.position >= place.next_deadline,
                table.effective_at_us < until_us - wait_us,
            )
            .order_by(table.position)
            .limit(self._batch_entries + 1)
        )
        return [
            Deadline(effective_us + wait_us, position, id_) for effective_us, position, id_ in rows.all()
        ]

    def _join(
        self,
        connection: Connection,
        place: _Place,
        arrivals: Sequence[Arrival],
        deadlines: Sequence[Deadline],
        until_us: int,
    ) -> Joiner:
        self._remember(connection, self._unknown(arrivals, deadlines, place.parked))
        joiner = Joiner(
            self._rule,
            self._remembered,
            deadlines,
            place.next_position,
            place.next_offset,
            place.parked,
        )
        joiner.fold(arrivals, until_us)
        return joiner

    def _unknown(
        self, arrivals: Sequence[Arrival], deadlines: Sequence[Deadline], parked: int
    ) -> list[str]:
        """Return the ids of which the stores may hold records that are not remembered.

        An inbox holds a prediction once: with one inbox and no label parked, an id that comes with a
        prediction is new to the stores.
        """
        recalled = self._only_inbox and parked == 0
        new = {arrival.id for arrival in arrivals if arrival.value is None} if recalled else ()
        remembered = self._remembered  # may be long: look ids up, build no set of it
        ids = {arrival.id for arrival in arrivals if arrival.id not in remembered}
        ids.update(deadline.id for deadline in deadlines if deadline.id not in remembered)
        return sorted(ids.difference(new))

    def _remember(self, connection: Connection, ids: Sequence[str]) -> None:
        known: dict[str, KnownPrediction] = {}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            self._load_predictions(connection, chunk, known)
            self._load_parked(connection, chunk, known)
        recorded = {
            prediction.position: prediction
            for prediction in known.values()
            if prediction.position is not None
        }
        positions = sorted(recorded)
        for start in range(0, len(positions), _CHUNK):
            chunk_of = positions[start : start + _CHUNK]
            self._load_labels(connection, chunk_of, recorded)
            self._load_examples(connection, chunk_of, recorded)
        self._remembered.update(known)

    def _load_predictions(
        self, connection: Connection, ids: Sequence[str], known: dict[str, KnownPrediction]
    ) -> None:
        table = tables.prediction.c
        for id_, position, effective_us in connection.execute(
            select(table.id, table.position, table.effective_at_us).where(
                table.pipeline_id == self._pipeline_id, table.id.in_(ids)
            )
        ).all():
            known[id_] = KnownPrediction(position, effective_us)

    def _load_parked(
        self, connection: Connection, ids: Sequence[str], known: dict[str, KnownPrediction]
    ) -> None:
        table = tables.label.c
        for id_, *label in connection.execute(
            select(table.prediction_id, table.position, table.payload, table.effective_at_us)
            .where(table.pipeline_id == self._pipeline_id, table.prediction_id.in_(ids))
            .order_by(table.prediction_id, table.revision)
        ).all():
            known.setdefault(id_, KnownPrediction()).labels += (_known_label(*label),)

    def _load_labels(
        self, connection: Connection, positions: Sequence[int], known: dict[int, KnownPrediction]
    ) -> None:
        """Load the labels that came after their predictions, and so after any that were parked."""
        table = tables.label.c
        for of, *label in connection.execute(
            select(table.prediction_position, table.position, table.payload, table.effective_at_us)
            .where(table.pipeline_id == self._pipeline_id, table.prediction_position.in_(positions))
            .order_by(table.prediction_position, table.revision)
        ).all():
            known[of].labels += (_known_label(*label),)

    def _load_examples(
        self, connection: Connection, positions: Sequence[int], known: dict[int, KnownPrediction]
    ) -> None:
        table = tables.example.c
        for position, offset, label_position in connection.execute(
            select(table.prediction_position, table.offset, table.label_position)
            .where(table.pipeline_id == self._pipeline_id, table.prediction_position.in_(positions))
            .order_by(table.offset)
        ).all():
            prediction = known[position]
            prediction.example = offset
            prediction.learned = next(
                label.value for label in prediction.labels if label.position == label_position
            )

    def _write(self, connection: Connection, joined: Joined) -> None:
        id_ = self._pipeline_id
        insert_many(connection, tables.prediction, [(id_, *astuple(row)) for row in joined.predictions])
        insert_many(connection, tables.label, [(id_, *astuple(row)) for row in joined.labels])
        insert_many(connection, tables.example, [(id_, *astuple(row)) for row in joined.examples])

    def _move(
        self,
        connection: Connection,
        place: _Place,
        joiner: Joiner,
        read_to: int,
        horizon_us: int,
    ) -> None:
        connection.execute(
            self._move_place,
            {
                "next_position": joiner.next_position,
                "next_offset": joiner.next_offset,
                "next_deadline": max(place.next_deadline, joiner.last_fired + 1),
                "horizon_us": horizon_us,
                "parked": joiner.parked,
            },
        )
        if read_to > place.inbox_position:
            connection.execute(self._move_inbox, {"read_to": read_to})


def _known_label(position: int, payload: bytes, effective_us: int) -> KnownLabel:
    return KnownLabel(position, _VALUE.decode(payload).value, effective_us)


def _arrivals(entries: Sequence[InboxRow], horizon_us: int) -> list[Arrival]:
    """Return the entries with their effective times, which never fall."""
    arrivals = []
    decode = _VALUE.decode
    for _position, kind, id_, received_at_us, payload in entries:
        horizon_us = max(horizon_us, received_at_us)
        value = decode(payload).value if kind == LABEL else None
        arrivals.append(Arrival(id_, horizon_us, value, payload))
    return arrivals
