"""A thread that asks the process of isolated versions, so that the loop of the worker never waits."""

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from headwater.infra.settings import Settings
from headwater.serving.isolation.model_process import (
    LoadCommand,
    LoadReply,
    ModelProcess,
    PredictCommand,
    PredictReply,
    Row,
)
from headwater.serving.published.published_models import PublishedModels, ServedState, check_probes
from headwater.spec.data.records import Output
from headwater.spec.errors import HeadwaterError, ModelError, NotRebuildableError
from headwater.spec.pipeline import Pipeline

__all__ = ["FailedRow", "LoadWork", "ModelThread", "ProcessEnds", "ProcessFault", "RowWork"]

_logger = logging.getLogger("headwater.serving")
_SLICE_S = 0.02
_MOST_TOGETHER = 32
_FIRST_WAIT_S, _LONGEST_WAIT_S, _COUNTED_S = 0.5, 4.0, 60.0
_ENDED = (EOFError, OSError, msgspec.DecodeError, UnicodeDecodeError)


class FailedRow(NamedTuple):
    """A row on which a version fails: the name of the error, and where it was raised."""

    error: str
    trace: str


class RowWork(NamedTuple):
    """A row that a request waits for, of a state that may serve no more by the time it is asked."""

    state: ServedState
    row: Row
    future: "asyncio.Future[Output | FailedRow]"


class LoadWork(NamedTuple):
    """A state that a swap waits for."""

    state: ServedState
    future: "asyncio.Future[None]"


class ProcessFault(NamedTuple):
    """How the process ended; it is not started again before a time.

    Parameters
    ----------
    error
        What requests are answered until then.
    state
        The state at which it ended.
    again_s
        When it may start again, in seconds of the monotonic clock.
    """

    error: ModelError
    state: ServedState
    again_s: float


class ProcessEnds:
    """How a process ended within the last minute."""

    def __init__(self) -> None:
        self._newest: ModelError | None = None
        self._times_s: deque[float] = deque()

    def note(self, error: ModelError, state: ServedState) -> ProcessFault:
        """Note an end; return the fault, with when the process may start again."""
        now_s = time.monotonic()
        self._times_s.append(now_s)
        while self._times_s[0] < now_s - _COUNTED_S:
            self._times_s.popleft()
        self._newest, often = error, len(self._times_s) - 2
        wait_s = 0.0 if often < 0 else min(_FIRST_WAIT_S * 2.0**often, _LONGEST_WAIT_S)
        return ProcessFault(error, state, now_s + wait_s)

    def recent(self) -> ModelError | None:
        """Return how it ended last, and how often it did; None if it did not."""
        earliest_s = time.monotonic() - _COUNTED_S
        times = sum(end_s >= earliest_s for end_s in tuple(self._times_s))
        if self._newest is None or not times:
            return None
        often = f", {times} times within a minute" if times > 1 else ""
        return ModelError(f"{self._newest.what}{often}", self._newest.hint)


class ModelThread:
    """The thread and the process of one pipeline's isolated versions in one worker.

    Both start with the first work. The process is started again when it is next needed.

    Parameters
    ----------
    pipeline, settings, live
        The pipeline, the address of the home folder, and its published states.

    Attributes
    ----------
    states
        The states that the process keeps, by name; it forgets the others with the next load.
    last_fault
        How the process ended last; None once it answers again.
    ends
        How it ended of late, also if it answers again.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings, live: PublishedModels) -> None:
        self.states: dict[str, ServedState] = {}
        self.last_fault: ProcessFault | None = None
        self.ends = ProcessEnds()
        self._name = pipeline.name
        self._serving = pipeline.serving
        self._settings = settings
        self._live = live
        self._loaded: set[str] = set()
        self._process: ModelProcess | None = None
        self._queue: deque[RowWork | LoadWork] = deque()
        self._tokens = threading.Semaphore(0)
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """The number of rows and states that wait for the process."""
        return len(self._queue)

    def has_loaded(self, name: str) -> bool:
        """Return whether the process has a state."""
        return self._process is not None and name in self._loaded

    def too_slow(self, version: str) -> ModelError:
        """Return the error of a request that waited for longer than its deadline."""
        return ModelError(
            f"version {version} of {self._name!r} did not answer within {self._serving.deadline_s:g} s",
            hint=f"look at the model; or roll back: headwater rollback {self._name}",
        )

    def put(self, work: RowWork | LoadWork) -> None:
        """Let the thread do some work; it settles the future on the loop."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"models {self._name}", daemon=True)
            self._thread.start()
        self._queue.append(work)
        self._tokens.release()

    async def close(self) -> None:
        """End the process and the thread."""
        self._ended = True
        self._tokens.release()
        process = self._process
        if process is not None:
            process.hang_up()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        """Do the work of the queue, in the thread."""
        while True:
            self._tokens.acquire()
            if self._ended:
                break
            work = self._queue.popleft()
            if isinstance(work, LoadWork):
                self._do_load(work)
            else:
                self._do_rows([work, *self._more_of(work.state)])
        self._end_process()
        for left in self._queue:
            _settle(left, ModelError("the service ends", hint="send the request again"))

    def _more_of(self, state: ServedState) -> list[RowWork]:
        """Take the next rows of the queue that are for the same state."""
        more: list[RowWork] = []
        while self._queue and len(more) < _MOST_TOGETHER - 1:
            following = self._queue[0]
            if not isinstance(following, RowWork) or following.state.name != state.name:
                break
            self._tokens.acquire()
            more.append(following)
            self._queue.popleft()
        return more

    def _do_load(self, work: LoadWork) -> None:
        try:
            self._load(work.state)
        except HeadwaterError as error:
            _settle(work, error)
        else:
            _settle(work, None)

    def _load(self, state: ServedState) -> None:
        """Load a state, and compare its outputs for its probes.

        Raises
        ------
        HeadwaterError
            If it cannot be loaded, or the process ends.
        """
        content = self._live.files(state)
        keep = tuple(self.states.keys() & self._loaded)
        command = LoadCommand(state.name, *content, self._settings.key(), keep)
        reply = self._ask(command, state)
        self._loaded &= {*keep}
        if isinstance(reply, LoadReply) and reply.failure:
            raise NotRebuildableError(
                f"version {state.version} does not load: {reply.failure}",
                hint=f"look at the model, or roll back: headwater rollback {self._name}",
            )
        self._live.check_learned(content, state)
        for probe in state.probes:
            tried = self._ask(PredictCommand(state.name, [probe.features], 0.0), state)
            outputs = tried.outputs if isinstance(tried, PredictReply) else [None]
            check_probes(self._name, state.version, [probe], outputs)
        self._loaded.add(state.name)  # one that fails its probes is not
        self.last_fault = None

    def _do_rows(self, works: list[RowWork]) -> None:
        """Predict, slice by slice; if the process ends meanwhile, its rows are refused."""
        left = [work for work in works if not work.future.cancelled()]
        try:
            while left:
                left = self._do_slice(left)
        except HeadwaterError as error:
            for work in left:
                _settle(work, error)

    def _do_slice(self, works: list[RowWork]) -> list[RowWork]:
        state = works[0].state
        if not self.has_loaded(state.name):
            self._load(state)
        command = PredictCommand(state.name, [work.row for work in works], _SLICE_S)
        reply = self._ask(command, state)
        if not isinstance(reply, PredictReply):
            raise ModelError("the process of the models is out of step", hint="send the request again")
        for place, (work, output) in enumerate(zip(works, reply.outputs, strict=False)):
            failed = FailedRow(reply.failures.get(place, "its output is missing"), reply.trace)
            _settle(work, failed if output is None else output)
        self.last_fault = None
        return [work for work in works[len(reply.outputs) :] if not work.future.cancelled()]

    def _ask(
        self, command: LoadCommand | PredictCommand, state: ServedState
    ) -> LoadReply | PredictReply:
        """Send a command, and wait for the reply; start the process if there is none.

        Raises
        ------
        ModelError
            If it ends, or does not reply in time.
        """
        try:
            if self._process is None:
                self._process = ModelProcess(
                    self._settings.root, self._serving.deadline_s, self._serving.memory_mb
                )
                self._process.reply()
            self._process.ask(command)
            return self._process.reply()
        except TimeoutError as error:
            self._end_process()
            raise self._noted(self.too_slow(state.version), state) from error
        except _ENDED as error:
            how = self._end_process(ends=True)
            what = f"the process of version {state.version} of {self._name!r} {how}"
            hint = f"look at the model; or roll back: headwater rollback {self._name}"
            raise self._noted(ModelError(what, hint), state) from error

    def _noted(self, error: ModelError, state: ServedState) -> ModelError:
        """Note a fault. The process starts again at once, but later and later if it ends often."""
        self.last_fault = self.ends.note(error, state)
        if not self._ended:
            fields = {"pipeline": self._name, "version": state.version}
            _logger.error("%s", error.what, extra={"json_fields": fields})
        return error

    def _end_process(self, *, ends: bool = False) -> str:
        process, self._process = self._process, None
        self._loaded = set()
        return "" if process is None else process.kill(ends=ends)


def _settle(work: RowWork | LoadWork, found: Output | FailedRow | HeadwaterError | None) -> None:
    """Hand a result, or an error, to whoever waits for it on the loop."""
    with suppress(RuntimeError):  # the loop is closed
        work.future.get_loop().call_soon_threadsafe(_deliver, work.future, found)


def _deliver(future: "asyncio.Future[Any]", found: object) -> None:
    if future.done():
        return
    if isinstance(found, HeadwaterError):
        future.set_exception(found)
    else:
        future.set_result(found)
