"""Alarms of the keeper: what went wrong and what to do, until it is well again.

The keeper writes them to ``live/PIPELINE/keeper.json``, with how far it has learned; workers tell of it
in ``GET /pipelines`` and ``GET /metrics``.
"""

import logging
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Literal

import msgspec

from headwater.features.identity.home_log import HomeLog
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.serving.metrics.counters import Cells
from headwater.spec.errors import HeadwaterError, IdentityError
from headwater.spec.rulings import Pause

__all__ = ["Alarm", "AlarmKind", "Alarms", "KeeperStatus", "KeeperStatusFile", "cells_of"]

AlarmKind = Literal["swap", "learning", "shadow", "stores"]
_KINDS: tuple[AlarmKind, ...] = ("swap", "learning", "shadow", "stores")
_logger = logging.getLogger("headwater.keeper")


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong.

    Parameters
    ----------
    kind
        ``"swap"``: a version could not take over. ``"learning"``: an example cannot be learned.
        ``"shadow"``: a shadow was dropped or fails. ``"stores"``: a store is away, or another service
        does the same work.
    what, hint
        What is wrong, and what to do.
    since
        Since when.
    version
        Of which version; None where of none.
    """

    kind: AlarmKind
    what: str
    hint: str
    since: datetime
    version: str | None = None


class KeeperStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper tells the workers beside what is to serve.

    Parameters
    ----------
    learns
        Whether it learns each label.
    learned_to, sequenced_to
        The offsets behind the last example learned, and sequenced; 0 where it does not learn.
    pause
        The pause of learning that is in force.
    alarms
        What is wrong now.
    raised
        How many alarms of each kind there ever were.
    """

    learns: bool = False
    learned_to: int = 0
    sequenced_to: int = 0
    pause: Pause | None = None
    alarms: tuple[Alarm, ...] = ()
    raised: dict[AlarmKind, int] = {}


class KeeperStatusFile:
    """The file by which a keeper tells the workers.

    Parameters
    ----------
    pipeline, settings
        The pipeline's name, and where the home folder is.
    """

    def __init__(self, pipeline: str, settings: Settings) -> None:
        self._home = HomeLog(pipeline, settings)
        self._path = settings.root / "live" / pipeline / "keeper.json"

    def read(self) -> KeeperStatus:
        """Give what was told last; nothing where nothing was, by another log's, or it cannot be read."""
        try:
            content = self._home.unwrap(self._path.read_bytes(), self._path)
            return msgspec.json.decode(content, type=KeeperStatus)
        except (OSError, msgspec.DecodeError, IdentityError):
            return KeeperStatus()

    def write(self, told: KeeperStatus) -> None:
        """Tell."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        draft.write_bytes(self._home.wrap(msgspec.json.encode(told)))
        draft.replace(self._path)


class Alarms:
    """The alarms of one pipeline: each is logged and counted when it is raised, and holds until cleared.

    Parameters
    ----------
    pipeline, clock
        The pipeline's name, and the time.
    before
        What an earlier keeper told: its counts go on, and a swap that failed is told of still.
    """

    def __init__(self, pipeline: str, clock: Clock, before: KeeperStatus) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._held: dict[tuple[AlarmKind, str | None], Alarm] = {
            (one.kind, one.version): one for one in before.alarms if one.kind == "swap"
        }
        self._raised = {kind: before.raised.get(kind, 0) for kind in _KINDS}

    @property
    def held(self) -> tuple[Alarm, ...]:
        """Those that hold."""
        return tuple(self._held.values())

    @property
    def raised(self) -> dict[AlarmKind, int]:
        """How many there ever were."""
        return dict(self._raised)

    def sound(self, kind: AlarmKind, error: HeadwaterError, version: str | None = None) -> None:
        """Raise an alarm; the same one again is told once."""
        there = self._held.get((kind, version))
        if there is not None and there.what == error.what:
            return
        since = self._clock.now()
        self._held[kind, version] = Alarm(
            kind=kind, what=error.what, hint=error.hint, since=since, version=version
        )
        self._raised[kind] += 1
        told = {"pipeline": self._pipeline, "alarm": kind, "version": version}
        said = "what serves stays" if kind in {"swap", "stores"} else kind
        _logger.warning("%s: %s: %s", self._pipeline, said, error, extra={"told": told})

    def clear(self, kind: AlarmKind, version: str | None = None) -> None:
        """Say that it is well again."""
        self._held.pop((kind, version), None)

    def keep(self, kind: AlarmKind, versions: Collection[str]) -> None:
        """Clear the alarms of a kind that are of a version, but of these."""
        for held, version in list(self._held):
            if held == kind and version is not None and version not in versions:
                self.clear(kind, version)


def cells_of(pipeline: str, told: KeeperStatus) -> Iterator[Cells]:
    """Give what a keeper tells as numbers for ``GET /metrics``."""
    held = [alarm.kind for alarm in told.alarms]
    for kind in _KINDS:
        yield Cells("headwater_alarms", (pipeline, kind), (float(held.count(kind)),), lives=True)
        count = float(told.raised.get(kind, 0))
        yield Cells("headwater_alarms_raised", (pipeline, kind), (count,), lives=True)
    if told.learns:
        paused, behind = float(told.pause is not None), float(told.sequenced_to - told.learned_to)
        yield Cells("headwater_learning_paused", (pipeline,), (paused,), lives=True)
        yield Cells("headwater_examples_unlearned", (pipeline,), (behind,), lives=True)
