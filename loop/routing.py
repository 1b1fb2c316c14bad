"""How a pipeline's requests are routed: shown, and set."""

import msgspec

from headwater.loop.binding import Bound
from headwater.registry.routings import Ruling
from headwater.spec.pipeline import METRICS
from headwater.spec.routing import Routing, check_routing

__all__ = ["Beside", "Routed", "routed", "set_routing"]


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """How far a shadow is.

    Parameters
    ----------
    version
        Its number.
    behind
        How many sequenced records it has not seen yet.
    """

    version: str
    behind: int


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are routed.

    Parameters
    ----------
    pipeline
        Its name.
    routing, declared
        What is in force, and what the pipeline declares.
    history
        What was set at run time, oldest first.
    shadows
        The shadows that the routing names.
    """

    pipeline: str
    routing: Routing
    declared: Routing
    history: tuple[Ruling, ...]
    shadows: tuple[Beside, ...]


def routed(bound: Bound) -> Routed:
    """Say how a pipeline's requests are routed."""
    pipeline, log, registry = bound.pipeline, bound.log, bound.registry
    routing = registry.routings.in_force(pipeline.routing)
    places, end = log.shadows.places(), log.positions()
    names = routing.beside
    if "challenger" in names:
        challenger = registry.store.aliases().get("challenger", "challenger")
        names = tuple(challenger if name == "challenger" else name for name in names)
    return Routed(
        pipeline=pipeline.name,
        routing=routing,
        declared=pipeline.routing,
        history=tuple(registry.routings.history()),
        shadows=tuple(Beside(version=v, behind=end - places[v].next) for v in names if v in places),
    )


def set_routing(bound: Bound, routing: Routing | None, *, by: str, reason: str) -> Ruling:
    """Set how a pipeline's requests are routed; a running service follows within a moment.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    routing
        None returns to what the pipeline declares.
    by, reason
        Who decides, and why.

    Raises
    ------
    DeclarationError
        If the routing does not fit the pipeline.
    NotFoundError
        If it names a version that does not exist.
    """
    if routing is not None:
        check_routing(routing, bound.pipeline.task, METRICS[bound.pipeline.task])
    return bound.registry.route(routing, by=by, reason=reason)
