"""Steps that a thread repeats beside other work: it ends at once, and no error of a step ends it."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Self

from headwater.spec.errors import HeadwaterError

__all__ = ["Repeating"]


class Repeating:
    """A thread that repeats steps until the end of a ``with`` block.

    Each step is taken for itself. If one fails, the error is logged, once until it changes or the step
    succeeds; the other steps are taken, and the step is taken again.

    Parameters
    ----------
    name
        The thread's name.
    every_s
        The wait between two rounds, in seconds.
    steps
        The steps, by the consequence of an error: ``"the keys published before stay valid"``. Without a
        step there is no thread.
    logger
        Where errors are logged.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        steps: Mapping[str, Callable[[], object]],
        logger: logging.Logger,
    ) -> None:
        self._every_s = every_s
        self._steps = steps
        self._logger = logger
        self._logged: dict[str, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def __enter__(self) -> Self:
        if self._steps:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._steps:
            self._thread.join()

    def take_each(self) -> None:
        """Take each step once, in the caller's thread: before the block, or after it."""
        for consequence, step in self._steps.items():
            try:
                step()
            except Exception as error:  # noqa: BLE001 - a bug in one step, too, stops no other
                self._log(consequence, error)
            else:
                self._logged.pop(consequence, None)

    def _repeat(self) -> None:
        while not self._ended.wait(self._every_s):
            self.take_each()

    def _log(self, consequence: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._logged.get(consequence) != text:
            self._logged[consequence] = text
            expected = isinstance(error, HeadwaterError | OSError)
            self._logger.warning("%s: %s", consequence, error, exc_info=None if expected else error)
