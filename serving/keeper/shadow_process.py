"""A process of its own for shadows: whatever a model does in it, the keeper goes on.

The keeper loads versions into it and gives it requests, one at a time. It answers at least once a second
while it predicts; of one that does not answer in time, the process is killed.
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
from headwater.spec.errors import HeadwaterError

__all__ = ["LoadCommand", "LoadReply", "PredictCommand", "PredictReply", "ShadowProcess", "main"]

_LOAD_S = 120.0  # to start, or to load a version: importing a library is slow on a busy machine
_TELL_S = 1.0
_WAIT_S = 0.02
_ALARM_FACTOR = 2


class LoadCommand(msgspec.Struct, frozen=True, tag=True):
    """Take a version in, and forget all but those to keep."""

    version: str
    state: bytes
    recipe: bytes
    proof: bytes
    keep: tuple[str, ...]


class PredictCommand(msgspec.Struct, frozen=True, tag=True):
    """Predict with a version that was loaded."""

    version: str
    rows: list[dict[str, FeatureValue]]


class LoadReply(msgspec.Struct, frozen=True, tag=True):
    """The process has started, or a version is loaded; or why it is not."""

    failure: str = ""


class PredictReply(msgspec.Struct, frozen=True, tag=True):
    """Outputs of the first rows, in order: all, or as many as a second allowed; None where it failed."""

    outputs: list[Output | None]
    failure: str = ""


_ASKED: msgspec.msgpack.Decoder[LoadCommand | PredictCommand] = msgspec.msgpack.Decoder(
    LoadCommand | PredictCommand
)
_TOLD: msgspec.msgpack.Decoder[LoadReply | PredictReply] = msgspec.msgpack.Decoder(
    LoadReply | PredictReply
)


class ShadowProcess:
    """The process, as the keeper has it.

    Made when the first shadow is due; :meth:`kill` ends it. It is asked only when it has answered.

    Parameters
    ----------
    variables
        Its environment: home and settings.
    limit_s
        How long it may take for one prediction.
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

    def ask(self, what: LoadCommand | PredictCommand) -> None:
        """Give it something to do; it has answered what it was asked before.

        Raises
        ------
        OSError
            If it has ended.
        """
        self._here.send_bytes(msgspec.msgpack.encode(what))
        limit_s = _LOAD_S if isinstance(what, LoadCommand) else self._limit_s
        self._until_s = time.monotonic() + limit_s

    def answer(self) -> LoadReply | PredictReply | None:
        """Give its answer, if that comes within a moment.

        Raises
        ------
        TimeoutError
            If it is overdue.
        EOFError, OSError
            If the process has ended.
        """
        if self._here.poll(_WAIT_S):
            self._until_s = None
            return _TOLD.decode(self._here.recv_bytes())
        if self._until_s is not None and time.monotonic() > self._until_s:
            raise TimeoutError
        return None

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._here.close()


def main(handle: int, limit_s: float) -> int:
    """Serve the keeper until that hangs up.

    Parameters
    ----------
    handle
        The pipe's file descriptor.
    limit_s
        How long a prediction may take. The kernel ends the process when twice that has passed: no model
        can keep it, also where the keeper was killed.
    """
    end_with_parent()
    pipe = Connection(handle)
    learners: dict[str, Learner] = {}
    pipe.send_bytes(msgspec.msgpack.encode(LoadReply()))
    with suppress(EOFError, OSError):  # the keeper has ended
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0)
            asked = _ASKED.decode(pipe.recv_bytes())
            within_s = _LOAD_S if isinstance(asked, LoadCommand) else limit_s + _TELL_S
            signal.setitimer(signal.ITIMER_REAL, within_s * _ALARM_FACTOR)
            told = (
                _load(asked, learners) if isinstance(asked, LoadCommand) else _predict(asked, learners)
            )
            pipe.send_bytes(msgspec.msgpack.encode(told))
    return 0


def _load(asked: LoadCommand, learners: dict[str, Learner]) -> LoadReply:
    for version in learners.keys() - set(asked.keep):
        del learners[version]
    try:
        learners[asked.version] = restore(asked.state, asked.recipe, asked.proof)
    except HeadwaterError as error:
        return LoadReply(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a model does
        return LoadReply(f"{type(error).__name__}: {error}")
    return LoadReply()


def _predict(asked: PredictCommand, learners: dict[str, Learner]) -> PredictReply:
    learner, until_s = learners[asked.version], time.monotonic() + _TELL_S
    outputs: list[Output | None] = []
    failure = ""
    for row in asked.rows:
        try:
            outputs.append(learner.predict_one(row))
        except Exception as error:  # noqa: BLE001 - whatever a model does
            outputs.append(None)
            failure = failure or type(error).__name__
        if time.monotonic() > until_s:
            break
    return PredictReply(outputs, failure)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
