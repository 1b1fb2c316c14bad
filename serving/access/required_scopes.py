"""The scopes that a request needs, by the table of operations."""

import re

from headwater.serving.api.operation import Scope
from headwater.serving.api.operations import OPERATIONS

__all__ = ["scopes_of"]


def scopes_of(method: str, path: str) -> frozenset[Scope]:
    """Return the scopes of which a key needs at least one; none if every request is let in.

    A path that is no operation needs ``read`` for reading methods, and ``operate`` for all others.

    >>> sorted(scopes_of("POST", "/predict")), sorted(scopes_of("DELETE", "/anything"))
    (['predict'], ['operate'])
    """
    hot = _EXACT.get((method, path))
    if hot is not None:
        return hot
    path = path.removesuffix("\n")  # a route's pattern ends before it, too
    reads = method in _READING_METHODS
    method = "GET" if reads else method
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    for its, pattern, scopes in _PATTERNS:
        if its == method and pattern.fullmatch(path):
            return scopes
    return _READ if reads else _OPERATE


_READING_METHODS = ("GET", "HEAD", "OPTIONS")
_READ: frozenset[Scope] = frozenset({"read"})
_OPERATE: frozenset[Scope] = frozenset({"operate"})
_EXACT: dict[tuple[str, str], frozenset[Scope]] = {
    (row.method, row.path): frozenset(row.scopes) for row in OPERATIONS if "{" not in row.path
}


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"({\w+(?::any)?})", path)
    return re.compile(
        "".join(
            "(?s:.*)" if part.endswith(":any}") else "[^/]+" if part.startswith("{") else re.escape(part)
            for part in parts
        )
    )


_PATTERNS = [
    (row.method, _pattern(row.path), frozenset(row.scopes)) for row in OPERATIONS if "{" in row.path
]
