"""The versions that answer in a worker, and the choice of one for each request."""

from typing import NamedTuple

from msgspec import UnsetType

from headwater.infra.store.published_file import LOAD_ERRORS
from headwater.learners.learner import Learner
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.spec.data.records import Role
from headwater.spec.errors import NotRebuildableError
from headwater.spec.serving.plan import Aliases, RoutingPlan, plan, route

__all__ = ["ActiveVersions", "LoadedVersion", "VersionLoader"]


class LoadedVersion(NamedTuple):
    """A version that answers.

    Parameters
    ----------
    version, role
        Its number and role.
    learner
        Its learned state.
    learned_to
        The offset up to which it has learned.
    """

    version: str
    role: Role
    learner: Learner
    learned_to: int


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
    """

    __slots__ = ("_alone", "_versions", "champion", "plan")

    def __init__(
        self, its: RoutingPlan, versions: dict[str, LoadedVersion], champion: LoadedVersion
    ) -> None:
        self.plan = its
        self.champion = champion
        self._versions = versions
        self._alone = None if its.bounds else (versions[its.choices[0].version], 1.0)

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

    Parameters
    ----------
    pipeline
        The pipeline's name.
    live
        The folder of published states.

    Attributes
    ----------
    left_out
        The reasons why versions were left out at the last load.
    """

    def __init__(self, pipeline: str, live: PublishedModels) -> None:
        self.left_out: list[Exception] = []
        self._pipeline = pipeline
        self._live = live
        self._learners: dict[str, Learner] = {}

    def load(self, serving: ServingFile) -> ActiveVersions:
        """Load all versions that answer; leave out those that cannot be loaded, but for the champion.

        Raises
        ------
        HeadwaterError, OSError, MemoryError
            If the champion cannot be loaded.
        """
        champion_state, *others = serving.states
        self.left_out = []
        champion = self._load_state(champion_state)
        versions = {champion_state.version: champion}
        for state in others:
            try:
                versions.setdefault(state.version, self._load_state(state))
            except LOAD_ERRORS as error:
                self.left_out.append(error)
        named = {state.name for state in serving.states}
        self._learners = {name: learner for name, learner in self._learners.items() if name in named}
        aliases = Aliases(champion_state.version, serving.challenger)
        routing_plan = plan(
            serving.routing, aliases, serving.bandit, pipeline=self._pipeline, loaded=versions
        )
        return ActiveVersions(routing_plan, versions, champion)

    def _load_state(self, state: ServedState) -> LoadedVersion:
        learner = self._learners.get(state.name)
        if learner is None:
            try:
                learner = self._learners[state.name] = self._live.load(state)
            except LOAD_ERRORS:
                raise
            except Exception as error:
                raise NotRebuildableError(
                    f"version {state.version} does not load: {type(error).__name__}: {error}"[:1_000],
                    hint=f"look at the model, or roll back: headwater rollback {self._pipeline}",
                ) from error
        return LoadedVersion(state.version, state.role, learner, state.learned_to)
