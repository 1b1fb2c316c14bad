"""Writing to the feature log: predictions and labels, which are checked and land in the inbox."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from headwater.features.record.declared import Declared
from headwater.features.record.encoder import RecordEncoder
from headwater.features.record.entries import Entry
from headwater.features.record.import_draft import ImportCounts, ImportDraft, drafting
from headwater.features.record.inbox import Inbox
from headwater.infra.clock import Clock, to_us
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import SchemaError
from headwater.spec.pipeline import Pipeline

__all__ = ["LogWriter"]

_AT_ONCE = 10_000


class LogWriter:
    """The log of one pipeline as whoever records sees it: what is written is durable, and kept once.

    Before the first record, task and features are compared with those of what was recorded before.

    Parameters
    ----------
    pipeline
        Whose log.
    inbox, declared
        Where records land, and the declaration in force.
    clock
        Gives the time of receipt.

    Attributes
    ----------
    recorder
        The encoder, for whoever makes entries and looks records up.
    """

    def __init__(self, pipeline: Pipeline, inbox: Inbox, declared: Declared, clock: Clock) -> None:
        self.pipeline = pipeline
        self.inbox = inbox
        self.declared = declared
        self.clock = clock
        self.recorder = RecordEncoder(pipeline, inbox, clock)

    def record(self, predictions: Sequence[Prediction]) -> int:
        """Log predictions with the features they used; durable when this returns.

        Parameters
        ----------
        predictions
            In the order in which they were served.

        Returns
        -------
        int
            How many were new; one that was recorded before with the same payload is not.

        Raises
        ------
        ChangedError
            If task or features are not those of what was recorded before; nothing is kept then.
        SchemaError
            If features or an output do not fit the pipeline; nothing is kept then.
        ConflictError
            If an id was recorded with another payload; nothing is kept then.
        StorageError
            If the disk refuses; nothing is kept then.
        """
        self._agree_to_record()
        now_us = self.recorder.now_us()
        make = self.recorder.prediction
        return self.inbox.append([make(p, now_us) for p in predictions], "record")

    def label(self, labels: Sequence[Label]) -> int:
        """Log labels; durable when this returns. A label may come before its prediction.

        Parameters
        ----------
        labels
            In the order in which they became known.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        SchemaError
            If a value does not fit the task; nothing is kept then.
        ConflictError
            If a key came before with another value; nothing is kept then.
        StorageError
            If the disk refuses; nothing is kept then.
        """
        self._agree_to_record()
        now_us = self.recorder.now_us()
        make = self.recorder.label
        return self.inbox.append([make(label, now_us) for label in labels], "label")

    def import_history(
        self,
        history: Iterable[tuple[Prediction, Label | None]],
        told: Callable[[], None] = lambda: None,
    ) -> int:
        """Log records of elsewhere; each counts as received at its own time.

        All of it is kept or none. Predictions and labels are put in the order of their times, so
        that the examples have the order that a log kept at the time would have given them. Nothing is
        held in memory but a few thousand records; who records meanwhile does not wait.

        Parameters
        ----------
        history
            The records, in any order.
        told
            Called many times a second while records are sorted; it may raise, to stop it.

        Returns
        -------
        int
            How many records were new.

        Raises
        ------
        SchemaError, ConflictError, StorageError
            As for :meth:`record` and :meth:`label`; SchemaError also if a time lies after the clock's
            present: deadlines would not fall due before then, for any record.
        BusyError
            If another process imports history of this pipeline.
        """
        self._agree_to_record()
        with self._drafted(history, told) as draft:
            draft.settle()
            return draft.publish()

    def preview_import(
        self,
        history: Iterable[tuple[Prediction, Label | None]],
        told: Callable[[], None] = lambda: None,
    ) -> ImportCounts:
        """Count the records that :meth:`import_history` would log, and log nothing.

        Raises
        ------
        ChangedError, SchemaError, ConflictError, StorageError, BusyError
            As for that.
        """
        self.declared.check_to_record()
        with self._drafted(history, told) as draft:
            return draft.settle()

    @contextmanager
    def _drafted(
        self, history: Iterable[tuple[Prediction, Label | None]], told: Callable[[], None]
    ) -> Iterator[ImportDraft]:
        now_us = self.recorder.now_us()
        with drafting(self.inbox, told) as draft:
            entries: list[Entry] = []
            for prediction, label in history:
                id_ = prediction.id
                served_us = _past(prediction.served_at, now_us, f"prediction {id_!r} was served")
                entries.append(self.recorder.prediction(prediction, served_us))
                if label is not None:
                    known_us = _past(label.known_at, now_us, f"the label of {id_!r} became known")
                    entries.append(self.recorder.label(label, known_us))
                if len(entries) >= _AT_ONCE:
                    draft.add(entries)
                    entries.clear()
            draft.add(entries)
            yield draft

    @contextmanager
    def one_sync(self) -> Iterator[None]:
        """Write all records and labels of the block in one synced transaction.

        It is durable when the block ends; an error within keeps none of it.
        """
        with self.inbox.one_sync():
            yield

    def _agree_to_record(self) -> None:
        if not self.declared.agreed:
            self.declared.agree()
        self.recorder.declare()


def _past(moment: datetime, now_us: int, event: str) -> int:
    """Return the microseconds of a moment of the past; refuse one of the future."""
    moment_us = to_us(moment)
    if moment_us > now_us:
        raise SchemaError(
            f"{event} at {moment:%Y-%m-%d %H:%M:%S%z}, which is after the present",
            hint="check the time's zone and unit; leave out what has not happened yet",
        )
    return moment_us
