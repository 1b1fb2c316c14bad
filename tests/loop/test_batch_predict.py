"""Batch prediction: a table scored once, logged like any other prediction, published by key."""

import random
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from deltalake import write_deltalake
from msgspec.structs import replace
from tests.conftest import START
from tests.features.conftest import S3, on_s3, s3
from tests.homes import copy_home
from tests.loop.conftest import PIPELINE, Binder, day

from headwater.features.batch.batch_files import AnswerTable, BatchFiles
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.loop.batch.batch_predict import batch_predict, batch_runs
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.records import Label
from headwater.spec.data.source import DeltaSource, ParquetSource, QuerySource, Source
from headwater.spec.errors import (
    DeclarationError,
    HeadwaterError,
    NonFiniteError,
    NotEnoughError,
    NotFoundError,
    NotReadyError,
    SchemaError,
)
from headwater.spec.serving.batch import BatchPrediction

__all__ = ["S3", "on_s3", "s3"]

ROWS = 250
TABLE: list[object] = []
"""What the queries give; set by a test."""


def entities(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    rng = random.Random(seed)
    return pl.DataFrame(
        {
            "customer": [f"c-{n}" for n in range(rows)],
            "b": [rng.gauss(0, 1) for _ in range(rows)],
            "a": [rng.gauss(0, 1) for _ in range(rows)],
            "unused": ["x"] * rows,
        }
    )


def query() -> object:
    return TABLE[0]


def of(source: Source, **changes: object) -> BatchPrediction:
    return replace(BatchPrediction(source=source, key="customer", rows=100), **changes)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "customers.parquet"
    entities().write_parquet(path)
    return path


@pytest.fixture(scope="module")
def with_version(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """A home with one version; to be copied, not changed."""
    settings = Settings(home=tmp_path_factory.mktemp("trained") / "home")
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    with Bound(PIPELINE, settings, SimulatedClock(START)) as bound:
        day(bound)
        train(bound)
    return settings.root


@pytest.fixture
def trained(with_version: Path, home: Settings, bind: Binder, table: Path) -> Bound:
    copy_home(with_version, home.root)
    return bind(SimulatedClock(START + timedelta(days=1)), batch=of(ParquetSource(str(table))))


def logged(bound: Bound) -> pl.DataFrame:
    """Batch predictions in the log, once all of it is sequenced."""
    with bound.log.sequencer() as sequencer:
        sequencer.drain()
    return bound.log.predictions().filter(pl.col("prediction_id").str.starts_with("batch-"))


def parts(bound: Bound, run: str) -> pl.DataFrame:
    address = BatchFiles(open_storage(bound.settings), bound.pipeline.name).address(run)
    return pl.read_parquet(f"{address}/*.parquet")


def stores(bound: Bound) -> tuple[object, ...]:
    """What a rejected batch must leave as it was."""
    root = Path(open_storage(bound.settings).root)
    files = sorted(str(path) for path in root.rglob("batch/**/*") if path.is_file())
    local = sorted(str(path) for path in bound.settings.root.glob("batch/*"))
    return files, local, batch_runs(bound).newest(100), bound.log.inbox.count_after(0)


def test_every_row_is_predicted_logged_and_kept_by_key(trained: Bound) -> None:
    run = batch_predict(trained, by="tests")
    assert (run.state, run.version, run.rows, run.parts, run.by) == ("published", "1", ROWS, 3, "tests")
    found = logged(trained)
    written = parts(trained, run.id)
    assert found["prediction_id"].to_list() == [f"batch-{run.id}-c-{n}" for n in range(ROWS)]
    assert found["prediction_id"].equals(written["prediction_id"])
    assert found["output"].equals(written["output"])
    assert set(found["role"]) == {"champion"}
    assert set(found["propensity"]) == {1.0}
    assert found["entity"][3] == '{"customer":"c-3"}'
    assert found["features"].struct.field("a").equals(entities()["a"])
    assert found["served_at"].unique().to_list() == [trained.clock.now()]


def test_the_answers_are_those_of_the_online_model(trained: Bound) -> None:
    run = batch_predict(trained)
    champion = trained.registry.champion()
    assert champion is not None
    learner = trained.registry.store.learner(champion)
    for row in parts(trained, run.id).iter_rows(named=True):
        assert row["output"] == pytest.approx(learner.predict_one(row["features"]), abs=1e-9)


def test_the_table_finds_each_key(trained: Bound, tmp_path: Path) -> None:
    run = batch_predict(trained)
    copy = tmp_path / "answers.sqlite"
    BatchFiles(open_storage(trained.settings), "line").fetch_table(run.id, copy)
    answers = AnswerTable(copy)
    for place, row in enumerate(parts(trained, run.id).iter_rows(named=True)):
        assert answers.find(row["key"]) == (place, row["output"])
    assert answers.find("nobody") is None
    answers.close()


def test_labels_join_the_predictions_of_a_batch(trained: Bound) -> None:
    run = batch_predict(trained)
    before = trained.log.stop()
    known_at = trained.clock.now()
    ids = [f"batch-{run.id}-c-{n}" for n in range(ROWS)]
    trained.log.label([Label(prediction_id=id_, value=True, known_at=known_at) for id_ in ids])
    assert collect(trained.log).emitted == ROWS
    examples = trained.log.examples(before)
    assert examples["prediction_id"].to_list() == ids
    assert set(examples["version"]) == {"1"}


def frames() -> Iterator[pl.DataFrame]:
    yield entities()[:120]
    yield entities()[120:]


GIVEN: dict[str, Callable[[], object]] = {
    "polars": entities,
    "lazy": lambda: entities().lazy(),
    "pandas": lambda: entities().to_pandas(),
    "frames": frames,
    "pandas frames": lambda: iter([entities()[:1].to_pandas(), entities()[1:].to_pandas()]),
}


@pytest.mark.parametrize("given", GIVEN)
def test_a_query_may_give_any_dataframe(given: str, bind: Binder, trained: Bound) -> None:
    TABLE[:] = [GIVEN[given]()]
    run = batch_predict(bind(batch=of(QuerySource(query))))
    assert parts(trained, run.id)["key"].to_list() == entities()["customer"].to_list()


def test_a_delta_table_is_scored_as_it_is(bind: Binder, trained: Bound, tmp_path: Path) -> None:
    where = str(tmp_path / "delta")
    write_deltalake(where, entities()[:200])
    write_deltalake(where, entities()[200:], mode="append")
    run = batch_predict(bind(batch=of(DeltaSource(where))))
    assert sorted(parts(trained, run.id)["key"]) == sorted(entities()["customer"])


def test_a_batch_works_on_s3(on_s3: Settings, trained: Bound, tmp_path: Path) -> None:
    storage = open_storage(on_s3)
    storage.prepare()
    write_deltalake(storage.address("lake"), entities(), storage_options=storage.options)
    there = Settings(
        home=trained.settings.home,
        storage=on_s3.storage,
        s3_endpoint=on_s3.s3_endpoint,
        artifacts=trained.settings.artifact_uri,
    )
    batch = of(DeltaSource(storage.address("lake")), keep=1)
    with Bound(replace(PIPELINE, batch=batch), there, SimulatedClock(trained.clock.now())) as bound:
        first, second = batch_predict(bound), batch_predict(bound)
        copy = tmp_path / "answers.sqlite"
        files = BatchFiles(storage, "line")
        files.fetch_table(second.id, copy)
        answers = AnswerTable(copy)
        assert answers.find("c-7") is not None
        answers.close()
        assert files.read_part(second.id, 2).height == 50
        with pytest.raises(HeadwaterError):
            files.read_part(first.id, 0)
        assert logged(bound).height == 2 * ROWS


REJECTED: dict[str, tuple[pl.DataFrame, type[HeadwaterError], str]] = {
    "no rows": (entities(0), NotEnoughError, "has no rows"),
    "no column": (entities().drop("a"), SchemaError, "no column a"),
    "no key column": (entities().drop("customer"), SchemaError, "no column customer"),
    "another type": (entities().with_columns(a=pl.lit("x")), SchemaError, "column 'a' is String"),
    "a null": (
        entities().with_columns(a=pl.when(pl.col("customer") != "c-240").then("a")),
        SchemaError,
        "feature 'a' of key 'c-240' is missing",
    ),
    "a NaN": (
        entities().with_columns(
            b=pl.when(pl.col("customer") != "c-240").then("b").otherwise(float("nan"))
        ),
        NonFiniteError,
        "feature 'b' of key 'c-240' is nan",
    ),
    "a key twice": (
        entities().with_columns(customer=pl.col("customer").replace("c-240", "c-7")),
        SchemaError,
        "key 'c-7' comes twice",
    ),
    "a null key": (
        entities().with_columns(customer=pl.col("customer").replace("c-240", None)),
        SchemaError,
        "are no keys",
    ),
    "a long key": (
        entities().with_columns(customer=pl.col("customer").replace("c-240", "k" * 151)),
        SchemaError,
        "are no keys",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_rejected_batch_leaves_the_stores_as_they_were(case: str, trained: Bound, table: Path) -> None:
    first = batch_predict(trained)
    before = stores(trained)
    frame, error, says = REJECTED[case]
    frame.write_parquet(table)
    with pytest.raises(error, match=says):
        batch_predict(trained)
    assert stores(trained) == before
    assert batch_runs(trained).serving() == first


def test_an_exception_of_a_query_goes_through_and_leaves_nothing(bind: Binder, trained: Bound) -> None:
    def failing() -> Iterator[pl.DataFrame]:
        yield entities()
        raise KeyError("no such table in the warehouse")

    TABLE[:] = [failing()]
    before = stores(trained)
    with pytest.raises(KeyError, match="warehouse"):
        batch_predict(bind(batch=of(QuerySource(query))))
    TABLE[:] = [pd.Series([1.0])]
    with pytest.raises(SchemaError, match="query query returns Series"):
        batch_predict(bind(batch=of(QuerySource(query))))
    assert stores(trained) == before


def test_the_error_names_a_table_that_does_not_exist(
    bind: Binder, trained: Bound, tmp_path: Path
) -> None:
    for source in (ParquetSource(f"{tmp_path}/none.parquet"), DeltaSource(f"{tmp_path}/none")):
        with pytest.raises(NotFoundError, match=f"no table at {tmp_path}/none"):
            batch_predict(bind(batch=of(source)))


def test_a_pipeline_without_a_declaration_or_a_champion_is_refused(bind: Binder, table: Path) -> None:
    with pytest.raises(DeclarationError, match="scores no table"):
        batch_predict(bind())
    with pytest.raises(NotReadyError, match="no version to predict with"):
        batch_predict(bind(batch=of(ParquetSource(str(table)))))


def test_each_run_has_its_own_ids_and_old_files_go(trained: Bound, bind: Binder, table: Path) -> None:
    bound = bind(trained.clock, batch=of(ParquetSource(str(table)), keep=2))
    runs = [batch_predict(bound) for _ in range(3)]
    assert [run.number for run in runs] == [1, 2, 3]
    assert [run.kept for run in batch_runs(bound).newest(9)] == [False, True, True]
    assert not Path(BatchFiles(open_storage(bound.settings), "line").address(runs[0].id)).exists()
    assert parts(bound, runs[1].id).height == ROWS
    assert logged(bound)["prediction_id"].n_unique() == 3 * ROWS


def test_memory_holds_a_few_pieces_of_a_long_query(bind: Binder, trained: Bound) -> None:
    alive: list[int] = []
    read = iter(range(40))

    def long() -> Iterator[pl.DataFrame]:
        for n in read:
            alive.append(len(list(Path(open_storage(trained.settings).root).rglob("batch/**/part-*"))))
            yield entities(50).with_columns(customer=pl.format(f"{n}-{{}}", "customer"))

    TABLE[:] = [long()]
    run = batch_predict(bind(batch=of(QuerySource(query), rows=10)))
    assert run.rows == 40 * 50
    assert alive == [5 * n for n in range(40)]  # what came before is written when more is asked for


def test_a_stateful_line_learns_from_batch_predictions(trained: Bound) -> None:
    run = batch_predict(trained)
    clock = trained.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(clock.now() + timedelta(hours=2))
    labels = [
        Label(prediction_id=f"batch-{run.id}-c-{n}", value=n % 2 == 0, known_at=clock.now())
        for n in range(ROWS)
    ]
    trained.log.label(labels)
    collect(trained.log)
    made = train(trained)
    assert made.version is not None
    assert made.version.learned == ROWS
    assert made.served["roc_auc"] == pytest.approx(0.5, abs=0.2)


def test_classes_have_probabilities(bind: Binder, table: Path) -> None:
    from tests.loop import models  # noqa: PLC0415

    bound = bind(
        name="colours",
        task="multiclass",
        features=(Feature("a", float),),
        model=models.sgd,
        batch=of(ParquetSource(str(table))),
    )
    day_of_colours(bound)
    train(bound)
    run = batch_predict(bound)
    found = logged(bound)
    assert found.height == ROWS
    assert '"red"' in found["output"][0]
    assert found["output"].equals(parts(bound, run.id)["output"])


def day_of_colours(bound: Bound) -> None:
    from headwater.spec.data.records import Prediction  # noqa: PLC0415

    now = bound.clock.now()
    ids = [f"p{n}" for n in range(60)]
    bound.log.record(
        [
            Prediction(id=id_, features={"a": float(n % 3)}, output={"red": 1.0}, served_at=now)
            for n, id_ in enumerate(ids)
        ]
    )
    colours = ("red", "green", "blue")
    bound.log.label(
        [Label(prediction_id=id_, value=colours[n % 3], known_at=now) for n, id_ in enumerate(ids)]
    )
    collect(bound.log)
