"""A separate process for shadows: whatever a model does in it, the keeper goes on.

The keeper sends it commands, one at a time: to load a version, or to predict. While it predicts, it
replies at least once a second. If a reply does not come in time, the keeper kills the process.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe

import msgspec

from headwater.infra.processes import end_with_parent
from headwater.learners.learner import Learner
from headwater.registry.restore import restore
from headwater.spec.data.records import FeatureValue, Output
from headwater.spec.data.scalars import plain_output
from headwater.spec.errors import HeadwaterError

__all__ = ["LoadCommand", "LoadReply", "PredictCommand", "PredictReply", "ShadowProcess", "main"]

_LOAD_S = 120.0  # to start, or to load a version: importing a library is slow on a busy machine
_REPLY_S = 1.0
_WAIT_S = 0.02
_ALARM_FACTOR = 2


class LoadCommand(msgspec.Struct, frozen=True, tag=True):
    """Load a version, and forget all others but those to keep."""

    version: str
    state: bytes
    recipe: bytes
    proof: bytes
    keep: tuple[str, ...]


class PredictCommand(msgspec.Struct, frozen=True, tag=True):
    """Predict with a loaded version."""

    version: str
    rows: list[dict[str, FeatureValue]]


class LoadReply(msgspec.Struct, frozen=True, tag=True):
    """Reply once the process has started or a version is loaded; `failure` says why it was not."""

    failure: str = ""


class PredictReply(msgspec.Struct, frozen=True, tag=True):
    """Outputs of the first rows, as many as a second allowed; None for a row that failed."""

    outputs: list[Output | None]
    failure: str = ""


_COMMANDS: msgspec.msgpack.Decoder[LoadCommand | PredictCommand] = msgspec.msgpack.Decoder(
    LoadCommand | PredictCommand
)
_REPLIES: msgspec.msgpack.Decoder[LoadReply | PredictReply] = msgspec.msgpack.Decoder(
    LoadReply | PredictReply
)


class ShadowProcess:
    """The keeper's handle of the process.

    The keeper makes it when the first shadow is due; :meth:`kill` ends it. The keeper sends a command
    only after the reply to the one before.

    Parameters
    ----------
    variables
        Its environment: home and settings.
    limit_s
        The longest time for one prediction.
    """

    def __init__(self, variables: Mapping[str, str], limit_s: float) -> None:
        self._limit_s = limit_s
        self._here, there = Pipe()
        command = [sys.executable, "-m", "headwater.serving.keeper.shadow_process"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, str(there.fileno()), str(limit_s)],
            env=variables,
            stdin=subprocess.DEVNULL,
            pass_fds=(there.fileno(),),
        )
        there.close()
        self._until_s: float | None = time.monotonic() + _LOAD_S

    def ask(self, command: LoadCommand | PredictCommand) -> None:
        """Send a command; the command before has its reply.

        Raises
        ------
        OSError
            If it has ended.
        """
        self._here.send_bytes(msgspec.msgpack.encode(command))
        limit_s = _LOAD_S if isinstance(command, LoadCommand) else self._limit_s
        self._until_s = time.monotonic() + limit_s

    def answer(self) -> LoadReply | PredictReply | None:
        """Return the reply, if it comes within a moment; else None.

        Raises
        ------
        TimeoutError
            If the reply is overdue.
        EOFError, OSError
            If the process has ended.
        """
        if self._here.poll(_WAIT_S):
            self._until_s = None
            return _REPLIES.decode(self._here.recv_bytes())
        if self._until_s is not None and time.monotonic() > self._until_s:
            raise TimeoutError
        return None

    def kill(self) -> None:
        """Kill the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._here.close()


def main(handle: int, limit_s: float) -> int:
    """Serve the keeper until it hangs up.

    Parameters
    ----------
    handle
        The pipe's file descriptor.
    limit_s
        The longest time for one prediction. After twice that time the kernel ends the process, even if
        the keeper was killed: no model can keep it.
    """
    end_with_parent()
    pipe = Connection(handle)
    learners: dict[str, Learner] = {}
    pipe.send_bytes(msgspec.msgpack.encode(LoadReply()))
    with suppress(EOFError, OSError):  # the keeper has ended
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0)
            command = _COMMANDS.decode(pipe.recv_bytes())
            within_s = _LOAD_S if isinstance(command, LoadCommand) else limit_s + _REPLY_S
            signal.setitimer(signal.ITIMER_REAL, within_s * _ALARM_FACTOR)
            reply = (
                _load(command, learners)
                if isinstance(command, LoadCommand)
                else _predict(command, learners)
            )
            pipe.send_bytes(msgspec.msgpack.encode(reply))
    return 0


def _load(command: LoadCommand, learners: dict[str, Learner]) -> LoadReply:
    for version in learners.keys() - set(command.keep):
        del learners[version]
    try:
        learners[command.version] = restore(command.state, command.recipe, command.proof)
    except HeadwaterError as error:
        return LoadReply(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a model does
        return LoadReply(f"{type(error).__name__}: {error}")
    return LoadReply()


def _predict(command: PredictCommand, learners: dict[str, Learner]) -> PredictReply:
    learner, until_s = learners[command.version], time.monotonic() + _REPLY_S
    outputs: list[Output | None] = []
    failure = ""
    for row in command.rows:
        try:
            outputs.append(plain_output(learner.predict_one(row)))
        except Exception as error:  # noqa: BLE001 - whatever a model does
            outputs.append(None)
            failure = failure or type(error).__name__
        if time.monotonic() > until_s:
            break
    return PredictReply(outputs, failure)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
