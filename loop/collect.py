"""Collect: give examples their offsets, and write them to the archive."""

from contextlib import nullcontext

import msgspec

from headwater.features.log import FeatureLog
from headwater.features.sequence.sequencer import Sequencer
from headwater.spec.errors import BusyError

__all__ = ["CollectResult", "collect"]


class CollectResult(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a collect.

    Parameters
    ----------
    emitted
        Examples that got their offset.
    archived
        Examples that were written to the archive.
    stop
        The offset that the next example will have.
    """

    emitted: int
    archived: int
    stop: int


def collect(log: FeatureLog, sequencer: Sequencer | None = None) -> CollectResult:
    """Sequence the records that are due by the clock, then archive the examples.

    Parameters
    ----------
    log
        Whose records.
    sequencer
        The caller's open sequencer; if it is None, the call opens its own.

    Raises
    ------
    BusyError
        If another process collects.
    IdentityError
        If the archive belongs to another log, or a copy of the home went on with it; nothing is
        sequenced then.
    TableError, StorageError
        If the archive cannot be written; the examples keep their offsets.
    """
    log.archive_writer.check()  # before an offset is given
    try:
        with nullcontext(sequencer) if sequencer else log.sequencer() as opened:
            emitted = opened.drain()
            archived = log.collect()
    except BusyError:
        if log.pipeline.learn != "each label":
            raise
        emitted, archived = 0, log.collect()  # the service sequences
    return CollectResult(emitted=emitted, archived=archived, stop=log.stop())
