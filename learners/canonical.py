"""A hash of any learned Python state that is the same in every process.

Pickle's bytes are no identity: they hold memo numbers, set orders and string identities that differ
between equal states. This walk hashes what pickle would store instead, as a Merkle tree (Merkle, "A
digital signature based on a conventional encryption function", 1987): dictionaries and sets without
their order, floats and arrays by their bytes, objects by what ``__reduce_ex__`` says of them. A shared
object counts wherever it stands, and a cycle by how far up it points.
"""

import copyreg
import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType

import numpy as np

__all__ = ["canonical_digest"]

_PROTOCOL = 4
_NOWHERE = 1 << 60


def canonical_digest(
    state: object, unlearned: Callable[[object], frozenset[str]] = lambda _: frozenset()
) -> str:
    """Hash a state.

    Parameters
    ----------
    state
        Anything that pickle takes.
    unlearned
        Names the attributes of an object that are no part of what was learned.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        If a part of the state cannot be pickled.

    Examples
    --------
    >>> canonical_digest({"a": 1, "b": {3, 1}}) == canonical_digest({"b": {1, 3}, "a": 1})
    True
    >>> canonical_digest(1.0) == canonical_digest(1)
    False
    """
    return _Walk(unlearned).digest(state).hex()


class _Walk:
    def __init__(self, unlearned: Callable[[object], frozenset[str]]) -> None:
        self._unlearned = unlearned
        self._memo: dict[int, tuple[bytes, object]] = {}
        self._above: dict[int, int] = {}
        self._reach = _NOWHERE

    def digest(self, value: object) -> bytes:
        """Hash one value, and all below it."""
        plain = _plain(value)
        if plain is not None:
            return plain
        key = id(value)
        if key in self._memo:
            return self._memo[key][0]
        if key in self._above:
            self._reach = min(self._reach, self._above[key])
            return _hash(b"cycle", [str(len(self._above) - self._above[key]).encode()])
        return self._below(key, value)

    def _below(self, key: int, value: object) -> bytes:
        depth = len(self._above)
        self._above[key] = depth
        outer, self._reach = self._reach, _NOWHERE
        try:
            digest = self._container(value)
        finally:
            del self._above[key]
        if self._reach >= depth:  # nothing below points above it: its hash holds everywhere
            self._memo[key] = (digest, value)
            self._reach = outer
        else:
            self._reach = min(outer, self._reach)
        return digest

    def _container(self, value: object) -> bytes:
        kind = type(value)
        if kind is dict:
            return _hash(b"dict", sorted(self._pairs(value.items())))  # type: ignore[attr-defined] # kind is dict
        if kind is OrderedDict:
            return _hash(b"ordered", self._pairs(value.items()))  # type: ignore[attr-defined] # kind is known
        if kind in (set, frozenset):
            return _hash(b"set", sorted(map(self.digest, value)))  # type: ignore[call-overload] # kind is known
        if kind in (list, tuple):
            return _hash(kind.__name__.encode(), map(self.digest, value))  # type: ignore[call-overload] # kind is known
        if isinstance(value, np.ndarray) and kind is np.ndarray:
            if value.dtype.hasobject:
                return _hash(b"objects", [str(value.shape).encode(), self.digest(value.tolist())])
            described = f"{value.dtype.str} {value.shape}".encode()
            return _hash(b"array", [described, np.ascontiguousarray(value).tobytes()])
        if isinstance(value, np.generic):
            return _hash(b"scalar", [value.dtype.str.encode(), value.tobytes()])
        return self._object(value)

    def _pairs(self, items: Iterable[tuple[object, object]]) -> list[bytes]:
        return [self.digest(key) + self.digest(item) for key, item in items]

    def _object(self, value: object) -> bytes:
        reducer = copyreg.dispatch_table.get(type(value))
        reduced = reducer(value) if reducer else value.__reduce_ex__(_PROTOCOL)
        if isinstance(reduced, str):
            return _hash(b"global", [type(value).__module__.encode(), reduced.encode()])
        make, arguments, *rest = reduced
        state, listed, mapped = [*rest, None, None, None][:3]
        if isinstance(state, dict) and (left_out := self._unlearned(value)):
            state = {name: item for name, item in state.items() if name not in left_out}
        parts = [self.digest(make), self.digest(arguments), self.digest(state)]
        parts.append(self.digest(list(listed)) if listed is not None else b"")
        parts.append(self.digest(dict(mapped)) if mapped is not None else b"")
        return _hash(b"object", parts)


def _plain(value: object) -> bytes | None:
    """Hash a value without parts; None for a value with parts."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return _hash(kind.__name__.encode(), [str(value).encode("utf-8", "surrogatepass")])
    if kind is float:
        return _hash(b"float", [struct.pack("<d", value)])
    if kind in (bytes, bytearray):
        return _hash(b"bytes", [bytes(value)])  # type: ignore[call-overload] # kind is known
    if isinstance(value, type | FunctionType):
        return _named(value.__module__, value.__qualname__)
    if isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType | None):
        return _named(str(value.__module__), value.__qualname__)
    return None


def _named(module: str, name: str) -> bytes:
    return _hash(b"global", [module.encode(), name.encode()])


def _hash(kind: bytes, parts: Iterable[bytes]) -> bytes:
    """Hash parts with their kind and lengths, so that no two lists of parts run together."""
    hasher = hashlib.sha256(kind)
    for part in parts:
        hasher.update(b"|%d|" % len(part))
        hasher.update(part)
    return hasher.digest()
