"""Lines in which the disk of a home is full, has no free inode, or cannot be written."""

from collections.abc import Callable

import polars as pl
from msgspec.structs import replace

from benchmarks.stores.course import Course, Line
from benchmarks.stores.lined_pipeline import pipeline
from benchmarks.stores.scene import REFERENCE, await_true, grow
from headwater.loop.batch.materialise import materialise
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.source import QuerySource
from headwater.spec.errors import StorageError

__all__ = ["LINES"]

_ENTITIES = 20_000


def _source() -> pl.DataFrame:
    names = [f"c{i}" for i in range(_ENTITIES)]
    return pl.DataFrame({"customer": names, "spent": [1.0] * _ENTITIES})


_SPENDING = FeatureTable(
    name="spending", entity=("customer",), source=QuerySource(_source), every="1h", max_age="1d"
)
_TABLED = replace(
    pipeline,
    name="tabled",
    features=(Feature("x", float), _SPENDING.feature("spent", float)),
    tables=(_SPENDING,),
    learn="on schedule",
)
_PLAIN = replace(pipeline, name="plain", learn="on schedule")


def _sequence(bound: Bound) -> None:
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


def _full(course: Course) -> None:
    """Fill the disk; each step is refused, and goes on once there is room."""
    scene, disk = course.scene, course.disk
    with (
        scene.bound() as bound,
        Bound(_PLAIN, scene.settings) as plain,
        Bound(_TABLED, scene.settings) as tabled,
    ):
        bound.registry, tabled.registry  # noqa: B018 - they are made while there is room
        grow(plain, "plain", 500)
        steps: dict[str, Callable[[], object]] = {
            "sequence": lambda: _sequence(plain),
            "collect": lambda: collect(bound.log),
            "train": lambda: train(bound),
            "materialise": lambda: materialise(tabled, _SPENDING),
        }
        disk.fill()
        course.harmed()
        course.alarm("disk")
        course.expect("stores" in scene.alarms(), f"the keeper says nothing: {scene.alarms()}")
        course.expect(not scene.is_ready(), "it says that it is ready")
        for step in steps.values():
            course.refused(step, StorageError)
        disk.free()
        scene.answers_again()
        for step in steps.values():
            step()


def _no_inode(course: Course) -> None:
    scene, disk = course.scene, course.disk
    disk.fill("names")
    course.harmed()
    course.alarm("stores", "No space left on device")
    before = len(scene.labelled)
    await_true(lambda: len(scene.labelled) > before + 10, lambda: f"no record: {scene.answers}")
    disk.free()
    scene.answers_again()


def _read_only(course: Course) -> None:
    scene, disk = course.scene, course.disk
    course.without_restart = False  # a disk is mounted anew while nothing runs on it
    scene.end()
    disk.allow_reading_only()
    for words in (("train", REFERENCE), ("serve", REFERENCE, "--port", "0")):
        ended = scene.command(*words)
        course.expect(ended.returncode == 1, f"{words} ended with {ended.returncode}")
        course.expect("Read-only file system" in ended.stderr, f"{words} said {ended.stderr[-300:]}")
    disk.allow_writing()
    scene.start()


LINES = (
    Line(
        "the disk is full in sequence, collect, train, materialise, then freed",
        "503, alarms `disk` and `stores`; StorageError in each step; goes on by itself",
        _full,
        on_disk=True,
    ),
    Line(
        "the disk has no free inode, then it has",
        "records go on, alarm `stores`; goes on by itself",
        _no_inode,
        on_disk=True,
    ),
    Line(
        "the home cannot be written, then it can",
        "every command is refused by name, nothing is changed",
        _read_only,
        on_disk=True,
    ),
)
