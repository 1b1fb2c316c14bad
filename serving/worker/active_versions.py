"""The versions that answer in a worker, and the choice of one for each request."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec import UnsetType

from headwater.infra.store.published_file import LOAD_ERRORS
from headwater.serving.isolation.at_work import ModelWork
from headwater.serving.isolation.isolated_versions import IsolatedVersions
from headwater.serving.isolation.loop_cost import LoopCost
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.serving.worker.isolated_models import IsolatedModel, IsolatedModels
from headwater.serving.worker.loop_model import LoopModel
from headwater.spec.answering import unanswered
from headwater.spec.data.records import Role
from headwater.spec.declaration import refusal
from headwater.spec.errors import NotRebuildableError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.plan import Aliases, RoutingPlan, plan, route

__all__ = ["ActiveVersions", "LoadedVersion", "VersionLoader"]


class LoadedVersion(NamedTuple):
    """A version that answers.

    Parameters
    ----------
    state
        What was published of it.
    model
        Its learned state, on the loop of this worker or in a process of its own.
    """

    state: ServedState
    model: LoopModel | IsolatedModel

    @property
    def version(self) -> str:
        """Its number."""
        return self.state.version

    @property
    def role(self) -> Role:
        """Its role."""
        return self.state.role

    @property
    def learned_to(self) -> int:
        """The offset up to which it has learned."""
        return self.state.learned_to


class ActiveVersions:
    """The versions that answer from one swap to the next; immutable, so that a request sees one set.

    Parameters
    ----------
    plan
        Decides which of them answers a request.
    versions
        Every version that the plan may choose, by number.
    champion
        The version that answers in place of any other.

    Attributes
    ----------
    any_isolated
        Whether any of them predicts in a process of its own.
    """

    __slots__ = ("_alone", "_versions", "any_isolated", "champion", "plan")

    def __init__(
        self, its: RoutingPlan, versions: dict[str, LoadedVersion], champion: LoadedVersion
    ) -> None:
        self.plan = its
        self.champion = champion
        self._versions = versions
        self.any_isolated = any(isinstance(one.model, IsolatedModel) for one in versions.values())
        self._alone = None if its.bounds else (versions[its.choices[0].version], 1.0)

    @property
    def versions(self) -> Mapping[str, LoadedVersion]:
        """Every version that may answer, by number."""
        return self._versions

    def with_version(self, its: LoadedVersion) -> "ActiveVersions":
        """Return the same versions, with one in place of that of its number."""
        versions = {**self._versions, its.version: its}
        champion = its if its.version == self.champion.version else self.champion
        return ActiveVersions(self.plan, versions, champion)

    def choose(self, prediction: str, unit: str | UnsetType) -> tuple[LoadedVersion, float]:
        """Choose the version that answers a request; return it with its propensity.

        Parameters
        ----------
        prediction
            Id of the prediction.
        unit
            The user or session that a sticky routing follows, if given.
        """
        if self._alone is not None:
            return self._alone
        choice = route(self.plan, prediction, None if isinstance(unit, UnsetType) else unit)
        return self._versions[choice.version], choice.propensity


class VersionLoader:
    """Load published states; a state that is loaded already is not loaded again.

    A state is loaded into this process, or, if its version is isolated, into the process of the
    pipeline's models.

    Parameters
    ----------
    pipeline
        The pipeline.
    live
        The folder of published states.
    models
        The process of models that are isolated.
    isolated
        Which versions are, and why.
    leave
        Called on the loop with a version that must leave it, and why; returns what takes its place.

    Attributes
    ----------
    left_out
        The reasons why versions were left out at the last load.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        live: PublishedModels,
        models: IsolatedModels,
        isolated: IsolatedVersions,
        leave: Callable[[str, str], IsolatedModel | None],
    ) -> None:
        self.left_out: list[Exception] = []
        self._pipeline = pipeline
        self._live = live
        self._models = models
        self._isolated = isolated
        self._leave = leave
        self._on_loop: dict[str, LoopModel] = {}
        self._costs: dict[str, LoopCost] = {}

    async def load(self, serving: ServingFile, by: Pipeline) -> ActiveVersions:
        """Load all versions that answer; leave out those that cannot be loaded, but for the champion.

        Parameters
        ----------
        serving
            What is to serve.
        by
            The declaration by which it answers; a version that does not fit it is left out, too.

        Raises
        ------
        HeadwaterError, OSError, MemoryError
            If the champion cannot be loaded.
        """
        champion_state, *others = serving.states
        self.left_out = []
        champion = await self._load_state(champion_state)
        versions = {champion_state.version: champion}
        for state in others:
            try:
                _check_fits(state, by)
                versions.setdefault(state.version, await self._load_state(state))
            except LOAD_ERRORS as error:
                self.left_out.append(error)
        self._forget_all_but(serving.states)
        aliases = Aliases(champion_state.version, serving.challenger)
        routing_plan = plan(
            serving.routing, aliases, serving.bandit, pipeline=self._pipeline.name, loaded=versions
        )
        return ActiveVersions(routing_plan, versions, champion)

    def why_isolated(self, state: ServedState) -> str:
        """Return why a state predicts in a process of its own; empty if it does not."""
        declared = "it is declared so" if self._pipeline.serving.isolated else ""
        return declared or self._isolated.reasons().get(state.version, "") or state.isolated

    def isolate(self, state: ServedState) -> IsolatedModel:
        """Return the model of a version that leaves the loop now; its process loads it when asked."""
        self._on_loop.pop(state.name, None)
        return IsolatedModel(self._models, state)

    async def _load_state(self, state: ServedState) -> LoadedVersion:
        model: LoopModel | IsolatedModel
        if self.why_isolated(state):
            await self._models.load(state)
            model = IsolatedModel(self._models, state)
        else:
            model = self._on_loop.get(state.name) or await self._load_on_loop(state)
        return LoadedVersion(state, model)

    async def _load_on_loop(self, state: ServedState) -> LoopModel:
        try:
            learner = await asyncio.to_thread(self._live.load, state)
        except LOAD_ERRORS:
            raise
        except Exception as error:
            raise NotRebuildableError(
                f"version {state.version} does not load: {type(error).__name__}: {error}"[:1_000],
                hint=f"look at the model, or roll back: headwater rollback {self._pipeline.name}",
            ) from error
        version, serving = state.version, self._pipeline.serving
        work = ModelWork(self._pipeline.name, version, serving.deadline_s)
        cost = self._costs.setdefault(version, LoopCost())  # of a version, however often it learns
        model = LoopModel(learner, cost, work, lambda reason: self._leave(version, reason))
        self._on_loop[state.name] = model
        return model

    def _forget_all_but(self, states: Sequence[ServedState]) -> None:
        names, versions = {state.name for state in states}, {state.version for state in states}
        self._on_loop = {name: one for name, one in self._on_loop.items() if name in names}
        self._costs = {number: cost for number, cost in self._costs.items() if number in versions}
        self._models.keep(names)


def _check_fits(state: ServedState, by: Pipeline) -> None:
    """Check that a version can answer beside a champion.

    Raises
    ------
    ChangedError
        If it cannot.
    """
    changes = unanswered(state.features, by) if state.features else ()
    if changes:
        raise refusal(by.name, f"version {state.version}", changes)
