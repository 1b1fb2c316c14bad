"""Shadows: versions that predict every request beside the answer, in the keeper's process.

They read what was asked for from the log, and no worker knows of them: an answer cannot wait for a
shadow, and a shadow that is slow falls behind by itself.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import polars as pl

from headwater.features.checks import Checks
from headwater.features.shadows import ShadowPlace
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.spec.errors import HeadwaterError

__all__ = ["Shadowing"]

_BATCH = 500
_MOST_BEHIND = 200_000
_AGAIN = timedelta(minutes=1)
_ENCODER = msgspec.json.Encoder()

_logger = logging.getLogger("headwater.shadows")


class Shadowing:
    """Predicts with the shadows of one pipeline, as predictions are sequenced.

    A version begins with the predictions that are sequenced after it became a shadow: none of their
    labels can have been learned by any version that is registered by then.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._checks = Checks(bound.pipeline)
        self._learners: dict[str, Learner] = {}
        self._refused: dict[str, datetime] = {}
        self._told: set[str] = set()

    def step(self, versions: Sequence[str]) -> bool:
        """Let each version predict at most a few hundred requests.

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
        self._learners = {v: one for v, one in self._learners.items() if v in versions}
        if not versions:
            return False
        places, end = self._bound.log.shadows.places(), self._bound.log.positions()
        behind = False
        for version in versions:
            place = places.get(version) or self._bound.log.shadows.begin(version, end)
            if place.next < end and (learner := self._learner(version)) is not None:
                behind = self._predict(version, learner, place, end) < end or behind
        return behind

    def _learner(self, version: str) -> Learner | None:
        """Load a version once; one that cannot be loaded is tried again after a minute."""
        now = self._bound.clock.now()
        if version in self._learners or now - self._refused.get(version, now - _AGAIN) < _AGAIN:
            return self._learners.get(version)
        store = self._bound.registry.store
        try:
            self._learners[version] = store.learner(store.get(version), self._bound.pipeline.model)
        except HeadwaterError as error:
            self._refused[version] = now
            _logger.warning("%s: shadow %s is left out: %s", self._bound.pipeline.name, version, error)
        return self._learners.get(version)

    def _predict(self, version: str, learner: Learner, place: ShadowPlace, end: int) -> int:
        start = place.next
        if end - start > _MOST_BEHIND:
            skipped = end - _MOST_BEHIND
            _logger.warning("shadow %s skips the records from %d to %d", version, start, skipped)
            self._bound.log.shadows.add(version, start, skipped, [])
            start = skipped
        stop = min(end, start + _BATCH)
        rows = self._bound.log.served(start, stop, ("version", "role", "features"))
        rows = rows.filter(pl.col("role") != "imported", pl.col("version") != version)
        self._bound.log.shadows.add(version, start, stop, self._outputs(version, learner, rows))
        return stop

    def _outputs(self, version: str, learner: Learner, rows: pl.DataFrame) -> list[tuple[int, bytes]]:
        said = []
        for position, features in rows.select("position", "features").iter_rows():
            try:
                output = learner.predict_one(features)
                self._checks.output(str(position), output)
                said.append((position, _ENCODER.encode(output)))
            except Exception as error:  # noqa: BLE001 - whatever a model does, the others go on
                if version not in self._told:
                    _logger.warning("shadow %s fails on a prediction: %r", version, error)
                self._told.add(version)
        return said
