"""Operations on the routing of requests: show it, set it, add and drop shadows."""

from collections.abc import Callable, Sequence

from headwater.features.read.repository import LogRepository
from headwater.features.read.shadow_outputs import ShadowOutputs
from headwater.registry.registry import Registry
from headwater.spec.data.values import check_name
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import METRICS, Pipeline, Task
from headwater.spec.rulings import RoutingStatus, Ruling, ShadowStatus
from headwater.spec.serving.routing import ChampionOnly, Routing, Shadow, check_routing
from headwater.spec.serving.routing_text import shortly

__all__ = ["NEWEST_RULINGS", "RoutingOperations", "check_reason"]

NEWEST_RULINGS = 20
"""How many of the newest rulings a status holds."""

_MOST_REASON = 500
_DECLARED = "write where it is declared: module:attribute or path.py:attribute"


class RoutingOperations:
    """The operations of people on how one pipeline's requests are routed.

    Parameters
    ----------
    registry
        The pipeline's versions and routings.
    declared
        The pipeline as declared; None if only its name is known.
    repository, shadows
        The log, and the outputs of its shadows.
    """

    def __init__(
        self,
        registry: Registry,
        declared: Pipeline | None,
        repository: LogRepository,
        shadows: ShadowOutputs,
    ) -> None:
        self._registry = registry
        self._declared = declared
        self._repository = repository
        self._shadows = shadows

    def status(self) -> RoutingStatus:
        """Return the status of the routing."""
        history = self._registry.routings.history()
        routing = self.in_force(history)
        places, (end, _) = self._shadows.places(), self._repository.ends()
        names = () if routing is None else routing.beside
        if "challenger" in names:
            challenger = self._registry.store.aliases().get("challenger", "challenger")
            names = tuple(challenger if name == "challenger" else name for name in names)
        return RoutingStatus(
            pipeline=self._registry.pipeline,
            number=history[-1].number if history else 0,
            routing=routing,
            declared=None if self._declared is None else self._declared.routing,
            history=tuple(history[-NEWEST_RULINGS:]),
            shadows=tuple(
                ShadowStatus(version=v, behind=end - places[v].next) for v in names if v in places
            ),
        )

    def set(
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
            label = None if self._declared is None else self._declared.label
            check_routing(routing, task, METRICS[task], label)
        check_reason(reason)
        self._registry.routings.put(routing, by=by, reason=reason, expected=expected)
        return self.status()

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
                self._registry.store.get(version)  # a slip of the pen is not taken for a repetition
            return tuple(name for name in names if name != version)

        return self._shadowed(dropped, by, reason)

    def in_force(self, history: Sequence[Ruling]) -> Routing | None:
        """Return the routing in force; None if it is the declared one, and only a name is known."""
        set_routing = history[-1].routing if history else None
        if set_routing is not None or self._declared is None:
            return set_routing
        return self._declared.routing

    def _shadowed(
        self, change: Callable[[tuple[str, ...]], tuple[str, ...]], by: str, reason: str
    ) -> RoutingStatus:
        check_reason(reason)
        history = self._registry.routings.history()
        routing = self.in_force(history)
        if routing is None:
            raise DeclarationError(
                f"the declared routing of {self._registry.pipeline!r} is not known by the name alone",
                hint=_DECLARED,
            )
        if not isinstance(routing, ChampionOnly | Shadow):
            raise DeclarationError(
                f"{self._registry.pipeline!r} is routed {shortly(routing)}, which has no shadows",
                hint="set the routing first, as in champion or shadow:7",
            )
        names = change(routing.beside)
        if names == routing.beside:
            return self.status()
        rule = routing.serve_best if isinstance(routing, Shadow) else None
        changed = Shadow(versions=names, serve_best=rule) if names else ChampionOnly()
        expected = history[-1].number if history else 0
        return self.set(changed, by=by, reason=reason, expected=expected)

    def _task(self) -> Task:
        """Return the pipeline's task: the declared one, or that of its champion's recipe."""
        if self._declared is not None:
            return self._declared.task
        champion = self._registry.champion()
        if champion is None:
            raise DeclarationError(
                f"{self._registry.pipeline!r} has no champion whose recipe names its task",
                hint=_DECLARED,
            )
        return self._registry.store.recipe(champion).task


def check_reason(reason: str) -> None:
    """Check the characters of a reason as those of a name, so that it stays on one line of a log."""
    if reason != "":
        check_name(reason, "reason", _MOST_REASON)
