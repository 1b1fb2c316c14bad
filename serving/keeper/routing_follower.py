"""Follow the routing in force: load the versions that it adds to the champion."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from headwater.loop.binding import Bound
from headwater.loop.operator.rewards import Rewards
from headwater.loop.operator.serve_best import serve_best
from headwater.serving.keeper.shadow_runner import ShadowRunner
from headwater.serving.keeper.trials import try_state
from headwater.serving.published.alarms import Alarms
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.spec.data.records import FeatureValue
from headwater.spec.errors import DeclarationError, HeadwaterError, SchemaError
from headwater.spec.pipeline import METRICS
from headwater.spec.recipe import Recipe
from headwater.spec.serving.bandit import BanditState
from headwater.spec.serving.plan import Aliases, plan
from headwater.spec.serving.routing import Bandit, ChampionOnly, Routing, Shadow, check_routing

__all__ = ["RoutingFollower"]

_CHALLENGER_EVERY = timedelta(seconds=1)
_RETRY_AFTER = timedelta(minutes=1)
_OTHER_REWARD = (
    "they are left out, and the bandit goes by the others: route by a reward that fits, which begins to "
    'count anew; for numbers, Bandit(reward="error", scale=...)'
)

_logger = logging.getLogger("headwater.keeper")


class RoutingFollower:
    """Follow the routing of one pipeline, and load the versions that it names.

    The keeper makes it, calls :meth:`step` again and again, and publishes :meth:`complete`.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    live
        The folder of states for the workers.
    alarms
        Raised for versions that are left out.
    """

    def __init__(self, bound: Bound, live: PublishedModels, alarms: Alarms) -> None:
        self._bound = bound
        self._live = live
        self._alarms = alarms
        self._shadow_runner = ShadowRunner(bound, alarms)
        self._rewards = Rewards(bound)
        self._ruling = -1
        self._routing: Routing = bound.pipeline.routing
        self._challenger: str | None = None
        self._bandit = BanditState()
        self._shadows: tuple[str, ...] = ()
        self._states: dict[str, ServedState] = {}
        self._challenger_read_at: datetime | None = None
        self._refused: dict[str, datetime] = {}
        self._judged_at: datetime | None = None
        self.unfinished = False
        """Whether shadows have more to predict, or one was promoted."""

    def step(self, champion: str, rows: Sequence[dict[str, FeatureValue]]) -> None:
        """Read the routing, load the versions it names, count rewards, and let shadows predict.

        Parameters
        ----------
        champion
            Number of the version that serves.
        rows
            Features on which states are tried.

        Raises
        ------
        HeadwaterError
            If a store is away, or another process does the same: the serving version stays.
        """
        self.unfinished = False
        self._read_routing()
        self._count_rewards(self._routing if isinstance(self._routing, Bandit) else None)
        aliases = Aliases(champion, self._challenger)
        routing_plan = plan(self._routing, aliases, self._bandit, pipeline=self._bound.pipeline.name)
        self._load([version for version in routing_plan.shares if version != champion], rows)
        self._shadows = routing_plan.shadows
        self.unfinished = self._shadow_runner.step(routing_plan.shadows)
        if isinstance(self._routing, Shadow) and self._routing.serve_best is not None:
            self._promote_best_shadow()

    def close(self) -> None:
        """End the process of the shadows."""
        self._shadow_runner.close()

    @property
    def adds_versions(self) -> bool:
        """Whether the routing adds versions to the champion, which move as records come."""
        return not isinstance(self._routing, ChampionOnly)

    def complete(self, serving: ServingFile) -> ServingFile:
        """Return what is to serve, with all that the routing adds to the champion."""
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

    def _count_rewards(self, bandit: Bandit | None) -> None:
        """Count rewards; an alarm holds while there are labels that the rule makes no reward of."""
        self._bandit = BanditState()
        if bandit is not None:
            self._bandit = self._rewards.step(bandit.reward, bandit.scale)
        lacking = self._bandit.unrewarded
        if lacking is None:
            self._alarms.clear("reward")
            return
        what = f"labels from offset {lacking.offset} on make no reward for the bandit: {lacking.what}"
        self._alarms.sound("reward", SchemaError(what, _OTHER_REWARD))

    def _read_routing(self) -> None:
        """Read the routing if it was set anew, and the challenger if the routing names it."""
        registry, now = self._bound.registry, self._bound.clock.now()
        newest = registry.routings.number()
        changed = newest != self._ruling
        if changed:
            self._routing, self._ruling = self._in_force(), newest
            self._refused.clear()
            self._shadow_runner.forgive()
        if "challenger" not in self._routing.named:
            self._challenger = None
        elif (
            changed
            or self._challenger_read_at is None
            or now - self._challenger_read_at >= _CHALLENGER_EVERY
        ):
            self._challenger, self._challenger_read_at = registry.store.aliases().get("challenger"), now

    def _in_force(self) -> Routing:
        """Return the routing in force; the declared one if that no longer fits the pipeline."""
        pipeline = self._bound.pipeline
        try:
            routing = self._bound.registry.routings.in_force(pipeline.routing)
            check_routing(routing, pipeline.task, METRICS[pipeline.task], pipeline.label)
        except DeclarationError as error:
            _logger.warning("%s: routed as declared: %s", pipeline.name, error)
            return pipeline.routing
        return routing

    def _load(self, versions: Sequence[str], rows: Sequence[dict[str, FeatureValue]]) -> None:
        """Load the states of versions that answer; a failed load is tried again later."""
        now = self._bound.clock.now()
        self._states = {v: state for v, state in self._states.items() if v in versions}
        self._alarms.keep("swap", versions)
        for version in versions:
            if (
                version in self._states
                or now - self._refused.get(version, now - _RETRY_AFTER) < _RETRY_AFTER
            ):
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
        artifacts = store.verified_files(version, again=True)
        content = artifacts.state, artifacts.recipe, artifacts.proof
        serving, settings = self._bound.pipeline.serving, self._bound.settings
        trial = try_state(number, content, rows, serving, settings)
        return ServedState(
            version=number,
            role="challenger",
            name=self._live.put(*content),
            learned_to=version.examples.stop,
            probes=trial.probes,
            isolated=trial.isolated,
            features=Recipe.from_json(artifacts.recipe).features,
        )

    def _promote_best_shadow(self) -> None:
        """Promote the best shadow if it is good enough; checked once a minute."""
        now = self._bound.clock.now()
        if self._judged_at is not None and now - self._judged_at < _RETRY_AFTER:
            return
        self._judged_at = now
        reign = serve_best(self._bound)
        if reign is not None:
            self.unfinished = True
            _logger.info("%s: %s", self._bound.pipeline.name, reign.reason)
