"""Shadows: versions that predict every request beside the answer, in a process beside the keeper's.

They read what was asked for from the log, and no worker knows of them: an answer cannot wait for a
shadow, and a shadow that is slow falls behind by itself. One that hangs is dropped.
"""

import logging
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import polars as pl

from headwater.features.read.shadow_outputs import ShadowPlace
from headwater.loop.binding import Bound
from headwater.serving.keeper.shadow_process import (
    LoadCommand,
    LoadReply,
    PredictCommand,
    PredictReply,
    ShadowProcess,
)
from headwater.serving.published.alarms import Alarms
from headwater.spec.data.records import FeatureValue, Output
from headwater.spec.errors import HeadwaterError
from headwater.spec.outputs import misfit_of_output

__all__ = ["ShadowRunner"]

LIMIT_S = 10.0
"""How long a shadow may take for one prediction."""

_BATCH = 500
_MOST_BEHIND = 200_000
_AGAIN = timedelta(minutes=1)
_ENCODER = msgspec.json.Encoder()

_logger = logging.getLogger("headwater.shadows")


class _Asked(NamedTuple):
    """What the process works on: a version to load, or the positions from `start` up to `stop`."""

    version: str
    start: int = 0
    stop: int = 0
    positions: tuple[int, ...] = ()


class ShadowRunner:
    """Predicts with the shadows of one pipeline, as predictions are sequenced.

    A version begins with the predictions that are sequenced after it became a shadow: none of their
    labels can have been learned by any version that is registered by then.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    alarms
        Told of shadows that fail, and of those that are dropped.
    """

    def __init__(self, bound: Bound, alarms: Alarms) -> None:
        self._bound = bound
        self._alarms = alarms
        self._process: ShadowProcess | None = None
        self._starting = False
        self._asked: _Asked | None = None
        self._loaded: set[str] = set()
        self._turn = 0
        self._refused: dict[str, datetime] = {}
        self._dropped: set[str] = set()

    def step(self, versions: Sequence[str]) -> bool:
        """Take what a shadow said, and ask the next for at most a few hundred predictions.

        Parameters
        ----------
        versions
            Numbers of the shadows.

        Returns
        -------
        bool
            Whether one of them is behind still.

        Raises
        ------
        FencedError, StorageError
            If another process predicts with a version, or a store is away.
        """
        self._alarms.keep("shadow", versions)
        if not versions:
            self.close()
            return False
        if self._asked is not None or self._starting:
            return self._take()
        places, end = self._bound.log.shadows.places(), self._bound.log.positions()
        for version in versions:
            if version not in places:
                places[version] = self._bound.log.shadows.begin(version, end)
        due = [v for v in versions if places[v].next < end and self._may(v)]
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
        """Try those again that were dropped: somebody set the routing anew."""
        self._dropped.clear()
        self._refused.clear()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
        self._process, self._asked, self._starting = None, None, False
        self._loaded.clear()

    def _may(self, version: str) -> bool:
        """Say whether a version is to be tried: one that was refused is again after a minute."""
        now = self._bound.clock.now()
        early = now - self._refused.get(version, now - _AGAIN) < _AGAIN
        return version not in self._dropped and not early

    def _start(self) -> None:
        home = str(self._bound.settings.root)
        self._process = ShadowProcess({**os.environ, "HEADWATER_HOME": home}, LIMIT_S)
        self._starting = True

    def _load(self, version: str, versions: Sequence[str]) -> None:
        store = self._bound.registry.store
        try:
            kept = store.kept(store.get(version))
        except HeadwaterError as error:
            self._refuse(version, error)
            return
        self._loaded &= set(versions)
        self._ask(
            _Asked(version),
            LoadCommand(version, kept.state, kept.recipe, kept.proof, tuple(self._loaded)),
        )

    def _predict(self, version: str, place: ShadowPlace, end: int) -> None:
        start = place.next
        if end - start > _MOST_BEHIND:
            skipped = end - _MOST_BEHIND
            _logger.warning("shadow %s skips the records from %d to %d", version, start, skipped)
            self._bound.log.shadows.add(version, start, skipped, [])
            start = skipped
        stop = min(end, start + _BATCH)
        served = self._bound.log.served(start, stop, ("version", "role", "features"))
        wanted = served.filter(pl.col("role") != "imported", pl.col("version") != version)
        if not wanted.height:
            self._bound.log.shadows.add(version, start, stop, [])
            return
        rows: list[dict[str, FeatureValue]] = wanted["features"].to_list()
        positions = tuple(wanted["position"].to_list())
        self._ask(_Asked(version, start, stop, positions), PredictCommand(version, rows))

    def _ask(self, asked: _Asked, what: LoadCommand | PredictCommand) -> None:
        if self._process is None:
            return
        self._asked = asked
        try:
            self._process.ask(what)
        except OSError as error:
            self._ended(error)

    def _take(self) -> bool:
        """Take the answer, if it is there; give up what does not answer in time."""
        if self._process is None:
            return False
        try:
            told = self._process.answer()
        except TimeoutError:
            self._drop()
            return True
        except (EOFError, OSError, msgspec.DecodeError) as error:
            self._ended(error)
            return True
        asked = self._asked
        if told is not None:
            self._asked, self._starting = None, False
            if asked is not None:
                self._heed(asked, told)
        return True

    def _heed(self, asked: _Asked, told: LoadReply | PredictReply) -> None:
        version = asked.version
        if isinstance(told, PredictReply):
            said = [
                (position, _ENCODER.encode(output))
                for position, output in zip(asked.positions, told.outputs, strict=False)
                if output is not None and self._fits(version, output)
            ]
            done = len(told.outputs)
            stop = asked.stop if done == len(asked.positions) else asked.positions[done]
            self._bound.log.shadows.add(version, asked.start, stop, said)
            if told.failure:
                what = f"shadow {version} fails on a prediction: {told.failure}"
                self._alarms.sound("shadow", HeadwaterError(what, "look at its model"), version)
        elif told.failure:
            what = f"shadow {version} is left out: {told.failure}"
            self._refuse(version, HeadwaterError(what))
        else:
            self._loaded.add(version)

    def _fits(self, version: str, output: Output) -> bool:
        """Say whether an output is one of the task; what is none is not kept, and sounds an alarm."""
        why = misfit_of_output(self._bound.pipeline.task, output)
        if why is not None:
            what = f"shadow {version} fails on a prediction: its output {why}"
            self._alarms.sound("shadow", HeadwaterError(what, "look at its model"), version)
        return why is None

    def _refuse(self, version: str, error: HeadwaterError) -> None:
        """Leave a version out for a minute."""
        self._refused[version] = self._bound.clock.now()
        self._alarms.sound("shadow", error, version)

    def _drop(self) -> None:
        """Drop the shadow that hangs, with its process, until somebody sets the routing anew."""
        asked, name = self._asked, self._bound.pipeline.name
        self.close()
        if asked is None:
            what = "the process of the shadows does not start"
            self._alarms.sound("shadow", HeadwaterError(what, "look at the machine's load and memory"))
            return
        version = asked.version
        self._dropped.add(version)
        self._alarms.sound(
            "shadow",
            HeadwaterError(
                f"shadow {version} was dropped: it took more than {LIMIT_S:g} seconds for a prediction",
                f"headwater shadow drop {name} {version}; adding it again tries it again",
            ),
            version,
        )

    def _ended(self, error: Exception) -> None:
        """Leave the shadow out for a minute with which the process ended."""
        asked = self._asked
        self.close()
        if asked is not None:
            what = f"the process of the shadows ended at shadow {asked.version}: {error!r}"
            self._refuse(asked.version, HeadwaterError(what, "it is tried again in a minute"))
