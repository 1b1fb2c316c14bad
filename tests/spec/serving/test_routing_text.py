"""Routings that people type, and routings that do not fit a pipeline."""

from typing import Any

import pytest
from tests.spec.serving.test_routing import ROUTINGS
from tests.spec.test_declaration import declare

from headwater.spec.errors import DeclarationError
from headwater.spec.serving.routing import Bandit, Routing, Shadow
from headwater.spec.serving.routing_text import (
    parse_routing,
    routing_from_json,
    routing_to_json,
    shortly,
)
from headwater.spec.serving.serve_best import ServeBest


@pytest.mark.parametrize("routing", ROUTINGS, ids=repr)
def test_json_keeps_all_of_a_routing(routing: Routing) -> None:
    assert routing_from_json(routing_to_json(routing)) == routing
    assert parse_routing(routing_to_json(routing)) == routing


@pytest.mark.parametrize(
    "text",
    ["champion", "shadow:7,9", "canary:0.05:challenger", "ab:champion=0.5,7=0.5", "bandit:3,4"],
)
def test_the_short_form_is_read_as_it_is_written(text: str) -> None:
    assert shortly(parse_routing(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "canary", "canary:x", "canary:2", "shadow:", "shadow:champion", "ab:7", "duel:7"),
        *("{", "{}", '{"type": "canary", "share": 0.1, "more": 1}'),
        '{"type": "bandit", "versions": ["3"]}',
    ],
)
def test_text_that_is_no_routing_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        parse_routing(text)
    assert "write" in refused.value.hint


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"routing": "canary"}, "no routing"),
        ({"task": "regression", "routing": Bandit(versions=("3", "4"))}, "regression"),
        ({"task": "multiclass", "routing": Bandit(versions=("3", "4"), reward="label")}, "multiclass"),
        ({"routing": Shadow(versions=("3",), serve_best=ServeBest(metric="mae"))}, "mae"),
    ],
)
def test_a_routing_that_does_not_fit_is_refused(changed: dict[str, Any], what: str) -> None:
    with pytest.raises(DeclarationError, match=what):
        declare(**changed)
