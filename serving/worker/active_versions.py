"""Which versions answer in a worker, and which of them a request meets."""

import logging
from typing import NamedTuple

from msgspec import UnsetType

from headwater.learners.learner import Learner
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.spec.data.records import Role
from headwater.spec.errors import HeadwaterError
from headwater.spec.serving.plan import Aliases, RoutingPlan, plan, route

__all__ = ["ActiveVersions", "LoadedVersion", "VersionLoader"]

_logger = logging.getLogger("headwater.serving")


class LoadedVersion(NamedTuple):
    """A version that answers.

    Parameters
    ----------
    version, role
        Which one, as what.
    learner
        Its state.
    learned_to
        The offset up to which it has learned.
    """

    version: str
    role: Role
    learner: Learner
    learned_to: int


class ActiveVersions:
    """The versions that answer from one swap to the next; never changed, so that a request sees one.

    Parameters
    ----------
    plan
        Which of them answers a request.
    versions
        By number: every one that the plan may choose.
    champion
        The one that answers in the place of any other.
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
        """Say which version answers a request, and how likely that was.

        Parameters
        ----------
        prediction
            Its id.
        unit
            Whose traffic it is, if that was said.
        """
        if self._alone is not None:
            return self._alone
        choice = route(self.plan, prediction, None if isinstance(unit, UnsetType) else unit)
        return self._versions[choice.version], choice.propensity


class VersionLoader:
    """Loads what is published; a state that is loaded already is not loaded again.

    Parameters
    ----------
    pipeline
        Its name.
    live
        Where states are.
    """

    def __init__(self, pipeline: str, live: PublishedModels) -> None:
        self.left_out: str | None = None
        self._pipeline = pipeline
        self._live = live
        self._learners: dict[str, Learner] = {}

    def load(self, serving: ServingFile) -> ActiveVersions:
        """Load all that answers; what is not the champion is left out where it cannot be loaded.

        Raises
        ------
        DigestError, NotRebuildableError, StorageError
            If the champion cannot be loaded.
        """
        first, *others = serving.states
        self.left_out = None
        champion = self._loaded(first)
        found = {first.version: champion}
        for state in others:
            try:
                found.setdefault(state.version, self._loaded(state))
            except HeadwaterError as error:
                self.left_out = str(error)
                _logger.warning("%s: left out: %s", self._pipeline, error)
        named = {state.name for state in serving.states}
        self._learners = {name: one for name, one in self._learners.items() if name in named}
        aliases = Aliases(first.version, serving.challenger)
        its = plan(serving.routing, aliases, serving.bandit, pipeline=self._pipeline, loaded=found)
        return ActiveVersions(its, found, champion)

    def _loaded(self, state: ServedState) -> LoadedVersion:
        learner = self._learners.get(state.name)
        if learner is None:
            learner = self._learners[state.name] = self._live.load(state)
        return LoadedVersion(state.version, state.role, learner, state.learned_to)
