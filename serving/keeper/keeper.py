"""The keeper: follow the champion, verify it, and publish it to the workers.

A service has one keeper process. It alone needs MLflow and the operational database, so that workers are
small, and go on answering while either is away.
"""

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path
from typing import Self

import msgspec

from headwater.features.integrity.scrub import Scrub
from headwater.infra.logs import log_as
from headwater.infra.processes import end_with_parent
from headwater.infra.settings import Settings, settings
from headwater.infra.store.database import Database, is_damage
from headwater.infra.store.published_file import replacing
from headwater.infra.tracing import begin_tracing
from headwater.loop.binding import Bound
from headwater.loop.training.catch_up import check_served
from headwater.serving.access.key_store import KeyWatch
from headwater.serving.isolation.at_work import mapped, share
from headwater.serving.keeper.alias_follower import AliasFollower
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.champion_follower import ChampionFollower
from headwater.serving.keeper.online_learning import OnlineLearning
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.serving.keeper.queue_filler import QueueFiller
from headwater.serving.keeper.routing_follower import RoutingFollower
from headwater.serving.keeper.table_publisher import TablePublisher
from headwater.serving.published.alarms import Alarms, KeeperStatus, KeeperStatusFile
from headwater.serving.published.keeper_part import part_of_this_keeper
from headwater.serving.published.published_batch import PublishedBatch
from headwater.serving.published.published_models import PublishedModels, ServingFile
from headwater.serving.published.published_tables import PublishedTables
from headwater.serving.published.refused import Refused, refused_file
from headwater.serving.published.repeating import Repeating
from headwater.serving.published.serving_publisher import ServingPublisher
from headwater.spec.errors import ChangedError, DigestError, HeadwaterError, IdentityError, StorageError
from headwater.spec.loading import load_pipeline
from headwater.spec.pipeline import Pipeline

__all__ = ["Keeper", "looked_file", "main"]

_logger = logging.getLogger("headwater.keeper")
_LOOK_S, _LEARN_S, _ALL_S = 0.25, 0.1, 5.0
_SCRUB_S, _SCRUB_ROUND_S, _SCRUB_SHARE = 0.25, 5.0, 0.05
_BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's patience with a server that is away: the keeper tries again by itself, for all pipelines."""

_LOOK_AT_EXAMPLES = (
    "look at the model and at the examples there, or quarantine them; it is tried again by itself"
)


class Keeper:
    """Keep the served versions of one pipeline up to date; with ``learn="each label"``, learn as well.

    It is used in a ``with`` block.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    alone
        Why it has a keeper of its own, which is an alarm until it learns again; empty if it has not.

    Attributes
    ----------
    name, aliases
        Of the pipeline, and what follows its aliases.

    Raises
    ------
    IdentityError
        If the files published in the home belong to another log.
    """

    def __init__(self, bound: Bound, alone: str = "") -> None:
        self._bound = bound
        self._live = PublishedModels(bound.pipeline, bound.settings)
        self._publisher = ServingPublisher(self._live, bound.pipeline.name)
        self._file = KeeperStatusFile(bound.pipeline.name, bound.settings)
        self._status = self._file.read()
        self._expired = self._status.expired
        self._alarms = Alarms(bound.pipeline.name, bound.clock, self._status)
        self._learning = OnlineLearning(bound) if bound.pipeline.learn == "each label" else None
        served = self._publisher.version
        self._follower = ChampionFollower(bound, self._live, self._learning, self._alarms, served)
        self._routing = RoutingFollower(bound, self._live, self._alarms)
        self._scrub = Scrub(bound.log, round_s=_SCRUB_ROUND_S)
        self.name = bound.pipeline.name
        self.aliases = AliasFollower(bound.registry, bound.clock, self._alarms)
        if alone:
            self._alarms.sound("learning", HeadwaterError(alone, _LOOK_AT_EXAMPLES))
            self._write_status()  # before it learns, which may not come back

    def __enter__(self) -> Self:
        if self._learning is not None:
            self._learning.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._routing.close()
        if self._learning is not None:
            self._learning.__exit__(*error)

    @property
    def follows_records(self) -> bool:
        """Whether it follows what is recorded, and not only what is decided."""
        return self._learning is not None or self._routing.adds_versions

    def step(self) -> bool:
        """Follow the champion, learn new examples, and publish what is to serve.

        If a part fails, the serving version stays, and an alarm names the next step.

        Returns
        -------
        bool
            Whether anything was done, so that there may be more to do.
        """
        parts = (
            self.aliases.step,
            self._follower.follow,
            self._follower.learn,
            self._route,
            self._count,
            self._show_lag,
        )
        done, failure = [], None
        for part in parts:
            try:
                done.append(part())
            except HeadwaterError as error:
                failure = error
            except OSError as error:
                failure = _disk_refuses(error)
        if failure is None:
            self._alarms.clear("stores")
        else:
            self._alarms.sound("stores", failure)
        self._write_status()
        return any(done)

    def scrub(self) -> None:
        """Look for damage in a part of each store; an alarm names what is found and cannot be mended.

        It holds until all was looked at again, and was whole.
        """
        damage: HeadwaterError | None
        try:
            damage = self._scrub.step()
        except StorageError as error:
            if not is_damage(error):
                return  # away: nothing is known
            damage = error
        if damage is not None:
            self._alarms.sound("damage", damage)
        elif self._scrub.knows:
            self._alarms.clear("damage")
        self._write_status()

    def _route(self) -> bool:
        """Follow the routing, and publish; if the routing fails, the champion still serves."""
        champion, epoch = self._follower.served.state, self._follower.epoch
        if champion is None or epoch is None:
            return False
        try:
            self._routing.step(champion.version, self._follower.served.probe_rows)
        finally:
            recorded = self._bound.log.declared.stored.recorded
            serving = ServingFile(number=0, epoch=epoch, states=(champion,), recorded=recorded)
            published = self._publisher.publish(self._routing.complete(serving))
        return published or self._routing.unfinished

    def _count(self) -> bool:
        """Count the labels that expired; nothing is to be done about them."""
        self._expired = self._bound.log.repository.expired()
        return False

    def _show_lag(self) -> bool:
        """Raise an alarm while learning is behind; nothing is to be done about it here."""
        lag = None if self._learning is None else self._learning.lag()
        if lag is None:
            self._alarms.clear("lag")
        else:
            self._alarms.sound("lag", lag)
        return False

    def _write_status(self) -> None:
        """Write the status file for the workers, if the status changed."""
        learning = self._learning
        status = KeeperStatus(
            learns=learning is not None,
            learned_to=0 if learning is None else learning.learned_to,
            sequenced_to=0 if learning is None else learning.stop,
            pause=None if learning is None else learning.pause,
            alarms=self._alarms.held,
            raised=self._alarms.raised,
            expired=self._expired,
        )
        if status == self._status:
            return
        try:
            self._file.publish(status)
        except OSError as error:  # it is written with the next step; workers see a full disk, too
            _logger.warning("%s: its status is not shown: %s", self.name, error)
            return
        self._status = status


def main(references: Sequence[str]) -> int:
    """Run the keeper of a service until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    references
        References to the pipelines' declarations.
    """
    log_as(settings(), logging.INFO)
    begin_tracing(settings(), "headwater-keeper")
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    end_with_parent()
    for name, value in _BRIEF.items():
        os.environ.setdefault(name, value)
    part, pipelines = part_of_this_keeper(), [load_pipeline(reference) for reference in references]
    share(mapped(settings().root / "live" / part.only / "keeper.work"))
    if part.only:
        return _keep_alone(next(one for one in pipelines if one.name == part.only), part.reason, ended)
    with ExitStack() as stack:
        bounds = [stack.enter_context(Bound(one, settings())) for one in pipelines]
        if refusal := _reason_to_refuse(bounds):
            with replacing(refused_file(settings())) as draft:  # the process that waits reads all of it
                draft.write_bytes(msgspec.json.encode(refusal))
            _logger.error("%s", refusal.what)
            return 1
        stack.enter_context(KeyWatch(settings()))
        stack.enter_context(TablePublisher([bound.pipeline for bound in bounds], settings()))
        stack.enter_context(OperatorSocket([bound.pipeline for bound in bounds], settings()))
        stack.enter_context(BatchPublisher(bounds))
        stack.enter_context(QueueFiller(bounds))
        kept = [bound for bound in bounds if bound.pipeline.name not in part.without]
        keepers = [stack.enter_context(Keeper(bound)) for bound in kept]
        stack.enter_context(_look_at_aliases(keepers))
        learns = any(bound.pipeline.learn == "each label" for bound in kept)
        due, looked, scrubbing = _Due(bounds[0].database), False, _Scrubbing(keepers)
        while not ended.is_set():
            everyone = due.now()
            busy = [one for one in keepers if (everyone or one.follows_records) and one.step()]
            scrubbing.take_turn()
            if not looked:
                looked_file(settings()).write_text(str(os.getpid()))
                looked = True
            if not busy:
                ended.wait(_LEARN_S if learns else _LOOK_S)
    return 0


def _disk_refuses(error: OSError) -> StorageError:
    at = "" if error.filename is None else f" {error.filename}"
    return StorageError(
        f"the disk refuses{at}: {error.strerror or error}",
        hint="make room on the disk of the home, or check its rights; the keeper tries again by itself",
    )


class _Due:
    """Whether all keepers are to look: once anything was committed, and every few seconds.

    A hundred pipelines of which nothing is asked cost a keeper nothing then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mark, self._all_s = "", -math.inf

    def now(self) -> bool:
        try:
            mark = self._database.mark()
        except StorageError:
            return True  # their looks say it
        now_s = time.monotonic()
        if mark == self._mark and now_s - self._all_s < _ALL_S:
            return False
        self._mark, self._all_s = mark, now_s
        return True


class _Scrubbing:
    """The turns of pipelines at the scrub: four a second, however many there are, and 5 % of a core."""

    def __init__(self, keepers: Sequence[Keeper]) -> None:
        self._keepers = cycle(keepers)
        self._any = bool(keepers)
        self._due_s = -math.inf

    def take_turn(self) -> None:
        if self._any and time.monotonic() >= self._due_s:
            began_s = time.thread_time()
            next(self._keepers).scrub()
            took_s = time.thread_time() - began_s
            self._due_s = time.monotonic() + max(_SCRUB_S, took_s / _SCRUB_SHARE - took_s)


def _look_at_aliases(keepers: Sequence[Keeper]) -> Repeating:
    """Look at the aliases of all pipelines from a thread: MLflow's server may be silent."""
    looks = {}
    for one in keepers:
        one.aliases.in_thread = True
        looks[f"{one.name}: its alias is not followed now"] = one.aliases.look
    return Repeating("aliases", _LOOK_S, looks, _logger)


def _keep_alone(pipeline: Pipeline, reason: str, ended: threading.Event) -> int:
    """Keep one pipeline whose learning harmed the keeper of all."""
    with Bound(pipeline, settings()) as bound, Keeper(bound, reason) as keeper:
        scrubbing = _Scrubbing([keeper])
        while not ended.is_set():
            scrubbing.take_turn()
            if not keeper.step():
                ended.wait(_LEARN_S)
    return 0


def _check(bound: Bound) -> None:
    """Refuse stores and a live folder of another log, before anything is published.

    Raises
    ------
    IdentityError
        If there are such. A store that is damaged or away is no reason to refuse here.
    """
    bound.check()
    with suppress(StorageError, DigestError):
        PublishedModels(bound.pipeline, bound.settings).read()
    with suppress(StorageError):
        PublishedTables(bound.pipeline, bound.settings).read()
    with suppress(StorageError):
        PublishedBatch(bound.pipeline.name, bound.settings).read()


def _reason_to_refuse(bounds: Sequence[Bound]) -> Refused | None:
    """Return why a service of these pipelines must not begin; a store that is away is no reason."""
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
    """Return the file that the keeper makes once it has followed every champion."""
    folder = where.root / "live"
    folder.mkdir(exist_ok=True)
    return folder / "looked"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
