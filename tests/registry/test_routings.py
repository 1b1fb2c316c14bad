import pytest
from tests.loop.conftest import Binder, day

from headwater.loop.training.update import train
from headwater.spec.errors import ConflictError, NotFoundError
from headwater.spec.serving.routing import Canary, ChampionOnly, Shadow


def test_the_last_routing_is_in_force_until_it_is_taken_back(bind: Binder) -> None:
    declared = Canary(share=0.5)
    bound = bind(routing=declared)
    routings = bound.registry.routings
    assert routings.in_force(declared) == declared
    assert routings.number() == 0
    bound.registry.routings.put(ChampionOnly(), by="ann", reason="a quiet week")
    assert routings.in_force(declared) == ChampionOnly()
    bound.registry.routings.put(None, by="bob", reason="back")
    assert routings.in_force(declared) == declared
    history = [(each.number, each.routing, each.by, each.reason) for each in routings.history()]
    assert history == [(1, ChampionOnly(), "ann", "a quiet week"), (2, None, "bob", "back")]
    assert routings.history()[0].since == bound.clock.now()


def test_a_routing_that_expects_an_older_ruling_is_refused(bind: Binder) -> None:
    registry = bind().registry
    registry.routings.put(Canary(share=0.1), by="ann", reason="", expected=0)
    with pytest.raises(ConflictError, match="ruling 1"):
        registry.routings.put(None, by="bob", reason="", expected=0)
    assert registry.routings.number() == 1


def test_a_version_that_does_not_exist_is_not_routed_to(bind: Binder) -> None:
    bound = bind()
    day(bound)
    train(bound)
    with pytest.raises(NotFoundError, match="'7'"):
        bound.registry.routings.put(Shadow(versions=("1", "7")), by="ann", reason="")
    assert bound.registry.routings.number() == 0
