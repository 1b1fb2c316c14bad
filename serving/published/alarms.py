"""Alarms of the keeper: each names a fault and the next step, and holds until the fault is gone.

The keeper writes the alarms to ``live/PIPELINE/keeper.json``, with the offset to which it has learned.
Workers show both in ``GET /pipelines`` and ``GET /metrics``.
"""

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from headwater.features.identity.home_log import HomeLog, OwnedFile
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.serving.metrics.counters import Cells
from headwater.spec.errors import HeadwaterError, IdentityError, StorageError
from headwater.spec.rulings import Pause

__all__ = [
    "Alarm",
    "AlarmKind",
    "Alarms",
    "KeeperStatus",
    "KeeperStatusFile",
    "WorkerAlarms",
    "cells_of",
]

AlarmKind = Literal[
    "swap",
    "learning",
    "shadow",
    "reward",
    "stores",
    "alias",
    "lag",
    "disk",
    "model",
    "damage",
    "clock",
    "declaration",
]
_KINDS: tuple[AlarmKind, ...] = (
    "swap",
    "learning",
    "shadow",
    "reward",
    "stores",
    "alias",
    "lag",
    "model",
    "damage",
)  # keeper's
_OF_WORKERS: tuple[AlarmKind, ...] = ("disk", "clock", "declaration")
_logger = logging.getLogger("headwater.keeper")


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that holds, of the keeper or of a worker.

    Parameters
    ----------
    kind
        ``"swap"``: a version could not take over. ``"learning"``: an example cannot be learned.
        ``"shadow"``: a shadow was dropped or fails. ``"reward"``: a bandit's rule makes no reward of
        some labels. ``"stores"``: a store is away, or another service does the same work. ``"alias"``:
        an alias moved in MLflow was refused. ``"lag"``: learning is behind for more than a
        minute. ``"disk"``: the disk refuses records; a worker raises it. ``"model"``: the process of an
        isolated version ended, or does not answer; a worker raises it, and the keeper does if a learned
        state fails its trial. ``"damage"``: records or files of a store are damaged. ``"clock"``: the
        machine's clock is ahead of what it can be; a worker raises it. ``"declaration"``: what the
        service declares and what the champion has learned are no pair: it answers by the champion's
        declaration, or by an earlier version; a worker raises it.
    what, hint
        The fault, and the next step.
    since
        When the alarm was raised.
    version
        Number of the version at fault; None if no version is.
    """

    kind: AlarmKind
    what: str
    hint: str
    since: datetime
    version: str | None = None


class KeeperStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The keeper's status, which it writes for the workers.

    Parameters
    ----------
    learns
        Whether it learns each label.
    learned_to, sequenced_to
        The offsets behind the last example learned, and sequenced; 0 if it does not learn.
    pause
        The pause of learning that is in force.
    alarms
        The alarms that hold.
    raised
        The number of alarms ever raised, by kind.
    expired
        The number of labels ever dropped because their prediction came after the wait.
    """

    learns: bool = False
    learned_to: int = 0
    sequenced_to: int = 0
    pause: Pause | None = None
    alarms: tuple[Alarm, ...] = ()
    raised: dict[AlarmKind, int] = {}
    expired: int = 0


class KeeperStatusFile(OwnedFile[KeeperStatus]):
    """The file that holds the keeper's status.

    Parameters
    ----------
    pipeline, settings
        The pipeline's name, and the address of the home folder.
    """

    def __init__(self, pipeline: str, settings: Settings) -> None:
        path = settings.root / "live" / pipeline / "keeper.json"
        super().__init__(path, KeeperStatus, "", HomeLog(pipeline, settings))

    def publish(self, value: KeeperStatus) -> None:
        """Replace the status; on a disk that takes no new file, write over the one that is there.

        So an alarm about a full disk is seen. A reader that meets half of it takes it for damaged, and
        reads again once it is whole.

        Raises
        ------
        OSError
            If the disk does not take that either.
        """
        try:
            super().publish(value)
        except OSError:
            with self.path.open("r+b") as file:
                file.write(self.encode(value))
                file.truncate()
            os.utime(self.path)

    def read(self) -> KeeperStatus:
        """Return the last status; an empty one if the file is missing, damaged or of another log."""
        try:
            return super().read() or KeeperStatus()
        except (StorageError, IdentityError):
            return KeeperStatus()


_KEPT = frozenset({"swap", "damage"})  # the next keeper needs a while to see them again


class Alarms:
    """The alarms of one pipeline; each is logged and counted when raised, and holds until cleared.

    Parameters
    ----------
    pipeline, clock
        The pipeline's name, and the time.
    before
        The status of an earlier keeper: its counts go on, and its alarms of swaps and damage hold.
    """

    def __init__(self, pipeline: str, clock: Clock, before: KeeperStatus) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._held: dict[tuple[AlarmKind, str | None], Alarm] = {
            (one.kind, one.version): one for one in before.alarms if one.kind in _KEPT
        }
        self._raised = {kind: before.raised.get(kind, 0) for kind in _KINDS}

    @property
    def held(self) -> tuple[Alarm, ...]:
        """The alarms that hold."""
        return tuple(self._held.values())

    @property
    def raised(self) -> dict[AlarmKind, int]:
        """The number of alarms ever raised, by kind."""
        return dict(self._raised)

    def sound(self, kind: AlarmKind, error: HeadwaterError, version: str | None = None) -> None:
        """Raise an alarm, unless the same alarm holds already."""
        sounding = self._held.get((kind, version))
        if sounding is not None and sounding.what == error.what:
            return
        since = self._clock.now()
        self._held[kind, version] = Alarm(
            kind=kind, what=error.what, hint=error.hint, since=since, version=version
        )
        self._raised[kind] += 1
        fields = {"pipeline": self._pipeline, "alarm": kind, "version": version}
        effect = "the serving version stays" if kind in {"swap", "stores"} else kind
        _logger.warning("%s: %s: %s", self._pipeline, effect, error, extra={"json_fields": fields})

    def clear(self, kind: AlarmKind, version: str | None = None) -> None:
        """Clear an alarm: its fault is gone."""
        self._held.pop((kind, version), None)

    def keep(self, kind: AlarmKind, versions: Collection[str]) -> None:
        """Clear the alarms of a kind of all versions but these."""
        for of_kind, version in list(self._held):
            if of_kind == kind and version is not None and version not in versions:
                self.clear(kind, version)


class WorkerAlarms:
    """The alarms of one pipeline in a worker, which hold while their faults are seen."""

    def __init__(self) -> None:
        self.held: tuple[Alarm, ...] = ()
        """The alarms that hold."""

    def note(self, faults: Mapping[AlarmKind, HeadwaterError | None], now: datetime) -> None:
        """Note which faults there are now, and none of the others."""
        since = {alarm.kind: alarm.since for alarm in self.held}
        self.held = tuple(
            Alarm(kind=kind, what=error.what, hint=error.hint, since=since.get(kind, now))
            for kind, error in faults.items()
            if error is not None
        )


def cells_of(pipeline: str, status: KeeperStatus) -> Iterator[Cells]:
    """Yield the numbers of a keeper's status for ``GET /metrics``; alarms of workers are not counted."""
    held = [alarm.kind for alarm in status.alarms]
    for kind in _OF_WORKERS:
        yield Cells("headwater_alarms", (pipeline, kind), (float(held.count(kind)),), lives=True)
    for kind in _KINDS:
        yield Cells("headwater_alarms", (pipeline, kind), (float(held.count(kind)),), lives=True)
        count = float(status.raised.get(kind, 0))
        yield Cells("headwater_alarms_raised", (pipeline, kind), (count,), lives=True)
    yield Cells("headwater_labels_expired", (pipeline,), (float(status.expired),), lives=True)
    if status.learns:
        paused, behind = float(status.pause is not None), float(status.sequenced_to - status.learned_to)
        yield Cells("headwater_learning_paused", (pipeline,), (paused,), lives=True)
        yield Cells("headwater_examples_unlearned", (pipeline,), (behind,), lives=True)
