"""Fill the label queues, in a thread of the keeper's process."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Self

from headwater.loop.binding import Bound
from headwater.serving.published.repeating import Repeating
from headwater.spec.errors import BusyError

__all__ = ["QueueFiller"]

_LOOK_S = 0.25
_STEPS = 20
_logger = logging.getLogger("headwater.keeper")


class QueueFiller:
    """Fill the label queues with questions about what was recorded, a few thousand records a round.

    It has its own thread, since the keeper may be busy learning, and people wait for questions. Each
    step is one short transaction. Where learning goes on schedule, so that no keeper sequences the
    records, it does. It is used in a ``with`` block.

    Parameters
    ----------
    bounds
        The pipelines with their stores; those that ask no people are skipped.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        steps = {
            f"{bound.pipeline.name}: the label queue is filled later": partial(_fill, bound)
            for bound in bounds
            if bound.pipeline.people is not None
        }
        self._repeating = Repeating("label queues", _LOOK_S, steps, _logger)

    def __enter__(self) -> Self:
        self._repeating.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._repeating.__exit__(*error)

    def step(self) -> None:
        """Fill each queue for one round, in the caller's thread."""
        self._repeating.take_each()


def _fill(bound: Bound) -> None:
    """Sequence new records, unless another process does, and fill the queue."""
    log = bound.log
    if bound.pipeline.learn != "each label" and log.unsequenced():
        with suppress(BusyError), log.sequencer() as sequencer:
            for _ in range(_STEPS):
                if sequencer.step()[1]:
                    break
    log.queue().fill(_STEPS)
