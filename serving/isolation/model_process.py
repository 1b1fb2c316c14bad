"""A separate process for models: whatever a model does in it, the process that asks goes on.

It takes commands, one at a time: to load a state, or to predict. If a reply does not come in time, the
process that asks kills it. A model in it may exit, crash, hang, fork, print without end or take all the
memory that it is allowed.
"""

import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import msgspec

from headwater.infra.processes import PARENT, end_with_parent
from headwater.learners.learner import Learner
from headwater.registry.restore import restore
from headwater.serving.isolation.loop_cost import Stopwatch
from headwater.spec.data.records import FeatureValue, Output
from headwater.spec.data.scalars import plain_output
from headwater.spec.errors import HeadwaterError

__all__ = [
    "MEMORY_MB",
    "LoadCommand",
    "LoadReply",
    "ModelProcess",
    "PredictCommand",
    "PredictReply",
    "Row",
    "main",
]

MEMORY_MB = 2_000
"""How much memory a process of models may take if nothing else is said, in megabytes."""

_LOAD_S = 120.0  # to start, or to load a state: importing a library is slow on a busy machine
_WAIT_S = 0.02
_END_S = 1.0
_ALARM_FACTOR = 2
_OUT_OF_MEMORY = 77
_NICE = 5  # a loop, which answers for all pipelines, goes first
_MOST_TRACE = 4_000


Row = dict[str, FeatureValue]
"""The features of one prediction, by name."""


class LoadCommand(msgspec.Struct, frozen=True, tag=True):
    """Load a state under a name, and forget all others but those to keep.

    Parameters
    ----------
    name
        Its name in later commands.
    state, recipe, proof
        As stored with a version.
    key
        The signing key.
    keep
        Names of the states to keep.
    """

    name: str
    state: bytes
    recipe: bytes
    proof: bytes
    key: bytes
    keep: tuple[str, ...] = ()


class PredictCommand(msgspec.Struct, frozen=True, tag=True):
    """Predict with a loaded state: as many rows as fit into so many seconds, but one at least."""

    name: str
    rows: list[Row]
    within_s: float


class LoadReply(msgspec.Struct, frozen=True, tag=True):
    """Reply once the process has started or a state is loaded; `failure` says why it was not."""

    failure: str = ""


class PredictReply(msgspec.Struct, frozen=True, tag=True):
    """The outputs of the first rows of a command.

    Parameters
    ----------
    outputs
        One a row; None for a row that failed.
    took_s
        Seconds that each took, as :class:`~headwater.serving.isolation.loop_cost.Stopwatch` has it.
    failures
        The name of the error of each row that failed, by its place.
    trace
        Where the first of them was raised.
    """

    outputs: list[Output | None]
    took_s: list[float]
    failures: dict[int, str] = {}
    trace: str = ""


_COMMANDS: msgspec.msgpack.Decoder[LoadCommand | PredictCommand] = msgspec.msgpack.Decoder(
    LoadCommand | PredictCommand
)
_REPLIES: msgspec.msgpack.Decoder[LoadReply | PredictReply] = msgspec.msgpack.Decoder(
    LoadReply | PredictReply
)


class ModelProcess:
    """The handle of the process, for the one that asks.

    Its owner sends a command only after the reply to the one before; :meth:`kill` ends it.

    Parameters
    ----------
    home
        The home folder.
    limit_s
        The longest time for one prediction.
    memory_mb
        How much memory it may take, in megabytes.
    """

    def __init__(self, home: Path, limit_s: float, memory_mb: int = MEMORY_MB) -> None:
        self._limit_s = limit_s
        self._here, there = Pipe()
        command = [sys.executable, "-m", "headwater.serving.isolation.model_process"]
        paths = os.pathsep.join(path for path in sys.path if path)
        own = {"HEADWATER_HOME": str(home), "PYTHONPATH": paths, PARENT: str(os.getpid())}
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, str(there.fileno()), str(limit_s), str(memory_mb)],
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            pass_fds=(there.fileno(),),
            start_new_session=True,
        )
        there.close()
        self._until_s: float | None = time.monotonic() + _LOAD_S

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, command: LoadCommand | PredictCommand) -> None:
        """Send a command; the command before has its reply.

        Raises
        ------
        OSError
            If it has ended.
        """
        limit_s = _LOAD_S if isinstance(command, LoadCommand) else self._limit_s + command.within_s
        self._here.send_bytes(msgspec.msgpack.encode(command))
        self._until_s = time.monotonic() + limit_s

    def answer(self, wait_s: float = _WAIT_S) -> LoadReply | PredictReply | None:
        """Return the reply, if it comes within so many seconds; else None.

        Raises
        ------
        TimeoutError
            If the reply is overdue.
        EOFError, OSError
            If the process has ended.
        """
        if self._here.poll(wait_s):
            self._until_s = None
            return _REPLIES.decode(self._here.recv_bytes())
        if self._until_s is not None and time.monotonic() > self._until_s:
            raise TimeoutError
        return None

    def reply(self) -> LoadReply | PredictReply:
        """Wait for the reply.

        Raises
        ------
        TimeoutError, EOFError, OSError
            As :meth:`answer` does.
        """
        while True:
            found = self.answer(1.0)
            if found is not None:
                return found

    def hang_up(self) -> None:
        """Kill it from another thread than the one that asks, which meets its end."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self, *, ends: bool = False) -> str:
        """Kill the process with all that its models started; return how it ended, for a person.

        Parameters
        ----------
        ends
            Whether it is ending by itself: its status is known in a moment.
        """
        status = self._process.poll()
        if ends and status is None:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(_END_S)
        with suppress(ProcessLookupError):  # what it started lives on in its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._here.close()
        if status is None:
            return "was killed"
        if status == _OUT_OF_MEMORY:
            return "ended: it was out of memory"
        return f"ended with status {status}" if status >= 0 else f"ended by signal {-status}"


def main(handle: int, limit_s: float, memory_mb: int) -> int:
    """Serve the process that asks until it hangs up.

    Parameters
    ----------
    handle
        The pipe's file descriptor.
    limit_s
        The longest time for one prediction. After twice that time the kernel ends the process, even if
        the one that asks was killed: no model can keep it.
    memory_mb
        How much memory it may take, in megabytes.
    """
    end_with_parent()
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mb * 1_000_000, most))
    pipe = Connection(handle)
    learners: dict[str, Learner] = {}
    pipe.send_bytes(msgspec.msgpack.encode(LoadReply()))
    silence = os.open(os.devnull, os.O_WRONLY)  # what models print has no end
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    with suppress(EOFError, OSError):  # the one that asks has ended
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0)
            command = _COMMANDS.decode(pipe.recv_bytes())
            within_s = _LOAD_S if isinstance(command, LoadCommand) else limit_s + command.within_s
            signal.setitimer(signal.ITIMER_REAL, within_s * _ALARM_FACTOR)
            try:
                reply = _done(command, learners)
            except MemoryError:
                os._exit(_OUT_OF_MEMORY)
            pipe.send_bytes(msgspec.msgpack.encode(reply))
    return 0


def _done(
    command: LoadCommand | PredictCommand, learners: dict[str, Learner]
) -> LoadReply | PredictReply:
    if isinstance(command, LoadCommand):
        return _load(command, learners)
    return _predict(command, learners)


def _load(command: LoadCommand, learners: dict[str, Learner]) -> LoadReply:
    for name in learners.keys() - set(command.keep):
        del learners[name]
    try:
        learners[command.name] = restore(command.state, command.recipe, command.proof, command.key)
    except HeadwaterError as error:
        return LoadReply(str(error))
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a model does
        return LoadReply(f"{type(error).__name__}: {error}"[:1_000])
    return LoadReply()


def _predict(command: PredictCommand, learners: dict[str, Learner]) -> PredictReply:
    learner, pid, until_s = learners[command.name], os.getpid(), time.monotonic() + command.within_s
    reply = PredictReply([], [])
    for place, row in enumerate(command.rows):
        watch = Stopwatch.start()
        output = None
        try:
            output = plain_output(learner.predict_one(row))
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a model does
            reply.failures[place] = type(error).__name__
            if not reply.trace:
                trace = traceback.format_exc()[-_MOST_TRACE:]
                reply = msgspec.structs.replace(reply, trace=trace)
        if os.getpid() != pid:  # the model forked: the copy must not answer, too
            os._exit(0)
        reply.outputs.append(output)
        reply.took_s.append(watch.took_s())
        if time.monotonic() > until_s:
            break
    return reply


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
