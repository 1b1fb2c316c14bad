"""What every claim is made of: an outcome, ratios of CPU time from one run, and a home of its own."""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from headwater.infra.settings import Settings
from headwater.spec.pipeline import Pipeline

__all__ = [
    "Outcome",
    "Pairs",
    "at_least",
    "at_most",
    "cpu_pairs",
    "fresh_home",
    "mlflow_database",
    "say",
    "unreported",
]

_END = object()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim came to.

    Parameters
    ----------
    ratio, bound
        The figure, and what it must reach; a bound of None is reported, whatever it is.
    holds
        Whether the claim holds: the bound, and what else the claim says.
    numbers
        More of what was measured, by name.
    """

    ratio: float
    bound: float | None
    holds: bool
    numbers: dict[str, object]

    def line(self, claim: str, *, short: bool) -> str:
        """Give it as one line of JSON; the short form has no verdict."""
        verdict: dict[str, object] = {"short": True} if short else {"holds": self.holds}
        found = {"claim": claim, "ratio": round(self.ratio, 4), "bound": self.bound}
        return msgspec.json.encode(found | verdict | self.numbers).decode()


class Pairs(NamedTuple):
    """CPU seconds of two ways of doing the same, measured in turns.

    Parameters
    ----------
    first_s, second_s
        Medians.
    ratio
        Median of the first over the second, pair by pair.
    pairs
        How many pairs.
    """

    first_s: float
    second_s: float
    ratio: float
    pairs: int


def at_least(ratio: float, bound: float, *, also: bool = True, **numbers: object) -> Outcome:
    """Give the outcome of a claim whose ratio must reach a bound; `also` is what else must hold."""
    return Outcome(ratio=ratio, bound=bound, holds=ratio >= bound and also, numbers=numbers)


def at_most(ratio: float, bound: float, *, also: bool = True, **numbers: object) -> Outcome:
    """Give the outcome of a claim whose ratio must not pass a bound; `also` is what else must hold."""
    return Outcome(ratio=ratio, bound=bound, holds=ratio <= bound and also, numbers=numbers)


def cpu_pairs(
    first: Callable[[], Iterator[None]], second: Callable[[], Iterator[None]], pairs: int
) -> Pairs:
    """Run two functions in turns, and compare the CPU time of this process, all threads counted.

    Within a pair a turn lasts until the next ``yield``: where a machine's speed changes by the second,
    short turns let both meet the same changes.
    """
    found = [_pair(first(), second()) for _ in range(pairs)]
    first_s, second_s = zip(*found, strict=True)
    return Pairs(
        statistics.median(first_s),
        statistics.median(second_s),
        statistics.median(a / b for a, b in found),
        pairs,
    )


@contextmanager
def fresh_home(mlflow: Path | None = None) -> Iterator[Settings]:
    """Give a home that is deleted afterwards.

    Parameters
    ----------
    mlflow
        A database of MLflow to copy there, from :func:`mlflow_database`.
    """
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        if mlflow is not None:
            shutil.copy(mlflow, folder)
        yield Settings(home=Path(folder))


@cache
def mlflow_database() -> Path:
    """Make an empty database of MLflow, once in a process: its migrations take seconds."""
    from headwater.registry.mlflow_store.connection import check_reachable  # noqa: PLC0415 - imports MLflow

    settings = Settings(home=Path(_folder().name))
    check_reachable(settings)
    return settings.root / "mlflow.sqlite"


def say(text: str) -> None:
    """Remark on the progress; standard output is for results."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _pair(*runs: Iterator[None]) -> tuple[float, float]:
    used_s = [0.0, 0.0]
    going = [True, True]
    while any(going):
        for which, run in enumerate(runs):
            started_s = time.process_time()
            going[which] = next(run, _END) is not _END
            used_s[which] += time.process_time() - started_s
    return used_s[0], used_s[1]


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="headwater-bench-mlflow-")


def unreported(pipeline: Pipeline) -> Pipeline:
    """Do without Evidently's report: nothing is decided by it, and it costs more than all the rest."""
    return replace(pipeline, monitoring=replace(pipeline.monitoring, report=False))
