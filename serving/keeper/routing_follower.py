"""What the routing in force adds to the champion: the keeper's part."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from headwater.loop.binding import Bound
from headwater.loop.operator.rewards import Rewards
from headwater.loop.operator.serve_best import serve_best
from headwater.registry.restore import restore
from headwater.serving.keeper.shadow_runner import ShadowRunner
from headwater.serving.published.alarms import Alarms
from headwater.serving.published.published_models import Probe, PublishedModels, ServedState, ServingFile
from headwater.spec.data.records import FeatureValue
from headwater.spec.errors import DeclarationError, HeadwaterError
from headwater.spec.pipeline import METRICS
from headwater.spec.serving.bandit import BanditState
from headwater.spec.serving.plan import Aliases, plan
from headwater.spec.serving.routing import Bandit, Routing, Shadow, check_routing

__all__ = ["RoutingFollower"]

_LOOK = timedelta(seconds=1)
_AGAIN = timedelta(minutes=1)

_logger = logging.getLogger("headwater.keeper")


class RoutingFollower:
    """Follows how requests of one pipeline are routed, and loads the versions that this needs.

    Made by the keeper, which calls :meth:`step` again and again and publishes :meth:`complete`.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    live
        Where states are kept.
    alarms
        Told of versions that are left out.
    """

    def __init__(self, bound: Bound, live: PublishedModels, alarms: Alarms) -> None:
        self._bound = bound
        self._live = live
        self._alarms = alarms
        self._shadowing = ShadowRunner(bound, alarms)
        self._rewards = Rewards(bound)
        self._ruling = -1
        self._routing: Routing = bound.pipeline.routing
        self._challenger: str | None = None
        self._bandit = BanditState()
        self._shadows: tuple[str, ...] = ()
        self._states: dict[str, ServedState] = {}
        self._looked_at: datetime | None = None
        self._refused: dict[str, datetime] = {}
        self._judged_at: datetime | None = None
        self.unfinished = False
        """Whether shadows have more to predict, or one was promoted."""

    def step(self, champion: str, rows: Sequence[dict[str, FeatureValue]]) -> None:
        """Look at the routing, load what it names, count rewards, and let shadows predict.

        Parameters
        ----------
        champion
            Number of the version that serves.
        rows
            Features that states are tried on.

        Raises
        ------
        HeadwaterError
            If a store is away, or another process does the same: what serves stays.
        """
        self.unfinished = False
        self._look()
        bandit = self._routing if isinstance(self._routing, Bandit) else None
        self._bandit = BanditState() if bandit is None else self._rewards.step(bandit.reward)
        aliases = Aliases(champion, self._challenger)
        its = plan(self._routing, aliases, self._bandit, pipeline=self._bound.pipeline.name)
        self._load([version for version in its.shares if version != champion], rows)
        self._shadows = its.shadows
        self.unfinished = self._shadowing.step(its.shadows)
        if isinstance(self._routing, Shadow) and self._routing.serve_best is not None:
            self._judge()

    def close(self) -> None:
        """End what predicts beside the answer."""
        self._shadowing.close()

    def complete(self, serving: ServingFile) -> ServingFile:
        """Add to what serves all that the routing asks for."""
        first = serving.states[0]
        others = [state for state in self._states.values() if state.version != first.version]
        return replace(
            serving,
            states=(first, *others),
            routing=self._routing,
            challenger=self._challenger,
            shadows=self._shadows,
            bandit=self._bandit,
        )

    def _look(self) -> None:
        """Read the routing where it was set anew, and the challenger where it is spoken of."""
        registry, now = self._bound.registry, self._bound.clock.now()
        newest = registry.routings.number()
        changed = newest != self._ruling
        if changed:
            self._routing, self._ruling = self._in_force(), newest
            self._refused.clear()
            self._shadowing.forgive()
        if "challenger" not in self._routing.named:
            self._challenger = None
        elif changed or self._looked_at is None or now - self._looked_at >= _LOOK:
            self._challenger, self._looked_at = registry.store.aliases().get("challenger"), now

    def _in_force(self) -> Routing:
        """Give the routing in force; the declared one where that does not fit the pipeline any more."""
        pipeline = self._bound.pipeline
        try:
            routing = self._bound.registry.routings.in_force(pipeline.routing)
            check_routing(routing, pipeline.task, METRICS[pipeline.task])
        except DeclarationError as error:
            _logger.warning("%s: routed as declared: %s", pipeline.name, error)
            return pipeline.routing
        return routing

    def _load(self, versions: Sequence[str], rows: Sequence[dict[str, FeatureValue]]) -> None:
        """Keep the states of versions that answer; one that cannot be loaded is tried again later."""
        now = self._bound.clock.now()
        self._states = {v: state for v, state in self._states.items() if v in versions}
        self._alarms.keep("swap", versions)
        for version in versions:
            if version in self._states or now - self._refused.get(version, now - _AGAIN) < _AGAIN:
                continue
            try:
                self._states[version] = self._state(version, rows)
                self._alarms.clear("swap", version)
            except HeadwaterError as error:
                self._refused[version] = now
                what = f"version {version} is left out: {error.what}"
                self._alarms.sound("swap", HeadwaterError(what, error.hint), version)

    def _state(self, number: str, rows: Sequence[dict[str, FeatureValue]]) -> ServedState:
        store = self._bound.registry.store
        version = store.get(number)
        kept = store.kept(version, again=True)
        learner = restore(kept.state, kept.recipe, kept.proof, self._bound.settings.key())
        return ServedState(
            version=number,
            role="challenger",
            name=self._live.put(kept.state, kept.recipe, kept.proof),
            learned_to=version.examples.stop,
            probes=tuple(Probe(row, learner.predict_one(row)) for row in rows),
        )

    def _judge(self) -> None:
        """Promote the best shadow, if it is good enough; looked at once a minute."""
        now = self._bound.clock.now()
        if self._judged_at is not None and now - self._judged_at < _AGAIN:
            return
        self._judged_at = now
        reign = serve_best(self._bound)
        if reign is not None:
            self.unfinished = True
            _logger.info("%s: %s", self._bound.pipeline.name, reign.reason)
