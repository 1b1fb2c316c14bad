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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from headwater.infra.logs import log_as
from headwater.infra.processes import end_with_parent
from headwater.infra.settings import Settings, settings
from headwater.infra.tracing import begin_tracing, span
from headwater.loop.binding import Bound
from headwater.loop.training.catch_up import check_served
from headwater.serving.access.key_store import KeyWatch
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.champion_follower import ChampionFollower
from headwater.serving.keeper.online_learning import OnlineLearning
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.serving.keeper.routing_follower import RoutingFollower
from headwater.serving.keeper.table_publisher import TablePublisher
from headwater.serving.published.alarms import Alarms, KeeperStatus, KeeperStatusFile
from headwater.serving.published.published_batch import PublishedBatch
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.serving.published.published_tables import PublishedTables
from headwater.serving.published.refused import Refused, refused_file
from headwater.spec.errors import ChangedError, HeadwaterError, IdentityError, StorageError
from headwater.spec.loading import load_pipeline

__all__ = ["Keeper", "looked_file", "main"]

_logger = logging.getLogger("headwater.keeper")
_LOOK_S, _LEARN_S = 0.25, 0.1


class Keeper:
    """Keeps what one pipeline serves up to date; with ``learn="each label"`` it learns, too.

    Used in a ``with`` block.

    Parameters
    ----------
    bound
        The pipeline with its stores.

    Raises
    ------
    IdentityError
        If what is published in the home is another log's.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._live = PublishedModels(bound.pipeline, bound.settings)
        self._published = self._live.read()
        self._file = KeeperStatusFile(bound.pipeline.name, bound.settings)
        self._told = self._file.read()
        self._alarms = Alarms(bound.pipeline.name, bound.clock, self._told)
        self._learning = OnlineLearning(bound) if bound.pipeline.learn == "each label" else None
        served = None if self._published is None else self._published.states[0].version
        self._succession = ChampionFollower(bound, self._live, self._learning, self._alarms, served)
        self._routed = RoutingFollower(bound, self._live, self._alarms)

    def __enter__(self) -> Self:
        if self._learning is not None:
            self._learning.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._routed.close()
        if self._learning is not None:
            self._learning.__exit__(*error)

    def step(self) -> bool:
        """Follow the champion, learn what came, and publish what is to serve.

        Whatever fails of it, what serves stays, and an alarm tells what to do.

        Returns
        -------
        bool
            Whether something was done, so that there may be more to do.
        """
        parts = (self._succession.look, self._succession.learn, self._route)
        done, failure = [], None
        for part in parts:
            try:
                done.append(part())
            except HeadwaterError as error:
                failure = error
        if failure is None:
            self._alarms.clear("stores")
        else:
            self._alarms.sound("stores", failure)
        self._tell()
        return any(done)

    def _route(self) -> bool:
        """Follow the routing, and publish; whatever fails of the routing, the champion serves."""
        champion = self._succession.champion
        if champion is None:
            return False
        try:
            self._routed.step(champion.version, self._succession.probe_rows)
        finally:
            published = self._publish(champion)
        return published or self._routed.unfinished

    def _publish(self, champion: ServedState) -> bool:
        """Write what is to serve, if that is not what was written last."""
        before, epoch = self._published, self._succession.epoch
        if epoch is None:
            return False
        number = 0 if before is None else before.number
        wanted = self._routed.complete(ServingFile(number=number, epoch=epoch, states=(champion,)))
        if wanted == before:
            return False
        self._published = replace(wanted, number=number + 1)
        with span("publish", {"pipeline": self._bound.pipeline.name, "version": champion.version}):
            self._live.publish(self._published)
        return True

    def _tell(self) -> None:
        """Tell the workers how it stands, if that is not what they were told last."""
        learning = self._learning
        told = KeeperStatus(
            learns=learning is not None,
            learned_to=0 if learning is None else learning.learned_to,
            sequenced_to=0 if learning is None else learning.stop,
            pause=None if learning is None else learning.pause,
            alarms=self._alarms.held,
            raised=self._alarms.raised,
        )
        if told != self._told:
            self._file.write(told)
            self._told = told


def main(references: Sequence[str]) -> int:
    """Keep pipelines served until SIGTERM or SIGINT; the status is 0 then.

    Parameters
    ----------
    references
        Where they are declared.
    """
    log_as(settings(), logging.INFO)
    begin_tracing(settings(), "headwater-keeper")
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    end_with_parent()
    with ExitStack() as stack:
        bounds = [stack.enter_context(Bound(load_pipeline(one), settings())) for one in references]
        if refused := _refused(bounds):
            refused_file(settings()).write_bytes(msgspec.json.encode(refused))
            _logger.error("%s", refused.what)
            return 1
        stack.enter_context(KeyWatch(settings()))
        stack.enter_context(TablePublisher([bound.pipeline for bound in bounds], settings()))
        stack.enter_context(OperatorSocket([bound.pipeline for bound in bounds], settings()))
        stack.enter_context(BatchPublisher(bounds))
        keepers = [stack.enter_context(Keeper(bound)) for bound in bounds]
        learns = any(bound.pipeline.learn == "each label" for bound in bounds)
        wait_s = _LEARN_S if learns else _LOOK_S
        looked = False
        while not ended.is_set():
            busy = [keeper for keeper in keepers if keeper.step()]
            if not looked:
                looked_file(settings()).write_text(str(os.getpid()))
                looked = True
            if not busy:
                ended.wait(wait_s)
    return 0


def _check(bound: Bound) -> None:
    """Refuse stores and a live folder of another log, before anything is published.

    Raises
    ------
    IdentityError
        If there are such. What is damaged or away is left to whoever uses it.
    """
    bound.check()
    with suppress(StorageError):
        PublishedModels(bound.pipeline, bound.settings).read()
    with suppress(StorageError):
        PublishedTables(bound.pipeline, bound.settings).read()
    with suppress(StorageError):
        PublishedBatch(bound.pipeline.name, bound.settings).read()


def _refused(bounds: Sequence[Bound]) -> Refused | None:
    """Say why a service of these may not begin; a store that is away is no reason."""
    for bound in bounds:
        try:
            _check(bound)
            check_served(bound)
        except (ChangedError, IdentityError) as error:
            return Refused(what=error.what, hint=error.hint)
        except HeadwaterError as error:
            _logger.warning("%s: not checked: %s", bound.pipeline.name, error)
    return None


def looked_file(where: Settings) -> Path:
    """Give the file that a keeper makes once it has looked at every champion."""
    folder = where.root / "live"
    folder.mkdir(exist_ok=True)
    return folder / "looked"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
