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
    isolated
        Whether versions predict in a process of their own, in each worker, from the first request on.
        Without it a version does so once it was too slow for the loop of its worker, or harmed it.
    deadline
        How long the models of a request may take. Then the request is refused, and the process of a
        model that is still at work is ended, or its worker is replaced.
    memory_mb
        How much memory a process of models may take, in megabytes.
    guard
        Whether learning, of each label or on schedule, stops with an alarm before an example that would
        ruin the learned state, as :mod:`headwater.loop.training.guard.learning_guard` tells it.
    """

    durability: Durability = "synced"
    window_ms: int = 100
    most_waiting: int = 10_000
    checkpoint: Duration = "1h"
    guard: bool = True
    isolated: bool = False
    deadline: Duration = "10s"
    memory_mb: int = 2_000

    def __post_init__(self) -> None:
        duration(self.checkpoint, "checkpoint")
        duration(self.deadline, "deadline")
        if self.durability not in ("synced", "batch"):
            raise DeclarationError(
                f"durability={self.durability!r} is not known", hint="write 'synced' or 'batch'"
            )
        for name in ("guard", "isolated"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise DeclarationError(f"{name}={value!r} is not known", hint="write True or False")
        for name, usual in (("window_ms", 100), ("most_waiting", 10_000), ("memory_mb", 2_000)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DeclarationError(
                    f"{name}={value!r} is not a number from 1 on", hint=f"write {name}={usual:_}"
                )

    @property
    def deadline_s(self) -> float:
        """The deadline in seconds."""
        return duration(self.deadline).total_seconds()
