"""The keeper: follows who is champion, verifies it, and publishes it to the workers.

One process for a service. It alone needs MLflow and the operational database, so that workers are small
and answer on when either is away.
"""

import logging
import signal
import sys
import threading
from collections.abc import Sequence

from headwater.infra.settings import settings
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.registry.restore import restore
from headwater.serving.live import Live, Probe, ServedState, ServingFile
from headwater.spec.errors import HeadwaterError
from headwater.spec.loading import load_pipeline

__all__ = ["Keeper", "main"]

_LOOK_S = 0.25
_PROBES = 8

_logger = logging.getLogger("headwater.keeper")


class Keeper:
    """Keeps what one pipeline serves up to date.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._live = Live(bound.pipeline, bound.settings)
        self._published: ServingFile | None = None
        self._refused_epoch: int | None = None

    def step(self) -> bool:
        """Publish the champion, if it is another than the one published last.

        Returns
        -------
        bool
            Whether something was published.

        Raises
        ------
        DigestError, NotRebuildableError
            If the champion's state does not hold or cannot be loaded: what serves stays. Raised once
            a reign.
        StorageError
            If a store is away: what serves stays.
        """
        epoch = self._bound.registry.championship.epoch()
        if epoch is None or epoch == self._refused_epoch:
            return False
        if self._published is None:
            self._published = self._live.read()
        if self._published is not None and self._published.epoch == epoch:
            return False
        try:
            self._publish(epoch)
        except HeadwaterError:
            self._refused_epoch = epoch
            raise
        return True

    def _publish(self, epoch: int) -> None:
        registry = self._bound.registry
        champion = registry.champion()
        if champion is None:
            return
        kept = registry.store.kept(champion, again=True)
        learner = restore(kept.state, kept.recipe, kept.proof, self._bound.settings.key())
        state = ServedState(
            version=champion.number,
            role="champion",
            name=self._live.put(kept.state, kept.recipe, kept.proof),
            learned_to=champion.examples.stop,
            probes=self._probes(learner),
        )
        number = 1 if self._published is None else self._published.number + 1
        self._published = ServingFile(number=number, epoch=epoch, states=(state,))
        self._live.publish(self._published)
        _logger.info("%s: version %s serves", self._bound.pipeline.name, champion.number)

    def _probes(self, learner: Learner) -> tuple[Probe, ...]:
        """Take the features of the newest predictions, and what the state answers here."""
        log = self._bound.log
        stop = log.positions()
        rows = log.served(max(0, stop - _PROBES), stop, ("features",))["features"].to_list()
        return tuple(Probe(features, learner.predict_one(features)) for features in rows)


def main(references: Sequence[str]) -> int:
    """Keep pipelines served until SIGTERM or SIGINT; the status is 0 then.

    Parameters
    ----------
    references
        Where they are declared.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    bounds = [Bound(load_pipeline(reference), settings()) for reference in references]
    keepers = [Keeper(bound) for bound in bounds]
    while not ended.is_set():
        for keeper in keepers:
            try:
                keeper.step()
            except HeadwaterError as error:
                _logger.warning("what serves stays: %s", error)
        ended.wait(_LOOK_S)
    for bound in bounds:
        bound.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
