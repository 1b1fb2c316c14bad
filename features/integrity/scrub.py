"""The scrub of a log's stores: look at each record and each file again and again, and find damage."""

from collections.abc import Callable, Sequence

import msgspec

from headwater.features.integrity.inbox_mending import mend_inbox, unmended
from headwater.features.integrity.mending import mend
from headwater.features.log import FeatureLog
from headwater.features.read.archive import Archived
from headwater.features.read.stored_rows import StoredRows
from headwater.infra.clock import to_us
from headwater.spec.errors import DamagedError, TableError, spans_of

__all__ = ["Scrub"]

_TABLES: tuple[Archived, ...] = ("predictions", "labels", "examples")
_ROWS = 2_500
_BYTES = 1_048_576


class _Round(msgspec.Struct):
    """A round over one store: when it began, how far it is, and what it found so far."""

    began_us: int = 0
    at: int = 0
    found: list[int | str] = []


_Look = tuple[Sequence[int | str], int, bool]
"""What a step found, where the next one begins, and whether the round is at its end."""


class Scrub:
    """The scrub of one log, which takes a part of each store a step, and begins again at its end.

    Rows of the database are mended from the inbox as they are found, and entries of the inbox from the
    database. A file of the archive is left: the database has what it holds.

    Parameters
    ----------
    log
        The log.
    rows
        How many records of each store a step looks at.
    round_s
        How many seconds a round takes at least, by steps: a short log is not looked at all the time.
    """

    def __init__(self, log: FeatureLog, rows: int = _ROWS, round_s: float = 0.0) -> None:
        self._log = log
        self._stored = StoredRows(log.database, log.pipeline_id, afresh=True)
        self._rows = rows
        self._round_us = round(round_s * 1_000_000)
        self._unknown = {"inbox", "positions", "examples", "archive"}
        self._looks: dict[str, Callable[[int], _Look]] = {
            "inbox": self._look_at_inbox,
            "positions": self._look_at_positions,
            "examples": self._look_at_examples,
            "archive": self._look_at_archive,
        }
        self._rounds = {name: _Round() for name in self._looks}
        self._last: dict[str, list[int | str]] = {name: [] for name in self._looks}
        self._files: list[tuple[Archived, str, int]] = []
        self._owed_bytes = 0

    def step(self) -> DamagedError | None:
        """Look at the next part of each store; return what this round and the last one found.

        Raises
        ------
        StorageError
            If a store is away, or cannot be read at all.
        """
        now_us = to_us(self._log.clock.now())
        for name, one in self._rounds.items():
            if one.at == 0:
                if 0 <= now_us - one.began_us < self._round_us:
                    continue
                one.began_us = now_us
            self._advance(name)
        return self._damage()

    @property
    def knows(self) -> bool:
        """Whether it has looked at all of it once, so that finding nothing means that all is whole."""
        return not self._unknown

    def whole(self) -> DamagedError | None:
        """Look at all of it once; return what is damaged.

        Raises
        ------
        StorageError
            As for :meth:`step`.
        """
        for name in self._looks:
            self._rounds[name], self._last[name] = _Round(), []
            while not self._advance(name):
                self._owed_bytes = 0
        return self._damage()

    def _advance(self, name: str) -> bool:
        one = self._rounds[name]
        found, one.at, at_end = self._looks[name](one.at)
        one.found.extend(found)
        if at_end:
            self._unknown.discard(name)
            self._last[name] = one.found
            self._rounds[name] = _Round(one.began_us)
        return at_end

    def _damage(self) -> DamagedError | None:
        found = {name: {*self._rounds[name].found, *self._last[name]} for name in self._looks}
        places = {name: sorted(int(one) for one in found[name]) for name in list(found)[:-1]}
        parts = [
            f"{where} {spans_of(places[name])}"
            for name, where in (
                ("inbox", f"the inbox {self._log.inbox.path} at the positions"),
                ("positions", "the database at the positions"),
                ("examples", "the database at the examples"),
            )
            if places[name]
        ]
        parts += sorted(str(what) for what in found["archive"])
        if not parts:
            return None
        return DamagedError(
            f"damaged: {'; '.join(parts)}",
            hint="headwater doctor --repair mends what has a whole copy; quarantine examples that have "
            "none, and check the disk",
            places=places["examples"],
        )

    def _look_at_inbox(self, at: int) -> _Look:
        log = self._log
        log.inbox.forget_pages()
        scanned = log.inbox.scan(at, self._rows)
        damaged = unmended(log.database, log.pipeline_id, log.inbox, scanned.damaged)
        if damaged:
            mended = mend_inbox(log.database, log.pipeline_id, log.inbox, damaged)
            damaged = [position for position in damaged if position not in mended]
        return damaged, scanned.stop, scanned.stop - at < self._rows

    def _look_at_positions(self, at: int) -> _Look:
        log = self._log
        end, _ = log.repository.ends()
        stop = min(at + self._rows, end)
        damaged = self._stored.damaged(at, stop)
        if damaged:
            mend(log.database, log.pipeline_id, log.inbox, damaged)
            damaged = self._stored.damaged(at, stop)
        return damaged, stop, stop >= end

    def _look_at_examples(self, at: int) -> _Look:
        log = self._log
        _, end = log.repository.ends()
        stop = min(at + self._rows, end)
        found = (*self._rounds["positions"].found, *self._last["positions"])
        positions = {int(position) for position in found}
        damaged = self._stored.damaged_links(at, stop, positions)
        left_out = log.quarantined(at, stop) if damaged else ()
        return [offset for offset in damaged if offset not in left_out], stop, stop >= end

    def _look_at_archive(self, at: int) -> _Look:
        """Look at one file of all the tables' files, which are listed when a round begins.

        A long file takes as many steps as it would in parts.
        """
        self._owed_bytes = max(0, self._owed_bytes - _BYTES)
        found: list[int | str] = []
        if self._owed_bytes:
            return found, at, False
        if at == 0:
            self._files.clear()
            for name in _TABLES:
                try:
                    sizes = self._log.archive[name].list_files()
                    self._files += [(name, path, size) for path, size in sizes.items()]
                except TableError as error:
                    found.append(error.what)
        if at < len(self._files):
            name, path, size_bytes = self._files[at]
            self._owed_bytes += size_bytes
            table = self._log.archive[name]
            if table.files is not None and table.files.damaged([path], again=True):
                found.append(f"the archive's file {table.address}/{path}")
        return found, at + 1, at + 1 >= len(self._files)
