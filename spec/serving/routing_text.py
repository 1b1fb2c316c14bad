"""Routings as text: JSON, or the short form that people type."""

import msgspec

from headwater.spec.errors import DeclarationError
from headwater.spec.serving.routing import ABTest, Bandit, Canary, ChampionOnly, Routing, Shadow

__all__ = ["parse_routing", "routing_from_json", "routing_to_json", "shortly"]

_HINT = (
    'write "champion", "shadow:7,9", "canary:0.05", "canary:0.05:7", "ab:champion=0.5,challenger=0.5", '
    '"bandit:champion,challenger", or JSON'
)
_DECODER: msgspec.json.Decoder[Routing] = msgspec.json.Decoder(Routing)


def routing_to_json(routing: Routing) -> str:
    """Write a routing as JSON; its field ``type`` names its kind."""
    return msgspec.json.encode(routing, order="deterministic").decode()


def routing_from_json(text: str | bytes) -> Routing:
    """Read a routing as :func:`routing_to_json` writes it.

    Raises
    ------
    DeclarationError
        If it is none.
    """
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeclarationError(f"the text is no routing: {error}", hint=_HINT) from error


def parse_routing(text: str) -> Routing:
    """Read a routing from JSON or from its short form.

    Raises
    ------
    DeclarationError
        If it is neither, or the parts do not go together.

    Examples
    --------
    >>> parse_routing("shadow:7,challenger").beside
    ('7', 'challenger')
    >>> parse_routing("canary:0.05:7").share
    0.05
    >>> parse_routing("ab:champion=0.9,7=0.1").shares
    {'champion': 0.9, '7': 0.1}
    >>> parse_routing('{"type": "bandit", "versions": ["3", "4"]}').policy
    'thompson'
    """
    if text.lstrip().startswith("{"):
        return routing_from_json(text)
    kind, _, rest = text.strip().partition(":")
    if kind == "champion" and not rest:
        return ChampionOnly()
    if kind == "shadow":
        return Shadow(versions=_names(rest))
    if kind == "bandit":
        return Bandit(versions=_names(rest))
    if kind == "canary":
        share, _, version = rest.partition(":")
        return Canary(share=_number(share), version=version or "challenger")
    if kind == "ab":
        parts = [part.partition("=") for part in _names(rest)]
        return ABTest(shares={name.strip(): _number(share) for name, _, share in parts})
    raise DeclarationError(f"{text[:100]!r} is no routing", hint=_HINT)


def shortly(routing: Routing) -> str:
    """Write a routing in its short form for people; fields that the form lacks are left out.

    >>> shortly(parse_routing("ab:champion=0.9,7=0.1"))
    'ab:champion=0.9,7=0.1'
    """
    match routing:
        case Shadow(versions=versions):
            return f"shadow:{','.join(versions)}"
        case Canary(share=share, version=version):
            return f"canary:{share:g}:{version}"
        case ABTest(shares=shares):
            return "ab:" + ",".join(f"{name}={share:g}" for name, share in shares.items())
        case Bandit(versions=versions):
            return f"bandit:{','.join(versions)}"
        case _:
            return "champion"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DeclarationError(f"{text[:100]!r} is no share", hint=_HINT) from error
