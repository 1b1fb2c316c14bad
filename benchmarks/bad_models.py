"""A model that does what no model should, where its feature says so. Its text is kept with versions."""

import ctypes
import os
import sys
import time

from river import linear_model

KEPT: list[bytes] = []
"""What the model takes and never gives back."""


class Bad(linear_model.LogisticRegression):
    """Predicts quickly where `act` is 0, else does what its number says; 100 more: to learn."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Predict, or do harm."""
        _act(x["act"])
        found: dict[bool, float] = super().predict_proba_one(x)
        return found

    def learn_one(self, x: dict[str, float], y: bool, w: float = 1.0) -> None:
        """Learn, or do harm."""
        _act(x["act"] - 100)
        super().learn_one({**x, "act": 0.0}, y, w)


def _act(number: float) -> None:
    if 0 < number < 100:
        list(HARM.values())[int(number) - 1]()


def _hang() -> None:
    while True:
        pass


def _fork() -> None:
    os.fork()


def _leave() -> None:
    os._exit(3)


def _crash() -> None:
    ctypes.string_at(0)


def _raise() -> None:
    raise ZeroDivisionError


HARM = {
    "takes 5 s": lambda: time.sleep(5),
    "hangs": _hang,
    "exits": _leave,
    "raises SystemExit": lambda: sys.exit(3),
    "crashes": _crash,
    "forks": _fork,
    "prints 10 MB": lambda: print("x" * 10_000_000),
    "takes 20 MB each": lambda: KEPT.append(b"x" * 20_000_000),
    "takes 1 MB each": lambda: KEPT.append(b"x" * 1_000_000),
    "raises": _raise,
    "takes 10 ms": lambda: time.sleep(0.01),
}
"""What it does, by name; the first is number 1."""


def bad() -> object:
    """Make the model."""
    return Bad()
