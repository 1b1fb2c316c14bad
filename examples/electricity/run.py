"""Replay the electricity market through four pipelines with the same model, beside no change.

``HEADWATER_ELEC2=elec2.parquet python -m examples.electricity.run --days 60``

Labels are a day late. *No change* predicts, for each half hour, the newest label known by then. On this
stream it does well, so the pipelines are judged by how much they are better than it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headwater.infra.offline import quiet

__all__ = ["NAMES", "Result", "Scores", "lead", "main", "no_change", "play", "scores"]

NAMES = ("never", "stage2", "stage3", "stage4")
_TITLES = {
    "never": "never updated",
    "stage2": "stage 2, stateless",
    "stage3": "stage 3, stateful",
    "stage4": "stage 4, continual",
}
_DAY = timedelta(days=1)
_DRAWS = 2_000
_FILE_WIDTH = 120

Numbers = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """How outputs fare against labels.

    Parameters
    ----------
    roc_auc
        NaN where only one label is there.
    accuracy
        Of calling UP what has an output of 0.5 and above.
    kappa
        Of the same: 0 for chance, 1 for always right (Cohen, "A coefficient of agreement for nominal
        scales", 1960).
    """

    roc_auc: float
    accuracy: float
    kappa: float


class Result(NamedTuple):
    """What one pipeline came to.

    Parameters
    ----------
    name
        Its attribute in ``examples/electricity/pipeline.py``.
    served
        ``id``, ``served_at``, ``output`` and ``label`` of what it served and has a label for.
    updates, learned, train_cpu_s
        Updates after the first version, examples they learned, and CPU seconds that took.
    """

    name: str
    served: pl.DataFrame
    updates: int
    learned: int
    train_cpu_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the replay, and print a table."""
    options = _options(arguments)
    quiet()
    from examples.electricity.data import load  # noqa: PLC0415 - after quiet
    from headwater.spec.errors import HeadwaterError  # noqa: PLC0415

    try:
        events = load(options.file)
        _check_days(events, options.start, options.days)
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
        console.print(f"New South Wales, {options.days} days from {options.start:%Y-%m-%d}\n")
        results = _play_all(events, options, console)
    except HeadwaterError as error:
        sys.stderr.write(f"error: {error.what}.\nnext: {error.hint}.\n")
        return 1
    _print(events, results, console)
    return 0


def play(
    name: str,
    home: Path,
    events: pl.DataFrame,
    start: datetime,
    days: int,
    heard: Callable[[int], object] = lambda _: None,
) -> Result:
    """Play one pipeline, day by day.

    Parameters
    ----------
    name
        Attribute of ``examples/electricity/pipeline.py``.
    home
        Folder in which everything is kept.
    events
        As :func:`examples.electricity.data.load` gives them.
    start, days
        What is replayed after the history.
    heard
        Is told after each day how many are done.
    """
    from examples.electricity import pipeline as declared  # noqa: PLC0415 - after quiet
    from headwater.infra.clock import SimulatedClock  # noqa: PLC0415
    from headwater.infra.settings import Settings  # noqa: PLC0415
    from headwater.loop.binding import Bound  # noqa: PLC0415
    from headwater.loop.replay.replay import Replay  # noqa: PLC0415

    clock = SimulatedClock(events["served_at"][0] - _DAY)
    with Bound(getattr(declared, name), Settings(home=home), clock) as bound:
        replay = Replay(bound, clock, events)
        first = replay.begin(start).version
        update = bool(bound.pipeline.triggers)
        for done, _ in enumerate(replay.run(start, start + days * _DAY, _DAY, update=update), 1):
            heard(done)
        columns = ("prediction_id", "served_at", "role", "output", "label")
        served = bound.log.examples(0, None, columns).filter(pl.col("role") != "imported")
        versions = [v for v in bound.registry.store.versions() if first and v.number != first.number]
    return Result(
        name,
        served.select("served_at", "output", "label", id="prediction_id").sort("served_at"),
        len(versions),
        sum(version.learned for version in versions),
        sum(version.train_cpu_s for version in versions),
    )


def no_change(events: pl.DataFrame) -> pl.DataFrame:
    """Predict for each event the newest label that is known when it is served.

    Returns
    -------
    polars.DataFrame
        ``id`` and ``output``: 1 for UP, 0 for DOWN, and 0.5 where no label is known yet.
    """
    labels = events.select("known_at", output=pl.col("label").cast(pl.Float64)).drop_nulls()
    return (
        events.select("id", "served_at")
        .join_asof(labels.sort("known_at"), left_on="served_at", right_on="known_at")
        .select("id", pl.col("output").fill_null(0.5))
    )


def scores(output: pl.Series, label: pl.Series) -> Scores:
    """Score outputs against labels.

    Examples
    --------
    >>> scores(pl.Series([0.9, 0.2, 0.6, 0.1]), pl.Series([True, False, False, False]))
    Scores(roc_auc=1.0, accuracy=0.75, kappa=0.5)
    """
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - a second to import

    both = label.n_unique() > 1
    called = pl.DataFrame({"output": output, "label": label})
    table = _confusion(called.with_columns(day=pl.lit(0)))
    return Scores(
        roc_auc=float(roc_auc_score(label.to_numpy(), output.to_numpy())) if both else float("nan"),
        accuracy=float((table[0, 0] + table[0, 3]) / table.sum()),
        kappa=float(_kappa(table.sum(axis=0))),
    )


def lead(served: pl.DataFrame, baseline: pl.DataFrame) -> tuple[float, float]:
    """Say how far kappa lies above the baseline's: a 95 % interval, by drawing whole days anew.

    Half hours of a day hang together, so days are drawn (a block bootstrap: Künsch, "The jackknife and
    the bootstrap for general stationary observations", 1989).

    Parameters
    ----------
    served, baseline
        ``served_at``, ``output`` and ``label``, a row each for the same predictions.
    """
    day = pl.col("served_at").dt.truncate("1d")
    ours, theirs = (_confusion(frame.with_columns(day=day)) for frame in (served, baseline))
    drawn = np.random.default_rng(0).integers(len(ours), size=(_DRAWS, len(ours)))
    ahead = _kappa(ours[drawn].sum(axis=1)) - _kappa(theirs[drawn].sum(axis=1))
    low, high = np.quantile(ahead, (0.025, 0.975))
    return float(low), float(high)


def _confusion(frame: pl.DataFrame) -> Numbers:
    """Count by day: rightly called DOWN, wrongly DOWN, wrongly UP, rightly UP."""
    up, called = pl.col("label"), pl.col("output") >= 0.5
    kinds = (~up & ~called, up & ~called, ~up & called, up & called)
    counts = frame.group_by("day", maintain_order=True).agg(
        kind.sum().cast(pl.Float64).alias(str(i)) for i, kind in enumerate(kinds)
    )
    return counts.drop("day").to_numpy()


def _kappa(
    counts: Numbers,
) -> Numbers:
    """Give Cohen's kappa of counts along the last axis; 0 where all is one class."""
    down, missed, false, up = np.moveaxis(counts, -1, 0)
    total = down + missed + false + up
    agreed = (down + up) / total
    chance = ((missed + up) * (false + up) + (down + false) * (down + missed)) / total**2
    kappa: Numbers = np.divide(agreed - chance, 1 - chance, out=np.zeros_like(agreed), where=chance < 1)
    return kappa


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.electricity.run", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--days", type=int, default=60, help="how many days to replay (60)")
    parser.add_argument(
        "--start",
        type=lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC),
        default="1997-04-01",
        help="first day (1997-04-01: the Victorian market opens a month later)",
    )
    parser.add_argument("--file", type=Path, help="the stream (what HEADWATER_ELEC2 names)")
    parser.add_argument("--home", type=Path, help="a new folder to keep all in (a temporary one)")
    parser.add_argument("--pipelines", nargs="+", choices=NAMES, default=NAMES, help="which (all)")
    options = parser.parse_args(arguments)
    if options.days < 2:
        parser.error(f"--days {options.days} ends before labels come; write 60")
    if options.home is not None and options.home.exists() and any(options.home.iterdir()):
        parser.error(f"--home {options.home} holds something; name a new folder")
    return options


def _check_days(events: pl.DataFrame, start: datetime, days: int) -> None:
    from headwater.spec.errors import NotEnoughError  # noqa: PLC0415 - after quiet

    first, last = events["served_at"][0], events["served_at"][-1]
    if start < first + 2 * _DAY or start + days * _DAY > last + _DAY:
        raise NotEnoughError(
            f"the stream goes from {first:%Y-%m-%d} to {last:%Y-%m-%d}",
            hint="write a --start at least two days after its first, and --days that end with it",
        )


def _play_all(events: pl.DataFrame, options: argparse.Namespace, console: Console) -> Sequence[Result]:
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days"),
        TimeElapsedColumn(),
    )
    results = []
    with TemporaryDirectory() as folder, Progress(*columns, console=console) as progress:
        home = options.home or Path(folder)
        for name in options.pipelines:
            task = progress.add_task(_TITLES[name], total=options.days)

            def heard(done: int, task: object = task) -> None:
                progress.update(task, completed=done)  # type: ignore[arg-type] # Rich's own id

            results.append(play(name, home, events, options.start, options.days, heard))
    return results


def _print(events: pl.DataFrame, results: Sequence[Result], console: Console) -> None:
    from headwater.cli.screen import table  # noqa: PLC0415 - after quiet

    still = _beside(no_change(events), results[0].served)
    rows = [("no change", *_shown(scores(still["output"], still["label"])), *"----")]
    said = []
    for result in results:
        its = _beside(no_change(events), result.served)
        low, high = lead(result.served, its)
        rows.append(
            (
                _TITLES[result.name],
                *_shown(scores(result.served["output"], result.served["label"])),
                f"{result.updates}",
                f"{result.learned:,}",
                f"{result.train_cpu_s:.1f}",
                f"{low:+.3f} to {high:+.3f}",
            )
        )
        said.append(f"{_TITLES[result.name]} {_verdict(low, high)}")
    heads = ("pipeline", "ROC AUC", "accuracy", "kappa", "updates", "learned", "CPU s", "kappa ahead by")
    console.print(table(heads, rows))
    console.print(f"{results[0].served.height:,} predictions with labels. Against no change, by kappa:")
    for line in said:
        console.print(f"  {line}")
    console.print(f"Best by kappa: {_best(rows)}.")


def _beside(baseline: pl.DataFrame, served: pl.DataFrame) -> pl.DataFrame:
    """Give the baseline's outputs for what was served, row by row."""
    return served.drop("output").join(baseline, on="id", how="left", maintain_order="left")


def _shown(found: Scores) -> tuple[str, str, str]:
    return f"{found.roc_auc:.4f}", f"{found.accuracy:.4f}", f"{found.kappa:.4f}"


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "wins"
    return "loses" if high < 0 else "is even: the interval of days drawn anew holds zero"


def _best(rows: Sequence[Sequence[str]]) -> str:
    return max(rows, key=lambda row: float(row[3]))[0]


if __name__ == "__main__":
    raise SystemExit(main())
