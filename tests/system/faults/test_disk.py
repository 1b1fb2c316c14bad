"""A disk that is full, without a free name, or read-only: refused by name, and recovered from."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import polars as pl
import pytest
from benchmarks.stores.small_disk import SmallDisk
from msgspec.structs import replace
from tests.cli import toys
from tests.loop.conftest import mlflow_template
from tests.patience import await_
from tests.serving.flow import history_of
from tests.system.faults.running import command, first_version, running

from headwater.infra.settings import Settings
from headwater.loop.batch.materialise import materialise
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.source import QuerySource
from headwater.spec.errors import StorageError

__all__ = ["mlflow_template"]

pytestmark = pytest.mark.system

_LEFT = (0, 100_000, 1_000_000, 2_500_000)
"""Bytes that are left at the beginning of a step, so that it meets the end of the disk elsewhere."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        made = SmallDisk(tmp_path)
    except PermissionError as error:
        pytest.skip(str(error))
    yield made
    made.end()


def source() -> pl.DataFrame:
    return pl.DataFrame({"customer": [f"c{i}" for i in range(20_000)], "spent": [1.0] * 20_000})


SPENDING = FeatureTable(
    name="spending", entity=("customer",), source=QuerySource(source), every="1h", max_age="1d"
)
SHOP = replace(
    toys.looking,
    name="shop",
    features=(Feature("x", float), SPENDING.feature("spent", float)),
    tables=(SPENDING,),
)


def sequence(bound: Bound) -> None:
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


def test_each_step_meets_a_full_disk_and_goes_on_once_there_is_room(
    disk: SmallDisk, mlflow_template: Path
) -> None:
    settings = Settings(home=disk.folder / "home")
    first_version(settings, mlflow_template)
    with Bound(toys.toy, settings) as bound, Bound(SHOP, settings) as shop:
        bound.log.import_history(history_of(("x", "y"), 100, 3_000))
        steps: list[tuple[Callable[[], object], int]] = [
            (lambda: sequence(bound), len(_LEFT) - 1),
            (lambda: collect(bound.log), 2),
            (lambda: train(bound), 1),
            (lambda: materialise(shop, SPENDING), 2),
        ]
        refused = 0
        for step, least in steps:
            for what, left in (("names", 0), *(("bytes", left) for left in _LEFT[: least + 1])):
                disk.fill(what, left)
                try:
                    step()
                except StorageError:
                    refused += 1
                finally:
                    disk.free()
            step()
        assert refused >= 7
        ids = bound.log.examples()["prediction_id"].to_list()
        assert len(ids) == len(set(ids)) == 3_000
        assert bound.log.archive["examples"].stop() == 3_000
        assert [version.number for version in bound.registry.store.versions()] == ["1", "2"]


def test_a_service_on_a_full_disk_says_so_and_goes_on_without_a_restart(
    disk: SmallDisk, mlflow_template: Path
) -> None:
    settings = Settings(home=disk.folder / "home")
    first_version(settings, mlflow_template, toys.each)
    with running(settings, "tests/cli/toys.py:each") as service:
        names = (f"live-{number}" for number in count())
        assert service.record(next(names)) == 200
        keepers = [keeper.pid for keeper in service.below("serving.keeper")]
        for what, kind in (("names", "stores"), ("bytes", "disk")):
            disk.fill(what)
            await_(lambda: service.record(next(names)) in {200, 503} and kind in service.alarms())  # noqa: B023
            disk.free()
            await_(lambda: service.is_ready() and service.alarms() == set())
            assert service.record(next(names)) == 200
            learned = 100 + len(service.acknowledged) // 10 * 10
            await_(lambda: service.status()["learned_to"] >= learned - 10, service.status)  # noqa: B023
        assert [keeper.pid for keeper in service.below("serving.keeper")] == keepers
    with Bound(toys.each, settings) as bound:
        collect(bound.log)
        found = bound.log.predictions()["prediction_id"].to_list()
        assert len(found) == len(set(found))
        assert set(service.acknowledged) <= set(found)


def test_a_home_that_cannot_be_written_is_refused_by_name(
    disk: SmallDisk, mlflow_template: Path
) -> None:
    settings = Settings(home=disk.folder / "home")
    first_version(settings, mlflow_template)
    disk.allow_reading_only()
    for words in (
        ("status", "tests/cli/toys.py:toy"),
        ("serve", "tests/cli/toys.py:toy", "--port", "0"),
        ("up",),
    ):
        ended = command(settings, *words)
        assert ended.returncode == 1, (words, ended.stderr)
        assert "Read-only file system" in ended.stderr, words
        assert "Traceback" not in ended.stderr, words
