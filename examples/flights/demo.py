"""Replay real flights through four pipelines with the same model, and show what updating brings.

``python -m examples.flights.demo --days 60 --start 2013-03-01``
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headwater.infra.offline import quiet

_DAY = timedelta(days=1)
_HOUR_OF_UPDATE = timedelta(hours=8)  # four in the morning in New York, in winter three
_MARK = ".headwater-demo"
_EVENTS = "events.parquet"
_SHOWN = 6
_WIDE = 160
_TITLES = {
    "never": "never updated",
    "stage2": "stage 2, stateless",
    "stage3": "stage 3, stateful",
    "stage4": "stage 4, continual",
}
_LONGEST_FIRST = ("stage2", "stage3", "stage4", "never")  # so that two cores are busy
_DECIDES_EVERY = 3 * _DAY  # the fourth stage looks so often whether an update is due

_FLOW = """
from headwater.flows.fine_tune import fine_tune
ended = fine_tune("examples/flights/pipeline.py:stage3")
version = ended["version"]
made = f"made version {version['number']}" if version else ended["reason"]
print(f"Prefect ran the flow fine-tune: {made}.")
"""

console = Console(highlight=False)


class Result(NamedTuple):
    """What one pipeline came to.

    Parameters
    ----------
    name
        Its attribute in ``examples/flights/pipeline.py``.
    scores
        ROC AUC and log loss of all that was served in the replayed days.
    weekly
        End of each day, and the ROC AUC of what was served in the seven days before it.
    updates, learned, train_cpu_s
        Updates after the first version, examples they learned, and CPU seconds that took.
    decided
        The decisions in words, a line each, where triggers were asked; the newest last.
    report
        File of the newest drift report that a decision made; None where none did.
    """

    name: str
    scores: dict[str, float]
    weekly: list[tuple[datetime, float]]
    updates: int
    learned: int
    train_cpu_s: float
    decided: list[str]
    report: str | None


class Proof(NamedTuple):
    """Processes that prove something while the replay goes on.

    Parameters
    ----------
    version
        The old version that is rebuilt.
    flow, rebuild
        The flow's process, and the rebuilding one.
    """

    version: str
    flow: "subprocess.Popen[str]"
    rebuild: "subprocess.Popen[str]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo."""
    options = _options(arguments)
    quiet()
    start = datetime.fromisoformat(options.start).replace(tzinfo=UTC) + _HOUR_OF_UPDATE
    home = _fresh_home(Path(options.home))
    os.environ["HEADWATER_HOME"] = str(home)
    console.print(f"Flights from New York, {options.days} days from {options.start}, into {home}\n")
    results, proof = _replay_all(home, start, options.days)
    _print_table(results)
    _print_decisions(results[-1])
    _draw(results, home / "roc_auc.png")
    _show_proof(home, proof)
    _say_what_next(home)
    return 0


def play(name: str, home: str, start: datetime, days: int, heard: Any, ready: Any) -> Result:
    """Play one pipeline; runs in a process of its own.

    Parameters
    ----------
    name
        Attribute of ``examples/flights/pipeline.py``.
    home
        Where everything is kept.
    start, days
        What is replayed after the history.
    heard
        A queue that hears ``(name, days done)``.
    ready
        An event: MLflow's database is made.
    """
    quiet()
    import polars as pl  # noqa: PLC0415 - in the worker

    from examples.flights import pipeline as declared  # noqa: PLC0415 - in the worker
    from headwater.infra.clock import SimulatedClock  # noqa: PLC0415
    from headwater.infra.settings import Settings  # noqa: PLC0415
    from headwater.loop.binding import Bound  # noqa: PLC0415
    from headwater.loop.replay.replay import Replay  # noqa: PLC0415
    from headwater.spec.updating.trigger import by_clock  # noqa: PLC0415

    events = pl.read_parquet(Path(home) / _EVENTS)
    clock = SimulatedClock(events["served_at"][0] - _DAY)
    with Bound(getattr(declared, name), Settings(home=Path(home)), clock) as bound:
        replay = Replay(bound, clock, events)
        ready.wait()
        first = replay.begin(start)
        heard.put((name, 0))
        stop = start + days * _DAY
        update = bool(bound.pipeline.triggers)
        every = _DAY if by_clock(bound.pipeline.triggers) else _DECIDES_EVERY
        for step in replay.run(start, stop, every, update=update):
            heard.put((name, (step.stop - start) // _DAY))
        return _result(name, bound, first.version, start)


def _result(name: str, bound: Any, first: Any, start: datetime) -> Result:
    import polars as pl  # noqa: PLC0415

    from headwater.loop.training.evaluate import served_scores  # noqa: PLC0415

    columns = ("served_at", "role", "output", "label")
    served = bound.log.examples(0, None, columns).filter(pl.col("role") != "imported")
    weekly = []
    day = start + 7 * _DAY
    while day <= bound.clock.now():
        week = served.filter(pl.col("served_at").is_between(day - 7 * _DAY, day, closed="left"))
        score = served_scores(bound.pipeline, week).get("roc_auc")
        if score is not None:
            weekly.append((day, score))
        day += _DAY
    decisions = bound.decisions.newest()
    reports = [d.evidence.report for d in decisions if d.evidence.report]
    later = [v for v in bound.registry.store.versions() if v.number != first.number]
    return Result(
        name,
        served_scores(bound.pipeline, served),
        weekly,
        len(later),
        sum(version.learned for version in later),
        sum(version.train_cpu_s for version in later),
        [_said(decision) for decision in decisions],
        reports[-1] if reports else None,
    )


def _said(decision: Any) -> str:
    made = decision.outcome.version if decision.outcome else None
    what = f"version {made}" if made else "fired" if decision.fired else "no update"
    return f"{decision.at:%Y-%m-%d}  {what}: {decision.reason}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.flights.demo", description=__doc__)
    parser.add_argument("--days", type=int, default=60, help="how many days to replay (60)")
    parser.add_argument("--start", default="2013-03-01", help="first day (2013-03-01)")
    parser.add_argument("--home", default=".headwater-demo", help="folder to make anew")
    options = parser.parse_args(arguments)
    try:
        datetime.fromisoformat(options.start)
    except ValueError:
        parser.error(f"--start {options.start!r} is no date; write 2013-03-01")
    if options.days < 1:
        parser.error(f"--days {options.days} plays nothing; write 60")
    return options


def _fresh_home(home: Path) -> Path:
    """Make the folder anew; one that is not the demo's own is left alone."""
    home = home.resolve()
    if home.exists():
        if not (home / _MARK).exists() and any(home.iterdir()):
            raise SystemExit(f"error: {home} holds something else.\nnext: choose another --home.")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / _MARK).touch()
    return home


def _replay_all(home: Path, start: datetime, days: int) -> tuple[list[Result], Proof]:
    with console.status("reading the flights ..."):
        from examples.flights.data import load  # noqa: PLC0415 - reads the tables

        load().rename({"late": "label"}).write_parquet(home / _EVENTS)
    context = get_context("spawn")
    with context.Manager() as manager, _bars(days) as bars:
        heard, ready = manager.Queue(), manager.Event()
        with ProcessPoolExecutor(max_workers=2, mp_context=context) as pool:
            playing = {
                name: pool.submit(play, name, str(home), start, days, heard, ready)
                for name in _LONGEST_FIRST
            }
            _make_database(home)
            ready.set()
            _follow(playing["stage3"], heard, bars)
            proof = _prove(home, playing["stage3"].result(), start + days * _DAY)
            for future in playing.values():
                _follow(future, heard, bars)
        return [playing[name].result() for name in _TITLES], proof


def _make_database(home: Path) -> None:
    from headwater.infra.settings import Settings  # noqa: PLC0415
    from headwater.registry.mlflow_store.connection import check_reachable  # noqa: PLC0415

    check_reachable(Settings(home=home))


def _follow(awaited: "Future[Result]", heard: Any, bars: Any) -> None:
    """Move the bars until one pipeline is done."""
    progress, tasks = bars
    while not awaited.done() or not heard.empty():
        try:
            name, done = heard.get(timeout=0.2)
        except Empty:
            continue
        progress.update(tasks[name], completed=done, stage="replaying")


@contextmanager
def _bars(days: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description:<19}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days, {task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {
            name: progress.add_task(title, total=days, stage="importing the history")
            for name, title in _TITLES.items()
        }
        yield progress, tasks


def _print_table(results: Sequence[Result]) -> None:
    from headwater.cli.screen import table  # noqa: PLC0415

    stage2 = next(result for result in results if result.name == "stage2")
    rows = [
        (
            _TITLES[result.name],
            f"{result.scores['roc_auc']:.4f}",
            f"{result.scores['log_loss']:.4f}",
            f"{result.updates}",
            f"{result.learned:,}",
            f"{result.train_cpu_s:.1f}",
            f"{result.learned / stage2.learned:.3f}" if stage2.learned else "-",
        )
        for result in results
    ]
    heads = ("pipeline", "ROC AUC", "log loss", "updates", "learned", "CPU s", "cost")
    console.print(table(heads, rows))
    console.print("learned and CPU s are the updates' own; the first version is the same for all.")
    console.print("cost: examples learned, against stage 2.\n")


def _print_decisions(result: Result) -> None:
    console.print(f"Stage 4 decided {len(result.decided)} times; its last decisions, and why:")
    for line in result.decided[-_SHOWN:]:
        console.print(f"  {line[:_WIDE]}", markup=False, soft_wrap=True)
    if result.report:
        console.print(
            f"Evidently's report of the last window that asked for one: {result.report}", soft_wrap=True
        )
    console.print()


def _draw(results: Sequence[Result], path: Path) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    for result in results:
        if result.weekly:
            days, scores = zip(*result.weekly, strict=True)
            axes.plot(days, scores, label=f"{_TITLES[result.name]} ({result.scores['roc_auc']:.3f})")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_title("Late or cancelled? ROC AUC of what was served in the last seven days", loc="left")
    axes.set_ylabel("ROC AUC")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _prove(home: Path, result: Result, end: datetime) -> Proof:
    """Let Prefect run the last update of stage 3, and another process rebuild an old version."""
    old = str((result.updates + 1) // 2 + 1)
    return Proof(
        old,
        _command("-c", _FLOW, **_prefect(home), HEADWATER_NOW=end.isoformat()),
        _command("-m", "headwater.cli", "rebuild", "flights-stage3", old, "--json"),
    )


def _show_proof(home: Path, proof: Proof) -> None:
    from headwater.cli.screen import tree_lines  # noqa: PLC0415
    from headwater.features.read.repository import find  # noqa: PLC0415
    from headwater.infra.settings import Settings  # noqa: PLC0415
    from headwater.infra.store.database import Database  # noqa: PLC0415
    from headwater.registry.lineage import lineage, walk  # noqa: PLC0415
    from headwater.registry.registry import Registry  # noqa: PLC0415

    with console.status("the last update as a Prefect flow, and a rebuild in another process ..."):
        flow_said, rebuilt = _finish(proof.flow), json.loads(_finish(proof.rebuild))
    settings, name = Settings(home=home), "flights-stage3"
    database = Database(settings.operational_url)
    registry = Registry(name, find(database, name, settings), settings, database)
    nodes = list(walk(lineage(registry.store.versions(), registry.championship.history())))
    database.close()
    console.print("The last versions of stage 3, newest below:")
    console.print("\n".join(tree_lines(nodes)[-_SHOWN:]), markup=False, soft_wrap=True)
    found = rebuilt["versions"][-1]
    same = "equal" if found["digest"] == found["rebuilt_digest"] else "NOT EQUAL"
    console.print(f"\nVersion {proof.version}, folded again by process {rebuilt['process_id']}: {same}")
    console.print(f"  registered {found['digest']}\n  rebuilt    {found['rebuilt_digest']}")
    console.print(f"\n{flow_said.strip().splitlines()[-1]}", markup=False)


def _prefect(home: Path) -> dict[str, str]:
    """Let a flow start a Prefect of its own, on the database that ``headwater up`` opens later."""
    (home / "prefect").mkdir(exist_ok=True)
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect/prefect.sqlite",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # its page has them
    }


def _command(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, "-W", "ignore", *arguments],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: "subprocess.Popen[str]") -> str:
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"error: {' '.join(map(str, process.args[2:]))}\n{errors[-2000:]}")  # type: ignore[index] # a list
    return out


def _say_what_next(home: Path) -> None:
    headwater = Path(sys.executable).parent / "headwater"
    shown = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    console.print(f"\nThe metric over time: {shown / 'roc_auc.png'}")
    console.print("To look at all of it in MLflow and Prefect:")
    console.print(f"  HEADWATER_HOME={shown} {_short(headwater)} up", markup=False)
    console.print("To draw every generation:")
    drawn = f"{_short(headwater)} lineage flights-stage3 --picture lineage.png"
    console.print(f"  HEADWATER_HOME={shown} {drawn}", markup=False, soft_wrap=True)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    raise SystemExit(main())
