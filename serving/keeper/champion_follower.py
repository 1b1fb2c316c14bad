"""Who serves: the champion's row is followed, a new champion is caught up, and takes over."""

import logging
import time
from datetime import datetime, timedelta

from headwater.infra.tracing import SpanAttributes, past_span, span
from headwater.loop.binding import Bound
from headwater.loop.training.catch_up import CatchUp
from headwater.loop.training.checkpoint import SERVICE
from headwater.registry.restore import restore
from headwater.registry.version import Version
from headwater.serving.keeper.online_learning import LearnedState, OnlineLearning
from headwater.serving.published.alarms import Alarms
from headwater.serving.published.published_models import Probe, PublishedModels, ServedState
from headwater.spec.data.records import FeatureValue
from headwater.spec.declaration import check_answers
from headwater.spec.errors import (
    BusyError,
    ConflictError,
    FencedError,
    HeadwaterError,
    StorageError,
)
from headwater.spec.recipe import Recipe
from headwater.spec.rulings import Reign

__all__ = ["ChampionFollower"]

_PROBES = 8
_AGAIN = timedelta(seconds=10)

_logger = logging.getLogger("headwater.keeper")


class ChampionFollower:
    """Follows one pipeline's champion: verified, caught up where labels are learned, and put to serve.

    Made by the keeper, which calls :meth:`look` and :meth:`learn` again and again.

    Parameters
    ----------
    bound, live
        The pipeline with its stores, and where states are kept for the workers.
    learning
        Where each label is learned.
    alarms
        Told of what could not take over, or be learned.
    served
        Number of the version that workers have, from an earlier keeper.

    Attributes
    ----------
    champion, epoch
        The state that is to serve as champion, and its reign; None before the first.
    probe_rows
        Features that states are tried on.
    """

    def __init__(
        self,
        bound: Bound,
        live: PublishedModels,
        learning: OnlineLearning | None,
        alarms: Alarms,
        served: str | None,
    ) -> None:
        self.champion: ServedState | None = None
        self.epoch: int | None = None
        self.probe_rows: list[dict[str, FeatureValue]] = []
        self._bound = bound
        self._live = live
        self._learning = learning
        self._alarms = alarms
        self._served = served
        self._seen: int | None = None
        self._not_before: datetime | None = None
        self._catching: CatchUp | None = None

    def look(self) -> bool:
        """Follow the champion, if another reign began; say whether one did.

        Raises
        ------
        StorageError
            If a store is away: it is tried again after a while, and what serves stays.
        """
        if self._learning is not None and self._learning.look() and self._catching is not None:
            self._catching = self._begun(self._catching.reign)  # without what is quarantined now
        championship = self._bound.registry.championship
        if championship.epoch() == self._seen or self._is_early():
            return False
        reign = championship.reign()
        if reign is None:
            return False
        self._catching = None
        try:
            with span("follow champion", {**self._traced(), "epoch": reign.epoch}):
                self._follow(reign)
        except StorageError:
            self._not_before = self._bound.clock.now() + _AGAIN
            raise
        except HeadwaterError as error:
            self._refuse(reign, error)  # once a reign
        self._seen, self._not_before = reign.epoch, None
        return True

    def learn(self) -> bool:
        """Learn what came, and let a new champion catch up; say whether something was done.

        Raises
        ------
        FencedError, StorageError
            If another process learns, or a store is away: what serves stays.
        """
        learning = self._learning
        if learning is None:
            return False
        began_ns = time.time_ns()
        learned, parent = learning.step(), learning.parent
        if learning.blocked is not None:
            self._alarms.sound("learning", learning.blocked)
        else:
            self._alarms.clear("learning")
        if learned is not None and parent is not None:
            past_span("learn", began_ns, {**self._traced(), "learned_to": learned.learned_to})
            self._serve(parent.number, learned)
        if self._catching is None:
            if learning.due():
                with span("checkpoint", self._traced()):
                    learning.checkpoint()  # a new reign, which the next step follows
            return learned is not None
        return self._catch_up(self._catching, learning) or learned is not None

    def _follow(self, reign: Reign) -> None:
        """Let a new champion serve; one that somebody else made is caught up first, where it can be."""
        registry, learning = self._bound.registry, self._learning
        if self.champion is not None and self.champion.version == reign.version:
            self.epoch = reign.epoch
            if learning is not None:
                learning.keep(reign.epoch)
            return
        champion = registry.store.get(reign.version)
        kept = registry.store.kept(champion, again=True)
        check_answers(Recipe.from_json(kept.recipe), self._bound.pipeline, champion.number)
        if learning is not None and self._is_to_catch_up(learning, reign):
            self._catching = self._begun(reign)
        else:
            self._take_over(champion, reign)

    def _is_to_catch_up(self, learning: OnlineLearning, reign: Reign) -> bool:
        """Say whether it learns what it missed before it serves: not the first, nor in a pause."""
        if reign.by == SERVICE or self._served in {None, reign.version}:
            return False
        return learning.pause is None or reign.epoch <= learning.pause.epoch

    def _is_early(self) -> bool:
        return self._not_before is not None and self._bound.clock.now() < self._not_before

    def _begun(self, reign: Reign) -> CatchUp:
        """Begin to catch a champion up; one that reigned before passed its gate then."""
        registry = self._bound.registry
        reigned = any(
            one.version == reign.version
            for one in registry.championship.history()
            if one.epoch < reign.epoch
        )
        return CatchUp(self._bound, reign, registry.store.get(reign.version), gated=not reigned)

    def _catch_up(self, catching: CatchUp, learning: OnlineLearning) -> bool:
        """Let a new champion learn a part of what it missed; when it has all, let it serve."""
        version, reign = catching.version, catching.reign
        try:
            if not catching.advance(learning.limit(reign.epoch, version.examples.stop)):
                return True
            if catching.folding.learned:
                self._succeed(catching)
            else:
                self._take_over(version, reign)
        except BusyError:
            return False  # the trainer that made it ends in a moment
        except (StorageError, FencedError):
            raise
        except ConflictError as error:
            _logger.info("%s: %s", self._bound.pipeline.name, error)
        except Exception as error:  # noqa: BLE001 - whatever a model does, what serves stays
            self._refuse(reign, error)
        self._catching = None
        return True

    def _succeed(self, catching: CatchUp) -> None:
        """Make a version of what was caught up: it is followed next, unless the gate refuses it."""
        store = self._bound.registry.store
        serving = None if self._served is None else store.get(self._served)
        child = catching.publish(serving)
        if child.refused is not None:
            what = f"version {catching.version.number}, caught up as version {child.number}, was "
            hint = f"to let it serve as it is: headwater pause {child.pipeline}, then promote it"
            self._alarms.sound("swap", HeadwaterError(what + child.refused, hint))

    def _refuse(self, reign: Reign, error: Exception) -> None:
        """Sound the alarm; where labels are learned, make that champion again which serves."""
        name, registry = self._bound.pipeline.name, self._bound.registry
        if not isinstance(error, HeadwaterError):
            what = f"version {reign.version} fails: {type(error).__name__}: {error}"[:1_000]
            error = HeadwaterError(what, f"look at the model, or roll back: headwater rollback {name}")
        self._alarms.sound("swap", error)
        if self._learning is None or self._served in {None, reign.version}:
            return
        try:
            reason = f"version {reign.version} failed: {error.what}"
            serving = registry.store.get(str(self._served))
            registry.put_back(serving, expected=reign, by=SERVICE, reason=reason)
        except ConflictError:
            return  # another came meanwhile, and is followed

    def _take_over(self, champion: Version, reign: Reign) -> None:
        """Let another champion serve, and learn on from it."""
        goes_on = reign.by == SERVICE and self._served in {champion.number, champion.parent}
        if self._learning is not None:
            self._learning.begin(champion, reign.epoch)
        kept = self._bound.registry.store.kept(champion)
        self.probe_rows = self._newest_features()
        stop = champion.examples.stop
        self._serve(champion.number, LearnedState(kept.state, kept.recipe, kept.proof, stop))
        self.epoch = reign.epoch
        if not goes_on:  # else what could not take over still has not
            self._alarms.clear("swap")
        told = {
            "pipeline": self._bound.pipeline.name,
            "version": champion.number,
            "epoch": reign.epoch,
        }
        _logger.info("%s: version %s serves", told["pipeline"], champion.number, extra={"told": told})

    def _serve(self, version: str, learned: LearnedState) -> None:
        """Let another state be the champion's, to be published at the end of the step."""
        content = learned.state, learned.recipe, learned.proof
        learner = restore(*content, self._bound.settings.key())
        self.champion = ServedState(
            version=version,
            role="champion",
            name=self._live.put(*content),
            learned_to=learned.learned_to,
            probes=tuple(Probe(row, learner.predict_one(row)) for row in self.probe_rows),
        )
        self._served = version

    def _traced(self) -> SpanAttributes:
        return {"pipeline": self._bound.pipeline.name}

    def _newest_features(self) -> list[dict[str, FeatureValue]]:
        log = self._bound.log
        stop = log.positions()
        served = log.served(max(0, stop - _PROBES), stop, ("features",))
        return list(served["features"].to_list())
