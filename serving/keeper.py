"""The keeper: follows who is champion, verifies it, and publishes it to the workers.

One process for a service. It alone needs MLflow and the operational database, so that workers are small
and answer on when either is away.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from headwater.infra.logs import log_as
from headwater.infra.processes import end_with_parent
from headwater.infra.settings import Settings, settings
from headwater.loop.binding import Bound
from headwater.registry.restore import restore
from headwater.serving.batch_watch import BatchWatch
from headwater.serving.key_store import KeyWatch
from headwater.serving.learning import EachLabel
from headwater.serving.live import Live, Probe, ServedState, ServingFile
from headwater.serving.routed import Routed
from headwater.spec.errors import HeadwaterError
from headwater.spec.loading import load_pipeline
from headwater.spec.records import FeatureValue

__all__ = ["Keeper", "looked_file", "main"]

_LOOK_S = 0.1
_PROBES = 8

_logger = logging.getLogger("headwater.keeper")


class Keeper:
    """Keeps what one pipeline serves up to date; with ``learn="each label"`` it learns, too.

    Used in a ``with`` block.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._live = Live(bound.pipeline, bound.settings)
        self._published = self._live.read()
        self._epoch: int | None = None
        self._served_epoch: int | None = None
        self._probe_rows: list[dict[str, FeatureValue]] = []
        self._champion: ServedState | None = None
        self._routed = Routed(bound, self._live)
        self._learning = EachLabel(bound) if bound.pipeline.learn == "each label" else None

    def __enter__(self) -> Self:
        if self._learning is not None:
            self._learning.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._learning is not None:
            self._learning.__exit__(*error)

    def step(self) -> bool:
        """Publish what is to serve, if it is not what was published last.

        Returns
        -------
        bool
            Whether something was done, so that there may be more to do.

        Raises
        ------
        DigestError, NotRebuildableError
            If the champion's state does not hold or cannot be loaded: what serves stays. Raised once
            a reign.
        StorageError
            If a store is away: what serves stays.
        FencedError, NonFiniteError, SchemaError
            If another process learns, or an example cannot be learned: what serves stays.
        """
        epoch = self._bound.registry.championship.epoch()
        changed = epoch is not None and epoch != self._epoch
        try:
            if changed:
                first, self._epoch = self._epoch is None, epoch  # a champion that fails is tried once
                self._follow(first=first)
            learned = self._learn()
        finally:
            published = self._route()  # whatever failed: what serves may be routed in another way
        return changed or learned or published

    def _follow(self, *, first: bool) -> None:
        """Publish the champion, or what was learned on from it already.

        A champion that somebody else made is caught up before it serves: what it has missed is learned,
        and becomes a version, which is the next to be followed.
        """
        registry = self._bound.registry
        champion = registry.champion()
        if champion is None:
            return
        kept = registry.store.kept(champion, again=True)
        learned_to, content = champion.examples.stop, (kept.state, kept.recipe, kept.proof)
        if self._learning is not None:
            self._learning.begin(champion)
            learned = self._learning.learned()
            if learned is not None and not first and not self._learning.made(champion):
                self._learning.checkpoint()
                return
            if learned is not None:
                learned_to, content = learned.learned_to, (learned.state, learned.recipe, learned.proof)
        self._probe_rows = self._newest_features()
        self._serve(champion.number, content, learned_to)
        told = {"pipeline": self._bound.pipeline.name, "version": champion.number, "epoch": self._epoch}
        _logger.info("%s: version %s serves", told["pipeline"], champion.number, extra={"told": told})

    def _learn(self) -> bool:
        learning = self._learning
        if learning is None or learning.parent is None:
            return False
        learned = learning.step()
        if learned is not None:
            content = (learned.state, learned.recipe, learned.proof)
            self._serve(learning.parent.number, content, learned.learned_to)
        if learning.due():
            learning.checkpoint()  # a new reign, which the next step follows
        return learned is not None

    def _serve(self, version: str, content: tuple[bytes, bytes, bytes], learned_to: int) -> None:
        """Let another state be the champion's, to be published at the end of the step."""
        learner = restore(*content, self._bound.settings.key())
        self._champion = ServedState(
            version=version,
            role="champion",
            name=self._live.put(*content),
            learned_to=learned_to,
            probes=tuple(Probe(row, learner.predict_one(row)) for row in self._probe_rows),
        )
        self._served_epoch = self._epoch

    def _route(self) -> bool:
        """Follow the routing; whatever fails of it, the champion serves."""
        if self._champion is None:
            return False
        try:
            self._routed.step(self._champion.version, self._probe_rows)
        except HeadwaterError as error:
            _logger.warning("%s: the routing stays: %s", self._bound.pipeline.name, error)
        return self._publish() or self._routed.unfinished

    def _publish(self) -> bool:
        """Write what is to serve, if that is not what was written last."""
        if self._champion is None or self._served_epoch is None:
            return False
        before = self._published
        number = 0 if before is None else before.number
        wanted = self._routed.complete(
            ServingFile(number=number, epoch=self._served_epoch, states=(self._champion,))
        )
        if wanted == before:
            return False
        self._published = replace(wanted, number=number + 1)
        self._live.publish(self._published)
        return True

    def _newest_features(self) -> list[dict[str, FeatureValue]]:
        log = self._bound.log
        stop = log.positions()
        served = log.served(max(0, stop - _PROBES), stop, ("features",))
        return list(served["features"].to_list())


def main(references: Sequence[str]) -> int:
    """Keep pipelines served until SIGTERM or SIGINT; the status is 0 then.

    Parameters
    ----------
    references
        Where they are declared.
    """
    log_as(settings(), logging.INFO)
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    end_with_parent()
    with ExitStack() as stack:
        bounds = [stack.enter_context(Bound(load_pipeline(one), settings())) for one in references]
        stack.enter_context(KeyWatch(settings()))
        stack.enter_context(BatchWatch(bounds))
        keepers = [stack.enter_context(Keeper(bound)) for bound in bounds]
        looked = False
        while not ended.is_set():
            busy = [keeper for keeper in keepers if _step(keeper)]
            if not looked:
                looked_file(settings()).write_text(str(os.getpid()))
                looked = True
            if not busy:
                ended.wait(_LOOK_S)
    return 0


def looked_file(where: Settings) -> Path:
    """Give the file that a keeper makes once it has looked at every champion."""
    folder = where.root / "live"
    folder.mkdir(exist_ok=True)
    return folder / "looked"


def _step(keeper: Keeper) -> bool:
    try:
        return keeper.step()
    except HeadwaterError as error:
        _logger.warning("what serves stays: %s", error)
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
