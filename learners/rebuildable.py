"""Signs in an estimator that its versions will not rebuild to the same digest.

Each is read off what the estimator is or holds: a generator that nobody seeded, a wall time, an address.
"""

import inspect
import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Doubt", "doubts", "modules_of"]

_ENTROPY = "draws from the machine's entropy"
_HELD = "keeps NumPy's global generator in its state"
_TIMES = "keeps wall times in its state"
_ADDRESS = "keeps memory addresses in its state"
_HINTS = {
    _ENTROPY: "write seed=1, say",
    _HELD: "write random_state=1, say",
    _TIMES: "search apart, and declare the estimator that was found",
    _ADDRESS: "take another one where versions have to rebuild",
}
_HOLDERS = frozenset(
    [
        "BernoulliRBM",
        "BisectingKMeans",
        "GaussianProcessClassifier",
        "GaussianProcessRegressor",
        "GradientBoostingClassifier",
        "GradientBoostingRegressor",
        "LatentDirichletAllocation",
        "MLPClassifier",
        "MLPRegressor",
        "MiniBatchDictionaryLearning",
        "MiniBatchKMeans",
        "MultiTaskElasticNet",
        "MultiTaskLasso",
        "NeighborhoodComponentsAnalysis",
    ]
)
"""What of scikit-learn keeps the generator that it drew from: ``python -m benchmarks rebuildable``."""

_SMALLEST_ADDRESS = 1 << 16
_FLAT = (str, bytes, bytearray, float, complex, bool, type, np.generic, np.dtype)


class Doubt(NamedTuple):
    """A reason why versions will not rebuild, and the text to write instead."""

    why: str
    hint: str


def doubts(estimator: object) -> tuple[Doubt, ...]:
    """Return why versions of an estimator will not rebuild to the same digest; empty if they will.

    Parameters
    ----------
    estimator
        Unfitted, or fitted: then its state is looked at, too.

    Examples
    --------
    >>> from river import tree
    >>> doubts(tree.HoeffdingAdaptiveTreeClassifier(seed=1))
    ()
    >>> doubts(tree.HoeffdingAdaptiveTreeClassifier())[0].why
    "HoeffdingAdaptiveTreeClassifier draws from the machine's entropy"
    """
    doubts_: dict[Doubt, None] = {}
    numbers: dict[int, str] = {}
    addresses = {id(None), id(True), id(False)}
    for value, owner in _parts(estimator):
        if type(value) is int:
            if value >= _SMALLEST_ADDRESS:
                numbers.setdefault(value, owner)
            continue
        addresses |= {id(value), object.__hash__(value)}
        sign = _HELD if _is_global(value) else _sign(value)
        if sign is not None:
            who = owner if _is_global(value) else type(value).__name__
            doubts_[Doubt(f"{who} {sign}", _HINTS[sign])] = None
    for number in sorted(numbers.keys() & addresses):
        doubts_[Doubt(f"{numbers[number]} {_ADDRESS}", _HINTS[_ADDRESS])] = None
    return tuple(doubts_)


def modules_of(estimator: object) -> set[str]:
    """Name the modules of all classes in an estimator."""
    return {type(value).__module__ for value, _ in _parts(estimator)}


def _sign(value: object) -> str | None:
    """Return the sign in an object's class or parameters that it will not rebuild, or None."""
    kinds = type(value).__mro__
    bases = {kind.__name__ for kind in kinds if kind.__module__.startswith("sklearn.")}
    if "BaseSearchCV" in bases:
        return _TIMES
    if "_VectorizerMixin" in bases or any(kind.__name__ == "AMRules" for kind in kinds):
        return _ADDRESS
    attributes = getattr(value, "__dict__", {})
    if bases and attributes.get("random_state", 0) is None and bases & _HOLDERS:
        return _HELD
    if _is_of_river(value) and attributes.get("seed", 0) is None and not _is_distribution(value):
        return _ENTROPY
    return None


def _is_of_river(value: object) -> bool:
    return any(kind.__module__.startswith("river.") for kind in type(value).__mro__)


def _is_distribution(value: object) -> bool:
    """Return whether it is one of River's distributions, which only draw when they are sampled."""
    return any(kind.__module__ == "river.proba.base" for kind in type(value).__mro__)


def _is_global(value: object) -> bool:
    return isinstance(value, np.random.RandomState) and value is np.random.mtrand._rand  # noqa: SLF001 - no public name has it


def _parts(root: object) -> Iterator[tuple[object, str]]:
    """Yield an object and all that it holds, each once, with the class of its holder."""
    seen: set[int] = set()
    alive: list[object] = []  # so that no address is given twice
    waiting: deque[tuple[object, str]] = deque([(root, type(root).__name__)])
    while waiting:
        value, owner = waiting.popleft()
        if (
            value is None
            or isinstance(value, _FLAT)
            or inspect.isroutine(value)
            or inspect.ismodule(value)
        ):
            continue
        if type(value) is not int:
            if id(value) in seen:
                continue
            seen.add(id(value))
            alive.append(value)
        yield value, owner
        inner = (
            owner if isinstance(value, dict | list | tuple | set | frozenset) else type(value).__name__
        )
        waiting.extend((part, inner) for part in _held(value))


def _held(value: Any) -> Iterable[object]:
    parts: list[object] = []
    if isinstance(value, int | random.Random | np.random.RandomState | np.random.Generator):
        return parts
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else parts
    if isinstance(value, dict):
        parts += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        parts += value
    parts += getattr(value, "__dict__", {}).values()
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        parts += [getattr(value, name) for name in names if hasattr(value, name)]
    return parts
