"""Follow the row of the champion: a new champion is verified, caught up, and takes over."""

import logging
import time
from contextlib import suppress
from datetime import datetime, timedelta

from headwater.infra.tracing import SpanAttributes, past_span, span
from headwater.loop.binding import Bound
from headwater.loop.training.catch_up import CatchUp
from headwater.loop.training.checkpoint import SERVICE
from headwater.registry.version import Version
from headwater.serving.keeper.online_learning import LearnedState, OnlineLearning, working_on
from headwater.serving.keeper.served_champion import ServedChampion
from headwater.serving.published.alarms import Alarms
from headwater.serving.published.published_models import PublishedModels
from headwater.spec.answering import check_servable
from headwater.spec.errors import (
    BusyError,
    ChangedError,
    ConflictError,
    DigestError,
    FencedError,
    HeadwaterError,
    StorageError,
)
from headwater.spec.recipe import Recipe
from headwater.spec.rulings import Reign

__all__ = ["ChampionFollower"]

_PROBES = 8
_RETRY_AFTER = timedelta(seconds=10)

_logger = logging.getLogger("headwater.keeper")


class ChampionFollower:
    """Follow one pipeline's champion: verify it, catch it up if labels are learned, and let it serve.

    The keeper makes it, and calls :meth:`follow` and :meth:`learn` again and again.

    Parameters
    ----------
    bound, live
        The pipeline with its stores, and the folder of states for the workers.
    learning
        Learns each label; None if flows learn.
    alarms
        Raised for versions that cannot take over, and for examples that cannot be learned.
    served
        Number of the version that workers serve since an earlier keeper.

    Attributes
    ----------
    served
        The champion's state as it is to be published.
    epoch
        Of its reign; None before the first.
    """

    def __init__(
        self,
        bound: Bound,
        live: PublishedModels,
        learning: OnlineLearning | None,
        alarms: Alarms,
        served: str | None,
    ) -> None:
        self.served = ServedChampion(bound, live, served)
        self.epoch: int | None = None
        self._bound = bound
        self._learning = learning
        self._alarms = alarms
        self._span_fields: SpanAttributes = {"pipeline": bound.pipeline.name}
        self._seen: int | None = None
        self._retry_at: datetime | None = None
        self._catch_up: CatchUp | None = None

    def follow(self) -> bool:
        """Follow the champion if another reign began; return whether one did.

        Raises
        ------
        StorageError
            If a store is away: the keeper tries again in ten seconds, and the serving version stays.
        """
        if self._learning is not None and self._learning.read_rulings() and self._catch_up is not None:
            self._catch_up = self._new_catch_up(self._catch_up.reign)  # without what is quarantined now
        championship = self._bound.registry.championship
        waits = self._retry_at is not None and self._bound.clock.now() < self._retry_at
        if waits or championship.epoch() == self._seen:
            return False
        reign = championship.reign()
        if reign is None:
            return False
        self._catch_up = None
        try:
            with span("follow champion", {**self._span_fields, "epoch": reign.epoch}):
                self._begin_reign(reign)
        except StorageError:
            self._retry_at = self._bound.clock.now() + _RETRY_AFTER
            raise
        except HeadwaterError as error:
            self._refuse(reign, error)
            if isinstance(error, DigestError) and self._learning is None:  # its files may be put back
                self._retry_at = self._bound.clock.now() + _RETRY_AFTER
                return False  # others are refused once a reign
        self._seen, self._retry_at = reign.epoch, None
        return True

    def learn(self) -> bool:
        """Learn new examples, and let a new champion catch up; return whether anything was done.

        Raises
        ------
        FencedError, StorageError
            If another process learns, or a store is away: the serving version stays.
        """
        learning = self._learning
        if learning is None:
            _show(self._bound.registry.learning_stops.in_force(), self._alarms)
            return False
        began_ns = time.time_ns()
        learned, parent = learning.step(), learning.parent
        _show(learning.rests or learning.blocked or learning.jump, self._alarms)
        if learned is not None and parent is not None:
            past_span("learn", began_ns, {**self._span_fields, "learned_to": learned.learned_to})
            self.served.serve_learned(parent.number, learned, self._alarms)
        else:
            self.served.serve_unserved(self._alarms)
        if self._catch_up is None:
            if learning.due():
                with span("checkpoint", self._span_fields):
                    learning.checkpoint()  # a new reign, which the next step follows
            return learned is not None
        return self._continue_catch_up(self._catch_up, learning) or learned is not None

    def _begin_reign(self, reign: Reign) -> None:
        """Let a new champion serve; catch it up first if the service did not make it."""
        registry, learning = self._bound.registry, self._learning
        if self.served.state is not None and self.served.state.version == reign.version:
            self.epoch = reign.epoch
            if learning is not None:
                learning.keep(reign.epoch)
            return
        champion = registry.store.get(reign.version)
        artifacts = registry.store.verified_files(champion, again=True)
        check_servable(Recipe.from_json(artifacts.recipe), self._bound.pipeline, champion.number)
        if learning is not None and self._is_to_catch_up(learning, reign):
            with suppress(
                ChangedError
            ):  # it cannot be learned on: it serves as it is, and learning rests
                self._catch_up = self._new_catch_up(reign)
                return
        self._take_over(champion, reign)

    def _is_to_catch_up(self, learning: OnlineLearning, reign: Reign) -> bool:
        """Return whether a champion is caught up first: not the first one, and none in a pause."""
        if reign.by == SERVICE or self.served.number in {None, reign.version}:
            return False
        return learning.pause is None or reign.epoch <= learning.pause.epoch

    def _new_catch_up(self, reign: Reign) -> CatchUp:
        """Begin to catch a champion up; a version that reigned before passed the gate then."""
        registry = self._bound.registry
        reigned = any(
            earlier.version == reign.version
            for earlier in registry.championship.history()
            if earlier.epoch < reign.epoch
        )
        return CatchUp(self._bound, reign, registry.store.get(reign.version), gated=not reigned)

    def _continue_catch_up(self, catch_up: CatchUp, learning: OnlineLearning) -> bool:
        """Let a new champion learn the next part of the catch-up, and serve once it has caught up."""
        version, reign = catch_up.version, catch_up.reign
        try:
            stop = version.examples.stop
            with working_on(self._bound, stop):
                done = catch_up.advance(learning.limit(reign.epoch, stop))
            if not done:
                return True
            if catch_up.folding.learned:
                self._publish_child(catch_up)
            else:
                self._take_over(version, reign)
        except BusyError:
            return False  # the trainer that made it ends in a moment
        except (StorageError, FencedError):
            raise
        except ConflictError as error:
            _logger.info("%s: %s", self._bound.pipeline.name, error)
        except Exception as error:  # noqa: BLE001 - whatever a model does, the serving version stays
            self._refuse(reign, error)
        self._catch_up = None
        return True

    def _publish_child(self, catch_up: CatchUp) -> None:
        """Make a version of the state that caught up; the next step follows it, unless it is refused."""
        store = self._bound.registry.store
        serving = None if self.served.number is None else store.get(self.served.number)
        child = catch_up.publish(serving)
        if child.refused is not None:
            what = f"version {catch_up.version.number}, caught up as version {child.number}, was "
            hint = f"to let it serve as it is: headwater pause {child.pipeline}, then promote it"
            self._alarms.sound("swap", HeadwaterError(what + child.refused, hint))

    def _refuse(self, reign: Reign, error: Exception) -> None:
        """Sound the alarm; if labels are learned, make the serving version champion again."""
        registry = self._bound.registry
        error = _named(error, reign.version, self._bound.pipeline.name)
        self._alarms.sound("swap", error)
        if self._learning is None or self.served.number in {None, reign.version}:
            return
        try:
            reason = f"version {reign.version} failed: {error.what}"
            serving = registry.store.get(str(self.served.number))
            registry.put_back(serving, expected=reign, by=SERVICE, reason=reason)
        except ConflictError:
            return  # another came meanwhile, and is followed

    def _take_over(self, champion: Version, reign: Reign) -> None:
        """Let another champion serve, and learn on from it."""
        goes_on = reign.by == SERVICE and self.served.number in {champion.number, champion.parent}
        if self._learning is not None:
            self._learning.begin(champion, reign.epoch)
        artifacts = self._bound.registry.store.verified_files(champion)
        self.served.read_probes(Recipe.from_json(artifacts.recipe).features)
        stop = champion.examples.stop
        self.served.serve(
            champion.number, LearnedState(artifacts.state, artifacts.recipe, artifacts.proof, stop)
        )
        self.epoch = reign.epoch
        if not goes_on:  # else the version that failed to take over still fails
            self._alarms.clear("swap")
        fields = {**self._span_fields, "version": champion.number, "epoch": reign.epoch}
        _logger.info("%s: version %s serves", *list(fields.values())[:2], extra={"json_fields": fields})


def _named(error: Exception, version: str, pipeline: str) -> HeadwaterError:
    """Return what a version did wrong as an error of ours, with the way on."""
    if isinstance(error, HeadwaterError):
        return error
    what = f"version {version} fails: {type(error).__name__}: {error}"
    return HeadwaterError(what[:1_000], f"look at it, or roll back: headwater rollback {pipeline}")


def _show(stop: HeadwaterError | None, alarms: Alarms) -> None:
    """Raise an alarm while learning, live or by flows, stands at examples; clear it otherwise."""
    if stop is None:
        alarms.clear("learning")
    else:
        alarms.sound("learning", stop)
