"""Two homes on one storage or one MLflow: every door is closed to the second, and nothing is touched."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import mlflow
import polars as pl
import pytest
from msgspec.structs import replace
from tests.conftest import START
from tests.loop.conftest import PIPELINE, Binder, day

from headwater.infra.clock import SimulatedClock
from headwater.infra.ids import new_id
from headwater.infra.settings import Settings
from headwater.infra.store.identity import Identity
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.batch.materialise import materialise
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.decision.performance import keep_performance
from headwater.loop.doctor import check_logs
from headwater.loop.operator.operations import Operator
from headwater.loop.rebuild import rebuild, rebuild_here
from headwater.loop.training.update import train
from headwater.registry.mlflow_store.connection import MlflowConnection
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.source import ParquetSource, QuerySource
from headwater.spec.errors import IdentityError
from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.updating.triggers.volume import Volume

Door = Callable[[Bound], object]


def source() -> pl.DataFrame:
    return pl.DataFrame({"customer": ["c"], "spent": [1.0]})


SPENDING = FeatureTable(
    name="spending", entity=("customer",), source=QuerySource(source), every="1h", max_age="2h"
)


def _operated(bound: Bound) -> Operator:
    return Operator(bound.pipeline, bound.settings, bound.database)


STORAGE: dict[str, Door] = {
    "collect": lambda bound: collect(bound.log),
    "train": train,
    "decide": decide,
    "carry out": lambda bound: carry_out(bound, _fired(bound), by="test"),
    "examples": lambda bound: bound.log.examples(),
    "counts": lambda bound: bound.log.counts(),
    "performance": keep_performance,
    "batch": lambda bound: batch_predict(bound, by="test"),
    "materialise": lambda bound: materialise(bound, SPENDING),
}
MLFLOW: dict[str, Door] = {
    "train": train,
    "decide": decide,
    "carry out": STORAGE["carry out"],
    "performance": keep_performance,
    "batch": STORAGE["batch"],
    "registry": lambda bound: bound.registry,
    "operator": _operated,
    "operator by name": lambda bound: Operator("line", bound.settings, bound.database),
    "rebuild": lambda bound: rebuild_here("line", "1", bound.settings),
}
FIRED: dict[str, str] = {}
"""The decision that asks for an update."""


def _fired(bound: Bound) -> str:
    return FIRED[bound.pipeline.name]


@pytest.fixture
def mine(home: Settings, bind: Binder) -> Bound:
    """A home with a trained version, its storage and its MLflow."""
    bound = bind()
    day(bound)
    train(bound)
    return bound


@pytest.fixture
def beside(mine: Bound, mlflow_template: Path, tmp_path: Path) -> Iterator[Callable[..., Bound]]:
    """Bind the pipeline in another home, which shares what is asked."""
    opened: list[Bound] = []

    def binder(**shared: str) -> Bound:
        table = ParquetSource(str(tmp_path / "none.parquet"))
        pipeline = replace(
            PIPELINE,
            triggers=(Volume(10),),
            gate=None,
            batch=BatchPrediction(source=table, key="customer"),
        )
        own = Settings(home=tmp_path / "own")
        shutil.copy(mlflow_template, own.root / "mlflow.sqlite")
        bound = Bound(pipeline, own, SimulatedClock(START))
        day(bound, 20)
        train(bound)
        day(bound, 20)
        decided = decide(bound)
        day(bound, 20, collected=False)
        assert decided.fired
        FIRED["line"] = decided.id
        clock = bound.clock
        bound.close()
        opened.append(Bound(pipeline, Settings(home=own.home, **shared), clock))
        return opened[-1]

    yield binder
    for bound in opened:
        bound.close()


def files(root: Path) -> dict[str, str]:
    """Hash all files below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def rows(file: Path) -> list[str]:
    """Give all that a SQLite file holds."""
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


def stores(*settings: Settings) -> list[object]:
    """Give all that storage, MLflow and database of some homes hold."""
    found: list[object] = []
    for one in settings:
        found += [files(Path(one.storage_uri)), rows(one.root / "headwater.sqlite")]
        found += [rows(Path(one.tracking_uri.removeprefix("sqlite:///")))]
    return found


@pytest.mark.parametrize("shared", ["storage", "mlflow_uri"])
def test_every_door_is_closed_to_another_log(
    shared: str, mine: Bound, beside: Callable[..., Bound]
) -> None:
    where = {"storage": mine.settings.storage_uri, "mlflow_uri": mine.settings.tracking_uri}
    other = beside(**{shared: where[shared]})
    before = stores(mine.settings, other.settings)
    for name, door in (STORAGE if shared == "storage" else MLFLOW).items():
        with pytest.raises(IdentityError) as refused:
            door(other)
        assert refused.value.whose == mine.log.identity.log, name
        assert where[shared] in refused.value.where, name
        assert ("HEADWATER_STORAGE" if shared == "storage" else "HEADWATER_MLFLOW_URI") in (
            refused.value.hint
        )
    assert stores(mine.settings, other.settings) == before
    (found,) = check_logs(other.settings)
    assert not found.good
    assert mine.log.identity.log in found.found
    assert [one.good for one in check_logs(mine.settings)] == [True]
    assert stores(mine.settings, other.settings) == before
    day(mine)  # whose they are goes on
    assert mine.log.archive["examples"].stop() == 240


def test_a_rebuild_s_refusal_crosses_processes(mine: Bound, beside: Callable[..., Bound]) -> None:
    other = beside(mlflow_uri=mine.settings.tracking_uri)
    with pytest.raises(IdentityError, match=mine.log.identity.log):
        rebuild("line", "1", other.settings)


@pytest.mark.parametrize("made", ["experiment", "model"])
def test_objects_made_by_hand_in_mlflow_are_refused(made: str, bind: Binder) -> None:
    bound = bind()
    client = mlflow.MlflowClient(bound.settings.tracking_uri)
    if made == "model":
        client.create_registered_model("line")
    else:
        client.create_experiment("headwater/line")
    with pytest.raises(IdentityError, match="bears no log's id") as refused:
        train(bound)
    assert refused.value.whose is None
    (found,) = check_logs(bound.settings)
    assert not found.good
    assert client.search_model_versions("name = 'line'") == []


def test_one_of_several_logs_that_begin_in_mlflow_at_once_gets_the_name(home: Settings) -> None:
    start = Barrier(4)

    def begin(log: str) -> Any:
        start.wait()
        try:
            MlflowConnection(Identity("line", log), home)
        except IdentityError as error:
            return error.whose
        return log

    logs = [new_id() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        (holder,) = set(pool.map(begin, logs))
    assert holder in logs


def test_the_doctor_reports_an_inbox_that_the_database_does_not_know(mine: Bound) -> None:
    log = mine.log.identity.log
    (mine.settings.root / "headwater.sqlite").rename(mine.settings.root / "old.sqlite")
    (found,) = check_logs(mine.settings)
    assert (found.what, found.good) == ("log of line", False)
    assert log in found.found
