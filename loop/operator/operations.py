"""Operations on serving models: route, add a shadow, pause, roll back; the audit has each."""

from collections.abc import Callable, Sequence
from contextlib import closing

from headwater.features.read.repository import LogRepository, find, register
from headwater.features.read.shadow_outputs import ShadowOutputs
from headwater.features.record.encoder import open_inbox
from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.registry.registry import Registry
from headwater.registry.version import Version
from headwater.spec.data.values import check_name
from headwater.spec.errors import DeclarationError, NotFoundError
from headwater.spec.pipeline import METRICS, Pipeline, Task
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Learning, Reign, RoutingStatus, Ruling, ShadowStatus, VersionInRole
from headwater.spec.serving.routing import ChampionOnly, Routing, Shadow, check_routing
from headwater.spec.serving.routing_text import shortly

__all__ = ["NEWEST_RULINGS", "Operator"]

NEWEST_RULINGS = 20
"""How many of the newest rulings a status holds."""

_MOST_REASON = 500
_DECLARED = "write where it is declared: module:attribute or path.py:attribute"


class Operator:
    """The operations of people on one pipeline's versions; a running service follows within a moment.

    The command line makes it, and the keeper for requests over HTTP.

    Parameters
    ----------
    pipeline
        As declared, or its name alone.
    settings, database
        Where the versions are, and the rows.
    clock
        By default the machine's.

    Raises
    ------
    NotFoundError
        If there are no records of a pipeline of that name.
    IdentityError
        If inbox, database and MLflow are not of one log.
    StorageError
        If MLflow's store cannot be opened.
    """

    def __init__(
        self,
        pipeline: Pipeline | str,
        settings: Settings,
        database: Database,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._declared = None if isinstance(pipeline, str) else pipeline
        self.name = pipeline if isinstance(pipeline, str) else pipeline.name
        number = _number_of(pipeline, database, settings)
        self.registry = Registry(self.name, number, settings, database, clock)
        self._repository = LogRepository(database, number)
        self._shadows = ShadowOutputs(database, number)

    def routed(self) -> RoutingStatus:
        """Return the status of the routing."""
        history = self.registry.routings.history()
        routing = self._in_force(history)
        places, (end, _) = self._shadows.places(), self._repository.ends()
        names = () if routing is None else routing.beside
        if "challenger" in names:
            challenger = self.registry.store.aliases().get("challenger", "challenger")
            names = tuple(challenger if name == "challenger" else name for name in names)
        return RoutingStatus(
            pipeline=self.name,
            number=history[-1].number if history else 0,
            routing=routing,
            declared=None if self._declared is None else self._declared.routing,
            history=tuple(history[-NEWEST_RULINGS:]),
            shadows=tuple(
                ShadowStatus(version=v, behind=end - places[v].next) for v in names if v in places
            ),
        )

    def route(
        self, routing: Routing | None, *, by: str, reason: str, expected: int | None = None
    ) -> RoutingStatus:
        """Set how requests are routed, and say how they are then.

        Parameters
        ----------
        routing
            None returns to the declared routing.
        by, reason
            Who decides, and why.
        expected
            Number of the ruling that the caller saw; if it is None, the last write wins.

        Raises
        ------
        DeclarationError
            If the routing does not fit the pipeline.
        NotFoundError
            If it names a version that does not exist.
        ConflictError
            If another ruling came after that one.
        """
        if routing is not None:
            task = self._task()
            check_routing(routing, task, METRICS[task])
        _check_reason(reason)
        self.registry.routings.put(routing, by=by, reason=reason, expected=expected)
        return self.routed()

    def add_shadow(self, version: str, *, by: str, reason: str) -> RoutingStatus:
        """Let a version predict beside the champion; if it does already, change nothing.

        Raises
        ------
        DeclarationError
            If the routing has no shadows.
        NotFoundError, ConflictError
            If there is no such version, or another ruling came meanwhile.
        """

        def added(names: tuple[str, ...]) -> tuple[str, ...]:
            return names if version in names else (*names, version)

        return self._shadowed(added, by, reason)

    def drop_shadow(self, version: str, *, by: str, reason: str) -> RoutingStatus:
        """Let a version no longer predict beside the champion; its outputs are kept.

        If it is no shadow, nothing changes: the request may be sent again.

        Raises
        ------
        DeclarationError
            If the routing has no shadows.
        NotFoundError, ConflictError
            If there is no such version, or another ruling came meanwhile.
        """

        def dropped(names: tuple[str, ...]) -> tuple[str, ...]:
            if version != "challenger" and version not in names:
                self.registry.store.get(version)  # a slip of the pen is not taken for a repetition
            return tuple(name for name in names if name != version)

        return self._shadowed(dropped, by, reason)

    def learning(self) -> Learning:
        """Return the status of learning: the pause, if there is one, and the quarantined offsets."""
        return Learning(
            pipeline=self.name,
            pause=self.registry.pauses.in_force(),
            quarantined=tuple(self.registry.quarantine.ranges()),
        )

    def pause(self, *, by: str, reason: str) -> Learning:
        """Halt learning: the learned state serves on, and new examples wait at their offsets.

        Raises
        ------
        DeclarationError
            If the pipeline does not learn each label.
        """
        if self._declared is not None and self._declared.learn != "each label":
            raise DeclarationError(
                f"pipeline {self.name!r} learns on schedule, so there is nothing to pause",
                hint="pause its deployments in Prefect, or declare learn='each label'",
            )
        _check_reason(reason)
        self.registry.pauses.pause(by=by, reason=reason)
        return self.learning()

    def resume(self, *, by: str, reason: str) -> Learning:
        """Let learning go on from the offset at which it halted; it learns the examples that waited."""
        _check_reason(reason)
        self.registry.pauses.resume(by=by, reason=reason)
        return self.learning()

    def quarantine(self, spans: Sequence[OffsetRange], *, by: str, reason: str) -> Learning:
        """Exclude offsets from every later recipe, and at once from learning each label.

        Raises
        ------
        NotFoundError
            If a range holds no offsets.
        """
        _check_reason(reason)
        self.registry.quarantine.add(spans, by=by, reason=reason)
        return self.learning()

    def promote(self, version: str, *, by: str, reason: str) -> Reign:
        """Make a version champion, as the registry's ``promote`` does."""
        _check_reason(reason)
        return self.registry.promote(version, by=by, reason=reason)

    def roll_back(
        self, to: str | None, *, by: str, reason: str, quarantine: Sequence[OffsetRange] = ()
    ) -> Reign:
        """Return to an earlier champion, as the registry's ``rollback`` does."""
        _check_reason(reason)
        return self.registry.rollback(by=by, reason=reason, to=to, quarantine=quarantine)

    def versions(self, last: int = 0) -> list[VersionInRole]:
        """List the versions with their present roles, oldest first.

        Parameters
        ----------
        last
            How many of the newest; 0 for all.
        """
        roles, versions = self.roles(), self.registry.store.versions()
        return [_version_in_role(version, roles.get(version.number, ())) for version in versions[-last:]]

    def roles(self) -> dict[str, list[str]]:
        """Return the present roles of versions, by number, as :class:`VersionInRole` has them."""
        reign = self.registry.championship.reign()
        aliases = self.registry.store.aliases()
        routing = self._in_force(self.registry.routings.history())
        roles: dict[str, list[str]] = {}
        if reign is not None:
            roles.setdefault(reign.version, []).append("champion")
            if reign.previous is not None and reign.previous != reign.version:
                roles.setdefault(reign.previous, []).append("previous")
        if "challenger" in aliases:
            roles.setdefault(aliases["challenger"], []).append("challenger")
        for name in () if routing is None else routing.named:
            number = aliases.get(name, name)
            role = "shadow" if routing is not None and name in routing.beside else "answers"
            if "champion" not in roles.get(number, ()):
                roles.setdefault(number, []).append(role)
        return roles

    def _in_force(self, history: Sequence[Ruling]) -> Routing | None:
        """Return the routing in force; None if it is the declared one, and only a name is known."""
        set_routing = history[-1].routing if history else None
        if set_routing is not None or self._declared is None:
            return set_routing
        return self._declared.routing

    def _shadowed(
        self, change: Callable[[tuple[str, ...]], tuple[str, ...]], by: str, reason: str
    ) -> RoutingStatus:
        _check_reason(reason)
        history = self.registry.routings.history()
        routing = self._in_force(history)
        if routing is None:
            raise DeclarationError(
                f"the declared routing of {self.name!r} is not known by the name alone", hint=_DECLARED
            )
        if not isinstance(routing, ChampionOnly | Shadow):
            raise DeclarationError(
                f"{self.name!r} is routed {shortly(routing)}, which has no shadows",
                hint="set the routing first, as in champion or shadow:7",
            )
        names = change(routing.beside)
        if names == routing.beside:
            return self.routed()
        rule = routing.serve_best if isinstance(routing, Shadow) else None
        changed = Shadow(versions=names, serve_best=rule) if names else ChampionOnly()
        expected = history[-1].number if history else 0
        return self.route(changed, by=by, reason=reason, expected=expected)

    def _task(self) -> Task:
        """Return the pipeline's task: the declared one, or that of its champion's recipe."""
        if self._declared is not None:
            return self._declared.task
        champion = self.registry.champion()
        if champion is None:
            raise DeclarationError(
                f"{self.name!r} has no champion whose recipe names its task", hint=_DECLARED
            )
        return self.registry.store.recipe(champion).task


def _number_of(pipeline: Pipeline | str, database: Database, settings: Settings) -> int:
    try:
        name = pipeline if isinstance(pipeline, str) else pipeline.name
        return find(database, name, settings)
    except NotFoundError:
        if isinstance(pipeline, str):
            raise
    with closing(open_inbox(pipeline, settings)) as inbox:
        return register(database, pipeline, inbox)


def _version_in_role(version: Version, roles: Sequence[str]) -> VersionInRole:
    return VersionInRole(
        number=version.number,
        parent=version.parent,
        roles=tuple(roles),
        update=version.update,
        examples=version.examples,
        learned=version.learned,
        made_at=version.made_at,
        digest=version.digest,
        refused=version.refused,
    )


def _check_reason(reason: str) -> None:
    """Check the characters of a reason as those of a name, so that it stays on one line of a log."""
    if reason != "":
        check_name(reason, "reason", _MOST_REASON)
