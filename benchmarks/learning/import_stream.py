"""A long history comes in with little memory, and no more time a row than when it was held whole."""

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import polars as pl

from benchmarks.claim import Outcome, at_most, fresh_home
from benchmarks.models import river_regression
from headwater.features.record.entries import PREDICTION, Entry
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings
from headwater.loop.binding import Bound
from headwater.loop.replay.import_history import import_history
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["measure"]

_ROWS, _SHORT_ROWS = 5_000_000, 20_000
_BOUND_MB = 600.0
_PART = 500_000
_PAUSE_S = 0.01
_HERE = "benchmarks.learning.import_stream"
_BEFORE_US = {"parquet": 18.8, "csv": 20.1}
"""CPU a row of the commit before imports streamed (f4d8344), on the same files and machine."""

_NUMBERS = ("x0", "x1", "x2", "x3")
_PIPELINE = Pipeline(
    name="imported",
    task="binary",
    features=(
        *(Feature(name, float) for name in _NUMBERS),
        Feature("n", int),
        Feature("b", bool),
        Feature("c", str),
        Feature("d", str, nullable=True),
    ),
    label=LabelRule(wait="1d"),
    model=river_regression,
    update=Stateful(),
)


class _Import(msgspec.Struct):
    """What a process that imported a file has used."""

    records: int
    peak_mb: float
    cpu_us: float
    longest_wait_ms: float


def measure(*, short: bool) -> Outcome:
    """Import five million predictions with their labels from Parquet and from CSV (ten minutes).

    ``ratio`` is the greatest resident memory of the two processes, in MB; all of a process counts, with
    the libraries that it imports. Labels come in another order than predictions do. Another connection
    records once in ten milliseconds meanwhile, and the longest that it waited is given.
    """
    rows = _SHORT_ROWS if short else _ROWS
    found: dict[str, _Import] = {}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        _write(Path(folder), rows)
        for kind in _BEFORE_US:
            with fresh_home() as settings:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.learning.import_stream",
                    f"{folder}/history.{kind}",
                ]
                told = subprocess.run(
                    command,
                    env=os.environ | {"HEADWATER_HOME": str(settings.root)},
                    stdout=subprocess.PIPE,
                    check=True,
                ).stdout
                found[kind] = msgspec.json.decode(told, type=_Import)
    return at_most(
        max(one.peak_mb for one in found.values()),
        _BOUND_MB,
        also=all(one.records == 2 * rows for one in found.values()),
        rows=rows,
        **{
            f"{kind}_{name}": round(value, 2)
            for kind, one in found.items()
            for name, value in msgspec.to_builtins(one).items()
        },
        **{f"{kind}_cpu_us_before": before for kind, before in _BEFORE_US.items()},
    )


def _write(folder: Path, rows: int) -> None:
    """Write the history as Parquet and CSV, a part at a time."""
    from pyarrow import parquet  # noqa: PLC0415 - the importing process has its own

    with (folder / "history.csv").open("wb") as text:
        writer = None
        for start in range(0, rows, _PART):
            frame = _part(start, min(start + _PART, rows))
            frame.write_csv(text, include_header=start == 0)
            table = frame.to_arrow()
            writer = writer or parquet.ParquetWriter(folder / "history.parquet", table.schema)
            writer.write_table(table)
    if writer is not None:
        writer.close()


def _part(start: int, stop: int) -> pl.DataFrame:
    drawn, count = np.random.default_rng(start), stop - start
    at_us = np.arange(start, stop, dtype=np.int64) * 2_000_000 + 1_577_836_800_000_000
    known_us = at_us + drawn.integers(1, 7_200_000_000, count)
    times = {"served_at": at_us, "known_at": known_us}
    return pl.DataFrame(
        {
            "id": [f"r{row:09}" for row in range(start, stop)],
            **{name: drawn.normal(size=count) for name in _NUMBERS},
            "n": drawn.integers(0, 1_000, count),
            "b": drawn.random(count) < 0.5,
            "c": drawn.choice(["red", "green", "blue"], count),
            "d": drawn.choice(["u", "v"], count),
            "label": drawn.random(count) < 0.3,
            **{name: pl.Series(us).cast(pl.Datetime("us", "UTC")) for name, us in times.items()},
        }
    )


def _import(file: Path, settings: Settings) -> _Import:
    """Import a file in this process, while another one records."""
    with Bound(_PIPELINE, settings) as bound:
        ended, told = multiprocessing.get_context("spawn").Pipe()
        service = multiprocessing.get_context("spawn").Process(target=_serve, args=(settings, told))
        service.start()
        ended.recv()
        before = resource.getrusage(resource.RUSAGE_SELF)
        records = import_history(bound.log, file)
        after = resource.getrusage(resource.RUSAGE_SELF)
        ended.send(None)
        longest_wait_s = float(ended.recv())
        service.join()
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Import(
        records=records,
        peak_mb=after.ru_maxrss / 1_024,
        cpu_us=used_s / (records / 2) * 1e6,
        longest_wait_ms=1_000 * longest_wait_s,
    )


def _serve(settings: Settings, told: Connection) -> None:
    """Record once in ten milliseconds until told to end; tell the longest time that a record took."""
    longest_s, number = 0.0, 0
    with closing(Inbox(inbox_file(_PIPELINE.name, settings))) as inbox:
        told.send(None)
        while not told.poll(_PAUSE_S):
            began_s = perf_counter()
            inbox.append_each([[Entry(PREDICTION, f"s{number}", "", 0, b"{}")]])
            longest_s = max(longest_s, perf_counter() - began_s)
            number += 1
        told.send(longest_s)


if __name__ == "__main__":
    imported = _import(Path(sys.argv[1]), read_settings())
    sys.stdout.write(msgspec.json.encode(imported).decode())
