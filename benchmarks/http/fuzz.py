"""Schemathesis over the whole document of a running service: nothing fails, hangs or grows.

``python -m benchmarks.http.fuzz CASES`` sends another number of cases.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
from msgspec.structs import replace

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.serving import Running, loading, serving
from benchmarks.service.serving_toy import FEATURES, pipeline, publish
from benchmarks.service.soak import Sample, look
from headwater.infra.offline import quiet
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.binding import Bound
from headwater.spec.data.feature import Feature
from headwater.spec.data.source import QuerySource
from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.serving.queue import People

__all__ = ["customers", "fuzz", "fuzzed", "measure"]

_CASES, _SHORT_CASES = 60_000, 1
_PHASES, _SHORT_PHASES = "examples,coverage,fuzzing,stateful", "examples"
_RECORDS, _SHORT_RECORDS = 200_000, 100
_EXAMPLES = 200
_MOST_GROWN = 1.01
_WORKERS = 2
_CONNECTIONS = 16
_ANSWER_S = 30
_LOOK_S = 1.0
_MOST_ROUNDS = 1_000


class _Cases(msgspec.Struct):
    generated: int
    with_failures: int
    errored: int


class _Failures(msgspec.Struct):
    title: str
    count: int


class _Report(msgspec.Struct):
    complete: bool
    exit_code: int
    test_cases: _Cases
    failures: list[_Failures]
    errors: list[_Failures]


def customers() -> pl.DataFrame:
    """Give the table that is scored; the document's example asks for its first row."""
    keys = [f"customer-{number}" for number in range(17, 27)]
    return pl.DataFrame({"customer": keys, **{f"x{n}": [n / 20] * len(keys) for n in range(FEATURES)}})


fuzzed = replace(
    pipeline,
    # With bounds: the square of 1e300 is no number, and a version may refuse what it cannot answer.
    features=tuple(Feature(f"x{n}", float, low=-1e6, high=1e6) for n in range(FEATURES)),
    people=People(twice=1.0, random=0.5),
    batch=BatchPrediction(source=QuerySource(customers), key="customer", fall_through=True),
)


def measure(*, short: bool) -> Outcome:
    """Send what the document allows and what it does not, to every path, until the cases are many.

    See :func:`fuzz`.
    """
    return fuzz(_SHORT_CASES, _SHORT_PHASES, _SHORT_RECORDS) if short else fuzz(_CASES)


def fuzz(cases: int, phases: str = _PHASES, records: int = _RECORDS) -> Outcome:
    """Run schemathesis against ``headwater serve``, with all checks and in all phases.

    The service has two workers and the keeper, a pipeline with a queue for people and a table scored
    before, no keys, a version that may be promoted, and a log. Each round has a seed of its own.

    ``ratio`` is the number of cases that failed: a status of 500 or more, an answer that took half a
    minute, or one that the document does not describe. Also, the workers are those of the beginning, and
    resident memory grows by less than 1 % over the last two thirds: in the first one caches fill.

    Parameters
    ----------
    cases
        How many, at the least.
    phases
        Of schemathesis, in each round.
    records
        Predictions and labels that are in the log before.
    """
    with fresh_home(mlflow_database()) as settings:
        publish(settings, fuzzed)
        with Bound(fuzzed, settings) as bound:
            batch_predict(bound)
        with serving(settings, _WORKERS, [f"{__file__}:fuzzed"]) as to:
            _warm(to, records)
            workers = {one.pid for one in to.workers()}
            samples: list[list[Sample]] = []
            reports: list[_Report] = []
            for seed in range(_MOST_ROUNDS):
                reports.append(_round(to, settings.root, seed, phases, samples))
                sent = sum(one.test_cases.generated for one in reports)
                say(f"  {sent:,} cases")
                if sent >= cases:
                    break
            stayed = workers == {one.pid for one in to.workers()}
    resident = [sum(one.resident_bytes for one in tick) / 1e6 for tick in samples]
    third, tenth = len(resident) // 3, max(1, len(resident) // 10)
    grown = statistics.median(resident[-tenth:]) / statistics.median(resident[third : third + tenth])
    return at_most(
        float(sum(one.test_cases.with_failures + one.test_cases.errored for one in reports)),
        0.0,
        also=stayed and grown <= _MOST_GROWN and all(_sound(one) for one in reports),
        cases=sent,
        found=sorted({found.title for one in reports for found in one.failures + one.errors}),
        memory_last_over_first=round(grown, 4),
        resident_mb=round(resident[-1]),
        workers_stayed=stayed,
        rounds=len(reports),
    )


def _warm(to: Running, records: int) -> None:
    """Fill the caches of the workers' inboxes, 32 MB each, as fuzzing does too slowly to be flat."""
    with loading(to, _CONNECTIONS, retry=True) as load:
        while load.acknowledged < records:
            time.sleep(_LOOK_S)
        load.end()


def _sound(report: _Report) -> bool:
    return report.complete and report.exit_code == 0


def _round(to: Running, folder: Path, seed: int, phases: str, samples: list[list[Sample]]) -> _Report:
    """Run schemathesis once, and look at the service's memory meanwhile."""
    path = folder / f"report-{seed}.json"
    process = subprocess.Popen(_command(to, path, seed, phases), cwd=folder, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            samples.append(look(to))
            time.sleep(_LOOK_S)
    finally:
        process.kill()
        process.wait()
    return msgspec.json.decode(path.read_bytes(), type=_Report)


def _command(to: Running, report: Path, seed: int, phases: str) -> Iterator[str]:
    yield str(Path(sys.executable).with_name("schemathesis"))
    yield from ("--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run")
    yield from (f"{to.address}/openapi.json", "--no-color", "--checks", "all")
    yield from ("--max-examples", str(_EXAMPLES), "--seed", str(seed), "--phases", phases)
    yield from ("--generation-database", "none", "--continue-on-failure")
    yield from ("--request-timeout", str(_ANSWER_S))
    yield from ("--report", "json", "--report-json-path", str(report))


if __name__ == "__main__":
    quiet()
    print(fuzz(int(sys.argv[1])).line("fuzz", short=False))
