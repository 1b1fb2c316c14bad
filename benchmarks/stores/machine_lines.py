"""Lines in which the machine is at fault: its clock, its disk, a process that is stopped."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from sqlalchemy import select

from benchmarks.imported import context
from benchmarks.stores.course import Course, Line
from benchmarks.stores.lined_pipeline import pipeline
from benchmarks.stores.scene import await_true
from headwater.features.record.inbox import inbox_file
from headwater.infra.settings import Settings
from headwater.infra.store.lease import holding
from headwater.infra.store.schema import tables
from headwater.infra.store.turns import WriterQueue
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.spec.errors import BusyError

__all__ = ["LINES"]

_BOTH = ("SQLite", "PostgreSQL")
_WRONG = """
import os
from datetime import UTC, datetime, timedelta
from headwater.infra.clock import SystemClock

def now(_):
    try:
        with open(os.environ["LINED_CLOCK"]) as file:
            return datetime.now(UTC) + timedelta(days=float(file.read() or 0))
    except OSError:
        return datetime.now(UTC)

SystemClock.now = now
"""
_YEAR, _BEFORE_1970 = 365.0, -30_000.0


def _clock_of(folder: Path) -> Mapping[str, str]:
    """Give each process of the scene a clock that a file puts wrong."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(_WRONG)
    (folder / "clock").write_text("0")
    return {"PYTHONPATH": str(folder / "site"), "LINED_CLOCK": str(folder / "clock")}


def _clock_ahead(course: Course) -> None:
    scene = course.scene
    file = scene.settings.root.parent / "clock"
    file.write_text(str(_YEAR))
    course.harmed()
    course.alarm("clock", "further on than the time that has passed")
    before = len(scene.predicted)
    time.sleep(1.0)
    course.expect(len(scene.predicted) <= before + 1, "records are taken by a wrong clock")
    course.expect(scene.answers[503] > 0, f"answers {scene.answers}")
    file.write_text("0")


def _clock_behind(days: float) -> Callable[[Course], None]:
    def run(course: Course) -> None:
        scene = course.scene
        file = scene.settings.root.parent / "clock"
        file.write_text(str(days))
        course.harmed()
        course.alarm("clock", "behind the records")
        before = len(scene.labelled)
        await_true(lambda: len(scene.labelled) > before + 10, lambda: f"no record: {scene.answers}")
        file.write_text("0")

    return run


@contextmanager
def _child(work: Callable[..., None], *arguments: object) -> Iterator[BaseProcess]:
    """Run a process beside the service; end it, stopped or not."""
    process = context().Process(target=work, args=arguments)
    process.start()
    try:
        yield process
    finally:
        with suppress(psutil.Error):
            psutil.Process(process.pid or 0).kill()
        process.join()


def _hold_turn(path: str) -> None:
    turns = WriterQueue(Path(path))
    with turns:
        Path(path).with_suffix(".held").touch()
        time.sleep(10**6)


def _hold_trainer(home: str, url: str | None) -> None:
    settings = Settings(home=Path(home), database_url=url)
    with (
        Bound(pipeline, settings) as bound,
        holding(bound.database, bound.clock, f"train/{pipeline.name}"),
    ):
        time.sleep(10**6)


def _turn_stopped(course: Course) -> None:
    scene = course.scene
    path = inbox_file(pipeline.name, scene.settings)
    with _child(_hold_turn, str(path)) as holder:
        await_true(path.with_suffix(".held").exists, lambda: "the turn is not held")
        os.kill(holder.pid or 0, signal.SIGSTOP)
        scene.answers_again()  # the others write without a turn
        os.kill(holder.pid or 0, signal.SIGCONT)


def _lease_stopped(course: Course) -> None:
    scene = course.scene
    with _child(_hold_trainer, str(scene.settings.root), scene.settings.database_url) as holder:
        with scene.bound() as bound:
            await_true(lambda: _holder(bound), lambda: "the lease is not held")
            os.kill(holder.pid or 0, signal.SIGSTOP)
            course.refused(lambda: train(bound), BusyError, f"/{holder.pid}")
        scene.answers_again()
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join()
        with scene.bound() as bound:
            course.expect(train(bound).version is not None, "the lease does not pass on")


def _holder(bound: Bound) -> str | None:
    name = f"train/{pipeline.name}"
    with bound.database.reading() as connection:
        query = select(tables.lease.c.holder).where(tables.lease.c.name == name)
        holder = connection.execute(query).scalar_one_or_none()
    return None if holder is None else str(holder)


def _keeper_stopped(course: Course) -> None:
    scene = course.scene
    (keeper,) = scene.below("serving.keeper")
    keeper.send_signal(signal.SIGSTOP)
    scene.answers_again()
    psutil.wait_procs([keeper], timeout=60)
    course.expect(not keeper.is_running(), "the keeper is not ended")
    await_true(lambda: scene.below("serving.keeper"), lambda: "no other keeper takes its place")


LINES = (
    Line(
        "the clock is a year ahead",
        "a 503 and an alarm until it is right",
        _clock_ahead,
        variables=_clock_of,
    ),
    Line(
        "the clock is a year behind",
        "recorded in order, an alarm until it is right",
        _clock_behind(-_YEAR),
        variables=_clock_of,
    ),
    Line(
        "the clock is before 1970",
        "recorded in order, an alarm until it is right",
        _clock_behind(_BEFORE_1970),
        variables=_clock_of,
    ),
    Line("the holder of the inbox's turn is stopped", "others write without a turn", _turn_stopped),
    Line(
        "the holder of the trainer's lease is stopped",
        "another trainer is refused by name until it is ended",
        _lease_stopped,
        _BOTH,
    ),
    Line("the keeper is stopped", "it is ended, and another takes its place", _keeper_stopped, _BOTH),
)
