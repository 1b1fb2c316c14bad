"""State of the whole process that a block changes for a while: one thread at a time."""

import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

__all__ = ["SeededGenerators", "generators_put_back", "ignoring_warnings"]

# A thread that seeds the generators, or puts them back, while another one learns would change what that
# one draws, and with it the digest of its state. A block of filters that ends in one thread would put
# back those that another thread's block has replaced meanwhile.
_ONE_AT_A_TIME = threading.RLock()


class SeededGenerators:
    """The global generators of ``random`` and NumPy, which unseeded estimators draw from.

    Used in a ``with`` block, which other threads' blocks wait for; behind it the generators are what
    they were before. Entered again, it draws on from where it was left: in steps what in one go. What a
    block has drawn that ends in an error is drawn again.

    Parameters
    ----------
    seed
        Any whole number from 0.

    Examples
    --------
    >>> generators = SeededGenerators(7)
    >>> with generators:
    ...     first = np.random.random()
    >>> with generators:
    ...     second = np.random.random()
    >>> with SeededGenerators(7):
    ...     (first, second) == tuple(np.random.random(2))
    True
    """

    def __init__(self, seed: int) -> None:
        self._drawn = _seeded(seed).getstate(), np.random.RandomState(seed % 2**32).get_state()

    def __enter__(self) -> Self:
        _ONE_AT_A_TIME.acquire()
        self._before = _states()
        _set(self._drawn)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is None:
                self._drawn = _states()
            _set(self._before)
        finally:
            _ONE_AT_A_TIME.release()


@contextmanager
def generators_put_back() -> Iterator[None]:
    """Put the global generators back behind the block, as if nothing had been drawn within.

    Examples
    --------
    >>> with SeededGenerators(7):
    ...     with generators_put_back():
    ...         first = np.random.random()
    ...     first == np.random.random()
    True
    """
    with _ONE_AT_A_TIME:
        before = _states()
        try:
            yield
        finally:
            _set(before)


@contextmanager
def ignoring_warnings(category: type[Warning] = Warning, module: str = "") -> Iterator[None]:
    """Ignore warnings of libraries until the block ends; another thread's block waits.

    Parameters
    ----------
    category, module
        Of which kind, and from modules whose names begin so; all where not given.

    Examples
    --------
    >>> with ignoring_warnings(RuntimeWarning):
    ...     warnings.warn("an exact p value was given up", RuntimeWarning)
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=category, module=module)
        yield


_States = tuple[Any, Any]


def _seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - what estimators draw


def _states() -> _States:
    return random.getstate(), np.random.get_state()


def _set(states: _States) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
