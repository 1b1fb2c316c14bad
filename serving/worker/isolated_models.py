"""Versions of a pipeline that predict in a process of their own, as a worker's loop sees them."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from headwater.infra.settings import Settings
from headwater.serving.isolation.model_process import Row
from headwater.serving.published.published_models import PublishedModels, ServedState
from headwater.serving.worker.model_thread import FailedRow, LoadWork, ModelThread, ProcessFault, RowWork
from headwater.spec.data.records import Output
from headwater.spec.errors import HeadwaterError, ModelError, OverloadedError
from headwater.spec.pipeline import Pipeline

__all__ = ["IsolatedModel", "IsolatedModels"]


class IsolatedModels:
    """The isolated versions of one pipeline in one worker.

    Parameters
    ----------
    pipeline, settings, live
        The pipeline, the address of the home folder, and its published states.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings, live: PublishedModels) -> None:
        self._name = pipeline.name
        self._serving = pipeline.serving
        self._thread = ModelThread(pipeline, settings, live)
        self._tried: ProcessFault | None = None

    async def predict(self, state: ServedState, rows: Sequence[Row]) -> list[Output | FailedRow]:
        """Return the output of a state for each row, or how it fails on it.

        Raises
        ------
        OverloadedError
            If too many rows wait already.
        ModelError
            If the process ends, or does not answer within the deadline.
        """
        self._check_open(len(rows))
        self._thread.states.setdefault(state.name, state)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Output | FailedRow]] = [loop.create_future() for _ in rows]
        for row, future in zip(rows, futures, strict=True):
            self._thread.put(RowWork(state, row, future))
        try:
            async with asyncio.timeout(self._serving.deadline_s):
                found = await asyncio.gather(*futures, return_exceptions=True)
        except TimeoutError as error:
            raise self._thread.too_slow(state.version) from error
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found  # type: ignore[return-value] # no error is left

    async def load(self, state: ServedState) -> None:
        """Load a state and try it on its probes.

        Raises
        ------
        HeadwaterError
            As :meth:`~headwater.serving.published.published_models.PublishedModels.load` does, and a
            ModelError if the process ends.
        """
        self._thread.states[state.name] = state
        if self._thread.has_loaded(state.name):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thread.put(LoadWork(state, future))
        await future

    async def try_again(self) -> None:
        """Start the process again after a fault: nobody may ask it while it is said not to answer."""
        fault = self._thread.last_fault
        if fault is None or fault is self._tried or time.monotonic() < fault.again_s:
            return
        if fault.state.name not in self._thread.states:
            return  # it serves no more
        self._tried = fault  # once; another try ends in another fault
        with suppress(HeadwaterError):
            await self.load(fault.state)

    def keep(self, names: set[str]) -> None:
        """Forget all states but these; the process forgets them with the next load."""
        states = self._thread.states
        self._thread.states = {name: state for name, state in states.items() if name in names}

    def fault(self) -> HeadwaterError | None:
        """Return why a request would be refused now: the process ended, or too many rows wait."""
        if self._thread.waiting >= self._serving.most_waiting:
            return self._overloaded()
        return None if self._thread.last_fault is None else self._thread.last_fault.error

    @property
    def recent_fault(self) -> ModelError | None:
        """How the process ended last, within a minute; also if it answers again."""
        return self._thread.ends.recent()

    async def close(self) -> None:
        """End the process and the thread."""
        await self._thread.close()

    def _check_open(self, rows: int) -> None:
        waiting = self._thread.waiting
        if waiting and waiting + rows > self._serving.most_waiting:
            raise self._overloaded()
        fault = self._thread.last_fault
        if fault is not None and time.monotonic() < fault.again_s:
            raise fault.error

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f"{self._thread.waiting:,} predictions wait for models of {self._name!r}: that is the limit",
            hint="send the request again in a second",
        )


class IsolatedModel(NamedTuple):
    """A version in the process of its pipeline's models."""

    models: IsolatedModels
    state: ServedState

    async def predict(self, rows: Sequence[Row]) -> list[Output | FailedRow]:
        """Predict, as :meth:`IsolatedModels.predict` does."""
        return await self.models.predict(self.state, rows)
