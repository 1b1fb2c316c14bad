"""Try a state in a process of its own before it serves: what it does there harms nobody."""

import atexit
import threading
from collections.abc import Sequence
from itertools import cycle, islice

import msgspec

from headwater.infra.settings import Settings
from headwater.serving.isolation.loop_cost import slow_probes
from headwater.serving.isolation.model_process import (
    LoadCommand,
    LoadReply,
    ModelProcess,
    PredictCommand,
    PredictReply,
    Row,
)
from headwater.serving.published.published_models import Probe
from headwater.spec.errors import ModelError, NotRebuildableError
from headwater.spec.outputs import where_to_look
from headwater.spec.serving.serving import Serving

__all__ = ["Trial", "try_state"]

_WITHIN_S = 1.0
_PROBES = 8
_ENDED = (EOFError, OSError, msgspec.DecodeError, UnicodeDecodeError)


class Trial(msgspec.Struct, frozen=True):
    """How a state answered.

    Parameters
    ----------
    probes
        Its outputs, for as many rows as a second allowed.
    isolated
        Why it must predict in a process of its own; empty if it need not.
    """

    probes: tuple[Probe, ...]
    isolated: str


class _TrialProcess:
    """The process of this keeper's trials, one after the other; it starts with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: ModelProcess | None = None
        self._limits: tuple[float, int] | None = None

    def ask(
        self, commands: Sequence[LoadCommand | PredictCommand], serving: Serving, settings: Settings
    ) -> list[LoadReply | PredictReply]:
        """Send commands, and return the replies.

        Raises
        ------
        ModelError
            If the process ends or does not reply in time. One that ended after earlier trials, which
            may have left it little memory, is started again first.
        """
        limits = (serving.deadline_s, serving.memory_mb)
        with self._lock:
            if self._limits != limits:
                self._end()
            was_used = self._process is not None
            try:
                return self._replies(commands, limits, settings)
            except TimeoutError as error:
                self._end()
                raise ModelError(f"did not answer within {limits[0]:g} s") from error
            except _ENDED as error:
                end = self._end(ends=True)
                if not was_used:
                    raise ModelError(f"failed: its process {end}") from error
        return self.ask(commands, serving, settings)

    def _replies(
        self,
        commands: Sequence[LoadCommand | PredictCommand],
        limits: tuple[float, int],
        settings: Settings,
    ) -> list[LoadReply | PredictReply]:
        if self._process is None:
            self._process, self._limits = ModelProcess(settings.root, *limits), limits
            self._process.reply()
        replies = []
        for command in commands:
            self._process.ask(command)
            replies.append(self._process.reply())
        return replies

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self, *, ends: bool = False) -> str:
        process, self._process = self._process, None
        return "" if process is None else process.kill(ends=ends)


_PROCESS = _TrialProcess()
atexit.register(_PROCESS.close)


def try_state(
    version: str,
    content: tuple[bytes, bytes, bytes],
    rows: Sequence[Row],
    serving: Serving,
    settings: Settings,
) -> Trial:
    """Load a state in another process, and let it predict.

    Parameters
    ----------
    version
        The number of its version.
    content
        The bytes of state, recipe and proof.
    rows
        Features for which it predicts.
    serving, settings
        The limits of the pipeline's models, and the signing key.

    Raises
    ------
    ModelError
        If it does not answer in time, or its process ends.
    NotRebuildableError
        If it does not load, or fails on a row.
    """
    hint = "look at the model, or roll back: headwater rollback"
    load = LoadCommand("tried", *content, settings.key())
    commands: list[LoadCommand | PredictCommand] = [load]
    if rows:
        asked = [*islice(cycle(rows), max(len(rows), _PROBES))]  # a first one says little of its time
        commands.append(PredictCommand("tried", asked, _WITHIN_S))
    try:
        loaded, *predicted = _PROCESS.ask(commands, serving, settings)
    except ModelError as error:
        raise ModelError(f"version {version} {error.what}", hint) from error
    if isinstance(loaded, LoadReply) and loaded.failure:
        raise NotRebuildableError(f"version {version} does not load: {loaded.failure}", hint)
    return Trial((), "") if not predicted else _judged(version, rows, predicted[0])


def _judged(version: str, rows: Sequence[Row], reply: LoadReply | PredictReply) -> Trial:
    assert isinstance(reply, PredictReply)  # noqa: S101 - one reply a command
    probes = []
    for place, (row, output) in enumerate(zip(rows, reply.outputs, strict=False)):
        if output is None:
            raise NotRebuildableError(
                f"version {version} fails on features of a prediction ({reply.failures[place]})",
                hint=where_to_look(row),
            )
        probes.append(Probe(row, output))
    return Trial(tuple(probes), slow_probes(reply.took_s))
