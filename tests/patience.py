"""How long a test waits: as long as it takes, since a limit only says when to give up.

A machine that others use too is many times slower than a quiet one. So no test has a limit of its own:
all have this one, and a wait that comes to nothing says what it saw.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE_S", "await_", "slowed"]

PATIENCE_S = float(os.environ.get("HEADWATER_TEST_PATIENCE", "600"))
"""For whatever ends by itself on a machine that works; set the variable for one that is slower still."""

_PAUSE_S = 0.05
_T = TypeVar("_T")


def slowed(seconds: float) -> float:
    """Give how long something takes here that takes so long on a machine of its own."""
    return seconds * max(1.0, *(load / (os.cpu_count() or 1) for load in os.getloadavg()))


def await_(
    ask: Callable[[], _T | None], saw: Callable[[], object] | None = None, limit_s: float = PATIENCE_S
) -> _T:
    """Ask until the answer is true, and give it; fail with the last one, and with what `saw` tells."""
    deadline_s = time.monotonic() + limit_s
    while not (answer := ask()):
        if time.monotonic() > deadline_s:
            told = "" if saw is None else f"; {saw()}"
            raise AssertionError(f"after {limit_s:g} s it is still {answer!r}{told}")
        time.sleep(_PAUSE_S)
    return answer
