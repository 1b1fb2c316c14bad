"""The sequencer: the one process per pipeline that assigns offsets."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from sqlalchemy import Connection

from headwater.features.identity.belonging import check_inbox
from headwater.features.identity.recorded_by import RecordedBy
from headwater.features.record.entries import LABEL
from headwater.features.record.inbox import Inbox
from headwater.features.record.inbox_reader import ScannedEntries, lost_entries
from headwater.features.sequence.class_names import ClassNames, Naming
from headwater.features.sequence.deadlines import DueDeadlines, OpenDeadlines
from headwater.features.sequence.join_records import (
    Arrival,
    Joined,
    example_rows,
    label_rows,
    prediction_rows,
)
from headwater.features.sequence.joining import Joiner
from headwater.features.sequence.joining_rule import JoiningRules
from headwater.features.sequence.known_records import STORED_LABEL, KnownRecords
from headwater.features.sequence.recorded_rules import RecordedRules
from headwater.features.sequence.sequencer_row import SequencerRow, SequencerState
from headwater.infra.clock import Clock, to_us
from headwater.infra.commit_points import reached
from headwater.infra.store.database import Database, insert_many
from headwater.infra.store.lease import Lease, acquire, keep, release
from headwater.infra.store.schema import tables
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["BATCH_ENTRIES", "Sequencer"]

_logger = logging.getLogger("headwater.sequencer")

BATCH_ENTRIES = 5_000
"""How many entries one transaction sequences at most."""


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
        self._receipts = inbox.receipt_clock(clock)
        self._lease: Lease | None = None
        self._rules = RecordedRules(pipeline_id, pipeline.label)
        self._known = KnownRecords(pipeline_id, self._rules)
        self._open = OpenDeadlines(pipeline_id)
        self._names = ClassNames(pipeline_id, pipeline.label)
        self._recorded_by = RecordedBy(pipeline_id, inbox)
        self._row = SequencerRow(pipeline_id, inbox.identity.inbox)

    def __enter__(self) -> Self:
        self._lease = acquire(self._database, self._clock, f"sequence/{self._name}")
        try:
            self._agreed()
            # a copy may have been read since it was opened
            check_inbox(self._database, self._pipeline_id, self._inbox)
            with self._database.reading() as connection:
                self._known.begin(connection)
                self._open.forget()
        except HeadwaterError:
            release(self._database, self._lease)
            raise
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
            self._known.by_id.clear()  # it may hold what was not committed
            self._open.forget()
            self._recorded_by.forget()
            self._rules.forget()
            raise

    def _step(self, lease: Lease) -> tuple[int, bool]:
        with self._database.transaction() as connection:
            keep(connection, self._clock, lease)
            before = self._row.read(connection)
            scanned = self._inbox.scan(before.inbox_position, self._batch_entries)
            more = scanned.stop - before.inbox_position == self._batch_entries
            hashes = dict.fromkeys(row[7] for row in scanned.entries)
            numbers = self._recorded_by.numbers(connection, hashes, to_us(self._clock.now()))
            arrivals = _arrivals(scanned, before.horizon_us, numbers)
            last_us = arrivals[-1].effective_at_us if arrivals else before.horizon_us
            until_us = last_us if more else max(last_us, to_us(self._receipts.now()))
            due = self._open.due(connection, until_us, self._batch_entries)
            if due.more:
                more = True
                arrivals = [a for a in arrivals if a.effective_at_us <= due.until.due_us]
            read_to = scanned.read_to(len(arrivals))
            namings = [] if more else self._names.pending(connection)
            if read_to == before.inbox_position and not due.rows and not namings:
                return 0, not more
            joiner = self._join(connection, before, arrivals, due)
            self._write(connection, joiner.take_rows())
            self._open.write(connection, due, sorted(joiner.due))
            self._release(connection, joiner, namings, until_us)
            self._pass_over(connection, scanned.damaged, before.inbox_position, read_to)
            sequenced_us = [before.horizon_us, *(a.effective_at_us for a in arrivals[-1:])]
            if joiner.last_due_us is not None:  # a record of that very moment would be late
                sequenced_us.append(joiner.last_due_us + 1)
            horizon_us = until_us if namings else max(sequenced_us)
            self._row.move(connection, before, _after(joiner, horizon_us, read_to))
            reached("sequence.before_commit")
        reached("sequence.after_commit")
        self._known.forget()
        return joiner.next_offset - before.next_offset, not more

    def _join(
        self,
        connection: Connection,
        before: SequencerState,
        arrivals: Sequence[Arrival],
        due: DueDeadlines,
    ) -> Joiner:
        self._known.load(connection, arrivals, due.rows, before.parked)
        by_number = self._rules.of(connection, {arrival.recorded_by for arrival in arrivals})
        joiner = Joiner(
            JoiningRules(self._rule, by_number),
            self._known.by_id,
            due.rows,
            before.next_position,
            before.next_offset,
            before.parked,
            before.expired,
        )
        joiner.fold(arrivals, due.until, self._names.of(connection, arrivals))
        return joiner

    def _release(
        self, connection: Connection, joiner: Joiner, namings: Sequence[Naming], now_us: int
    ) -> None:
        """Take the labels that were held back for classes that people have named since."""
        for naming in namings:
            held = self._names.apply(connection, naming, joiner.next_position)
            self._known.load(connection, [one.arrival for one in held], (), joiner.parked)
            for one in held:
                joiner.release(one, naming.becomes, now_us)
            self._write(connection, joiner.take_rows())

    def _pass_over(
        self, connection: Connection, damaged: Sequence[int], after: int, read_to: int
    ) -> None:
        """Write down the entries that are damaged before they were sequenced, and so are lost."""
        now_us, inbox = to_us(self._clock.now()), self._inbox.identity.inbox
        lost = [position for position in damaged if after < position <= read_to]
        rows = [(self._pipeline_id, inbox, position, now_us) for position in lost]
        insert_many(connection, tables.lost_entry, rows)
        if lost:
            _logger.error("%s: %s", self._name, lost_entries(self._inbox.path, lost))

    def _write(self, connection: Connection, joined: Joined) -> None:
        id_ = self._pipeline_id
        insert_many(connection, tables.prediction, prediction_rows(id_, joined.predictions))
        insert_many(connection, tables.label, label_rows(id_, joined.labels))
        insert_many(connection, tables.example, example_rows(id_, joined.examples))
        self._names.write(connection, joined.classes)


def _after(joiner: Joiner, horizon_us: int, read_to: int) -> SequencerState:
    return SequencerState(
        joiner.next_position,
        joiner.next_offset,
        horizon_us,
        joiner.parked,
        joiner.expired,
        read_to,
    )


def _arrivals(
    scanned: ScannedEntries, horizon_us: int, numbers: Mapping[int | None, int | None]
) -> list[Arrival]:
    """Return the entries with their effective times, which never fall, and declarations by number."""
    arrivals = []
    decode = STORED_LABEL.decode
    for (_, kind, id_, received_at_us, payload, _, _, hash_), crc in zip(
        scanned.entries, scanned.crcs, strict=True
    ):
        horizon_us = max(horizon_us, received_at_us)
        told = decode(payload) if kind == LABEL else None
        arrivals.append(Arrival(id_, horizon_us, told, payload, crc, numbers[hash_]))
    return arrivals
