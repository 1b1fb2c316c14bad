"""How a pipeline is served, as declared."""

from typing import Literal

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["Durability", "Learning", "Serving"]

Durability = Literal["synced", "batch"]
Learning = Literal["on schedule", "each label"]


class Serving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a pipeline answers over HTTP: durability, limits, checkpoints.

    Parameters
    ----------
    durability
        ``"synced"`` answers a prediction after its record is synced to disk. ``"batch"`` answers at
        once and syncs a moment later: every answer then states the loss window, within which a record
        that was answered can be lost with the power. Labels are synced always.
    window_ms
        How long after its answer, at most, a record of ``"batch"`` is synced, in milliseconds.
    most_waiting
        How many records may wait for their sync; further requests are told to come back.
    checkpoint
        With ``learn="each label"``: how often what was learned becomes a version.
    guard
        Whether learning, of each label or on schedule, stops with an alarm before an example that would
        ruin the learned state, as :mod:`headwater.loop.training.learning_guard` tells it.
    """

    durability: Durability = "synced"
    window_ms: int = 100
    most_waiting: int = 10_000
    checkpoint: Duration = "1h"
    guard: bool = True

    def __post_init__(self) -> None:
        duration(self.checkpoint, "checkpoint")
        if self.durability not in ("synced", "batch"):
            raise DeclarationError(
                f"durability={self.durability!r} is not known", hint="write 'synced' or 'batch'"
            )
        if not isinstance(self.guard, bool):
            raise DeclarationError(f"guard={self.guard!r} is not known", hint="write True or False")
        for name, usual in (("window_ms", 100), ("most_waiting", 10_000)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DeclarationError(
                    f"{name}={value!r} is not a number from 1 on", hint=f"write {name}={usual:_}"
                )
