"""Shadows: let versions predict every request beside the answer, in a process beside the keeper.

Shadows read the requests from the log, and no worker knows of them: an answer cannot wait for a shadow.
A slow shadow falls behind by itself. A shadow that hangs is dropped.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import polars as pl

from headwater.features.read.shadow_outputs import ShadowPlace
from headwater.loop.binding import Bound
from headwater.serving.isolation.model_process import (
    LoadCommand,
    LoadReply,
    ModelProcess,
    PredictCommand,
    PredictReply,
)
from headwater.serving.published.alarms import Alarms
from headwater.spec.data.records import FeatureValue
from headwater.spec.errors import HeadwaterError
from headwater.spec.outputs import misfit_of_output
from headwater.spec.pipeline import Task

__all__ = ["ShadowRunner"]

_BATCH = 500
_REPLY_S = 1.0
_MOST_BEHIND = 200_000
_RETRY_AFTER = timedelta(minutes=1)
_ENCODER = msgspec.json.Encoder()

_logger = logging.getLogger("headwater.shadows")


class _ShadowWork(NamedTuple):
    """The work of the process: a version to load, or the positions from `start` up to `stop`."""

    version: str
    start: int = 0
    stop: int = 0
    positions: tuple[int, ...] = ()


class ShadowRunner:
    """Predict with the shadows of one pipeline, as predictions are sequenced.

    A version begins with the predictions that are sequenced after it became a shadow: no version that
    was registered by then can have learned their labels.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    alarms
        Raised for shadows that fail, and for those that are dropped.
    """

    def __init__(self, bound: Bound, alarms: Alarms) -> None:
        self._bound = bound
        self._alarms = alarms
        self._process: ModelProcess | None = None
        self._starting = False
        self._work: _ShadowWork | None = None
        self._loaded: set[str] = set()
        self._turn = 0
        self._refused: dict[str, datetime] = {}
        self._dropped: set[str] = set()

    def step(self, versions: Sequence[str]) -> bool:
        """Store the reply of a shadow, and ask the next for at most a few hundred predictions.

        Parameters
        ----------
        versions
            Numbers of the shadows.

        Returns
        -------
        bool
            Whether any of them is still behind.

        Raises
        ------
        FencedError, StorageError
            If another process predicts with a version, or a store is away.
        """
        self._alarms.keep("shadow", versions)
        if not versions:
            self.close()
            return False
        if self._work is not None or self._starting:
            return self._take_reply()
        places, end = self._bound.log.shadows.places(), self._bound.log.positions()
        for version in versions:
            if version not in places:
                places[version] = self._bound.log.shadows.begin(version, end)
        due = [v for v in versions if places[v].next < end and self._may_try(v)]
        if not due:
            return False
        self._turn += 1
        version = due[self._turn % len(due)]
        if self._process is None:
            self._start()
        elif version not in self._loaded:
            self._load(version, versions)
        else:
            self._predict(version, places[version], end)
        return True

    def forgive(self) -> None:
        """Try dropped shadows again, since somebody set the routing anew."""
        self._dropped.clear()
        self._refused.clear()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
        self._process, self._work, self._starting = None, None, False
        self._loaded.clear()

    def _may_try(self, version: str) -> bool:
        """Return whether a version is to be tried; a refused version is tried again after a minute."""
        now = self._bound.clock.now()
        early = now - self._refused.get(version, now - _RETRY_AFTER) < _RETRY_AFTER
        return version not in self._dropped and not early

    def _start(self) -> None:
        serving = self._bound.pipeline.serving
        self._process = ModelProcess(self._bound.settings.root, serving.deadline_s, serving.memory_mb)
        self._starting = True

    def _load(self, version: str, versions: Sequence[str]) -> None:
        store, key = self._bound.registry.store, self._bound.settings.key()
        try:
            files = store.verified_files(store.get(version))
        except HeadwaterError as error:
            self._refuse(version, error)
            return
        self._loaded &= set(versions)
        kept = tuple(self._loaded)
        command = LoadCommand(version, files.state, files.recipe, files.proof, key, kept)
        self._send(_ShadowWork(version), command)

    def _predict(self, version: str, place: ShadowPlace, end: int) -> None:
        start = place.next
        if end - start > _MOST_BEHIND:
            skipped = end - _MOST_BEHIND
            _logger.warning("shadow %s skips the records from %d to %d", version, start, skipped)
            self._bound.log.shadows.add(version, start, skipped, [])
            start = skipped
        stop = min(end, start + _BATCH)
        served = self._bound.log.served(start, stop, ("version", "role", "features"))
        requests = served.filter(pl.col("role") != "imported", pl.col("version") != version)
        if not requests.height:
            self._bound.log.shadows.add(version, start, stop, [])
            return
        rows: list[dict[str, FeatureValue]] = requests["features"].to_list()
        positions = tuple(requests["position"].to_list())
        self._send(_ShadowWork(version, start, stop, positions), PredictCommand(version, rows, _REPLY_S))

    def _send(self, work: _ShadowWork, command: LoadCommand | PredictCommand) -> None:
        if self._process is None:
            return
        self._work = work
        try:
            self._process.ask(command)
        except OSError as error:
            self._process_ended(error)

    def _take_reply(self) -> bool:
        """Take the reply, if it is there; drop a shadow that does not reply in time."""
        if self._process is None:
            return False
        try:
            reply = self._process.answer()
        except TimeoutError:
            self._drop()
            return True
        except (EOFError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._process_ended(error)
            return True
        work = self._work
        if reply is not None:
            self._work, self._starting = None, False
            if work is not None:
                self._store_reply(work, reply)
        return True

    def _store_reply(self, work: _ShadowWork, reply: LoadReply | PredictReply) -> None:
        version = work.version
        if isinstance(reply, PredictReply):
            outputs, misfit = _valid_outputs(self._bound.pipeline.task, work, reply)
            done = len(reply.outputs)
            stop = work.stop if done == len(work.positions) else work.positions[done]
            self._bound.log.shadows.add(version, work.start, stop, outputs)
            if failure := next(iter(reply.failures.values()), misfit):
                what = f"shadow {version} fails on a prediction: {failure}"
                self._alarms.sound("shadow", HeadwaterError(what, "look at its model"), version)
        elif reply.failure:
            what = f"shadow {version} is left out: {reply.failure}"
            self._refuse(version, HeadwaterError(what))
        else:
            self._loaded.add(version)

    def _refuse(self, version: str, error: HeadwaterError) -> None:
        """Leave a version out for a minute."""
        self._refused[version] = self._bound.clock.now()
        self._alarms.sound("shadow", error, version)

    def _drop(self) -> None:
        """Drop the hanging shadow with its process, until somebody sets the routing anew."""
        work, name = self._work, self._bound.pipeline.name
        self.close()
        if work is None:
            what = "the process of the shadows does not start"
            self._alarms.sound("shadow", HeadwaterError(what, "look at the machine's load and memory"))
            return
        version, limit_s = work.version, self._bound.pipeline.serving.deadline_s
        self._dropped.add(version)
        self._alarms.sound(
            "shadow",
            HeadwaterError(
                f"shadow {version} was dropped: it took more than {limit_s:g} seconds for a prediction",
                f"headwater shadow drop {name} {version}; adding it again tries it again",
            ),
            version,
        )

    def _process_ended(self, error: Exception) -> None:
        """Leave a shadow out for a minute, since the process ended while it worked on it."""
        work = self._work
        self.close()
        if work is not None:
            what = f"the process of the shadows ended at shadow {work.version}: {error!r}"
            self._refuse(work.version, HeadwaterError(what, "it is tried again in a minute"))


def _valid_outputs(
    task: Task, work: _ShadowWork, reply: PredictReply
) -> tuple[list[tuple[int, bytes]], str | None]:
    """Return the outputs that are valid for the task, by position, and why another one is not."""
    outputs, misfit = [], None
    for position, output in zip(work.positions, reply.outputs, strict=False):
        if output is None:
            continue
        why = misfit_of_output(task, output)
        if why is None:
            outputs.append((position, _ENCODER.encode(output)))
        else:
            misfit = f"its output {why}"
    return outputs, misfit
