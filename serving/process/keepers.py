"""The keeper beside the workers, and one more for each pipeline whose learning harmed it.

A model learns in the keeper. If it ends the keeper, or does not come back, its pipeline gets a keeper of
its own, and the others go on in theirs.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from msgspec.structs import replace

from headwater.infra.processes import Child
from headwater.infra.settings import Settings
from headwater.serving.isolation.at_work import OVER, ModelWork, mapped, work_of
from headwater.serving.published.keeper_part import VARIABLE, KeeperPart
from headwater.serving.published.refused import check_not_refused, refused_file

__all__ = ["NOT_OF_A_MODEL", "Keepers"]

NOT_OF_A_MODEL = (0, None, -signal.SIGKILL, -signal.SIGTERM)
"""Statuses of a process that others end, too: they say nothing of the model that it worked on."""

_BEGIN_S = 300  # a machine that is busy takes minutes to import MLflow
_CHECKPOINT_S = 60.0
_BETWEEN_LOOKS_S = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_MOST_TIMES_LIMIT = 64.0
_LONGEST_STOP_S = 5.0
_logger = logging.getLogger("headwater.serving")


class _Watched:
    """One keeper: its process, and what it works on.

    Parameters
    ----------
    references
        References to the pipelines' declarations.
    part
        Its part of them.
    name, folder
        What to call it, and the folder of the file that tells of its work.
    where
        The settings.
    """

    def __init__(
        self, references: Sequence[str], part: KeeperPart, name: str, folder: Path, where: Settings
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._memory = mapped(folder / "keeper.work")
        self._variables = {**os.environ, "HEADWATER_HOME": str(where.root)}
        self.take(part)
        command = [sys.executable, "-m", "headwater.serving.keeper", *references]
        self.child = Child(name, command, self._variables, where.root / "logs" / f"{name}.log")
        self.times = 0
        self.due_s: float | None = None
        self._seen: ModelWork | None = None
        self._looked_s, self._still_s, self._stopped_s = 0.0, 0.0, 0.0

    def take(self, part: KeeperPart) -> None:
        """Take another part, with the next start."""
        self.part = part
        self._variables[VARIABLE] = msgspec.json.encode(part).decode()

    def look(self, now_s: float) -> tuple[ModelWork | None, str]:
        """Return what it is or was at work on, and how it fails; empty while it does not."""
        work, status = work_of(self._memory.value), self.child.status
        if status is not None:
            return (None if status in NOT_OF_A_MODEL else work), f"ended with status {status}"
        passed_s = min(now_s - self._looked_s, _BETWEEN_LOOKS_S)  # so counts a pause of the machine
        self._stopped_s = self._stopped_s + passed_s if self.child.is_stopped else 0.0
        if self._stopped_s > _LONGEST_STOP_S:
            self.child.end(0.0)  # so that it never goes on beside the next
            return None, "was stopped by a signal"
        if work is None or work != self._seen:
            self._seen, self._still_s = work, 0.0
        else:
            self._still_s += passed_s
        self._looked_s = now_s
        longer = min(2.0**self.times, _MOST_TIMES_LIMIT)  # long work ends some time
        if work is not None and self._still_s > work.limit_s * longer:
            return work, f"stood still for {self._still_s:.0f} s"
        return None, ""

    def start_again(self) -> None:
        """Start it again, with its part."""
        self.due_s = None
        self._memory[0], self._seen, self._stopped_s = OVER, None, 0.0
        self.child.start_again()


class Keepers:
    """The keepers of a service; :meth:`check` starts those again that end or stand still.

    Parameters
    ----------
    references
        References to the pipelines' declarations.
    where
        The settings.

    Raises
    ------
    ChangedError
        If the keeper refuses: a declaration differs from what is recorded or learned.
    ServerError
        If it does not begin.
    """

    def __init__(self, references: Sequence[str], where: Settings) -> None:
        self._references, self._where = references, where
        self._live = where.root / "live"
        for left in (self._live / "looked", refused_file(where)):
            left.unlink(missing_ok=True)
        self._main = _Watched(references, KeeperPart(), "keeper", self._live, where)
        self._apart: dict[str, _Watched] = {}
        # A worker loads the published versions before it takes requests: wait until there are some.
        self._main.child.await_answer(self._has_begun, _BEGIN_S)

    def check(self, now_s: float) -> None:
        """Start keepers again that ended or stand still, and set the pipeline apart that is at fault.

        Parameters
        ----------
        now_s
            Seconds on a clock that only rises.
        """
        work, how = self._main.look(now_s)
        if how:
            _logger.warning("the keeper %s: it starts again", how)
            if work is not None:
                self._set_apart(work, how)
            self._main.start_again()
        for name, watched in self._apart.items():
            self._check_apart(name, watched, now_s)

    def end(self) -> None:
        """End them; each stores what it has learned as a version before it ends."""
        children = [self._main.child, *(one.child for one in self._apart.values())]
        with ThreadPoolExecutor(len(children)) as pool:
            list(pool.map(lambda child: child.end(_CHECKPOINT_S), children))

    def _set_apart(self, work: ModelWork, how: str) -> None:
        """Give a pipeline a keeper of its own, and take it from the one of all."""
        name = work.pipeline
        part = KeeperPart(only=name, reason=_reason(work, how))
        _logger.warning("%s has a keeper of its own from now on: %s", name, part.reason)
        self._main.child.end(0.0)  # what it holds must be free before another takes it
        folder = self._live / name
        try:
            alone = _Watched(self._references, part, f"keeper-{name}", folder, self._where)
        except OSError as error:
            _logger.warning("%s stays with the others: %s", name, error)
            return
        self._apart[name] = alone
        self._main.take(replace(self._main.part, without=(*self._main.part.without, name)))

    def _check_apart(self, name: str, watched: _Watched, now_s: float) -> None:
        if watched.due_s is not None:
            if now_s >= watched.due_s:
                watched.start_again()
            return
        work, how = watched.look(now_s)
        if not how:
            return
        if work is not None:
            watched.take(replace(watched.part, reason=_reason(work, how)))
        watched.child.end(0.0)
        wait_s = min(_FIRST_WAIT_S * 2.0**watched.times, _LONGEST_WAIT_S)
        watched.times += 1
        watched.due_s = now_s + wait_s
        _logger.warning("the keeper of %s %s: it starts again in %.0f s", name, how, wait_s)

    def _has_begun(self) -> bool:
        """Return whether the keeper has begun; raise its refusal if it refuses."""
        check_not_refused(self._where)
        return (self._live / "looked").exists()


def _reason(work: ModelWork, how: str) -> str:
    return f"its keeper {how} while its model learned from offset {work.at} on"
