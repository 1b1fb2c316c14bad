"""Give recorded predictions and labels their offsets, and write them to the archive."""

from contextlib import nullcontext

import msgspec

from headwater.features.log import FeatureLog
from headwater.features.sequence.sequencer import Sequencer
from headwater.spec.errors import BusyError

__all__ = ["CollectResult", "collect"]


class CollectResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a collect did.

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
    """Sequence what is due by the clock, then archive what is sequenced.

    Parameters
    ----------
    log
        Whose records.
    sequencer
        An open one, where the caller holds it; one is opened for this call otherwise.

    Raises
    ------
    BusyError
        If another process collects.
    IdentityError
        If the archive belongs to another log, or a copy of the home went on with it; nothing is
        sequenced then.
    TableError, StorageError
        If the archive cannot be written; what is sequenced stays sequenced.
    """
    log.check_archive()  # before an offset is given
    try:
        with nullcontext(sequencer) if sequencer else log.sequencer() as opened:
            emitted = opened.drain()
            archived = log.collect()
    except BusyError:
        if log.pipeline.learn != "each label":
            raise
        emitted, archived = 0, log.collect()  # the service sequences
    return CollectResult(emitted=emitted, archived=archived, stop=log.stop())
