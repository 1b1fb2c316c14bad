"""Bad input gets an error with the next step and a status of its own, and changes no store."""

import socket
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import TOY, TOYS, CommandResult, Run, history

from headwater import Bound, Settings, collect, import_history, load_pipeline, train


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Settings:
    """Return a home for all tests: two hundred examples and a version, which no refusal changes."""
    folder = tmp_path_factory.mktemp("refusals")
    settings = Settings(home=folder / "home")
    (settings.root / "mlflow.sqlite").write_bytes(mlflow_template.read_bytes())
    with Bound(load_pipeline(TOY), settings) as bound:
        import_history(bound.log, Path(history(folder / "history.parquet")))
        collect(bound.log)
        train(bound)
    return settings


def stores(settings: Settings) -> Iterator[object]:
    """Yield the content of each store of the toy pipeline."""
    with Bound(load_pipeline(TOY), settings) as bound:
        yield bound.log.inbox.read(0, 10_000)
        yield bound.log.counts()
        yield bound.log.predictions().rows()
        yield [bound.log.archive[name].stop() for name in ("predictions", "labels", "examples")]
        yield bound.registry.store.versions()
        yield bound.registry.store.aliases()
        yield bound.registry.championship.history()
        yield bound.registry.quarantine.ranges()


def refused(result: CommandResult, *words: str) -> None:
    """Check that a command names its error and the next step."""
    assert result.status == 1
    assert result.out == ""
    what, hint = result.err.splitlines()[-2:]
    assert what.startswith("error: ")
    assert hint.startswith("next: ")
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", f"{TOYS}:tyo"), ("'tyo'", "toy")),
        (("train", "no/such.py:toy"), ("no file",)),
        (("train", "toy"), ("'toy' does not name a pipeline", "module:attribute")),
        (("versions", "tyo"), ("no pipeline 'tyo'", "toy")),
        (("train", f"{TOYS}:fitted"), ("RandomForestClassifier", "Stateless(window")),
        (("promote", "toy", "9"), ("no version '9'", "it has 1")),
        (("rebuild", "toy", "nine"), ("no version 'nine'", "it has 1")),
        (("rollback", "toy"), ("no earlier champion", "--to")),
        (("rollback", "toy", "--quarantine", "9:3"), ("'9:3' is no range", "START:STOP")),
        (("quarantine", "toy", "0:" + "9" * 20), ("is no range", "START:STOP")),
        (("examples", TOY, "--stop", "201"), ("no examples [0, 201)", "[0, 200)")),
        (("import", TOY, "no.csv"), ("no file 'no.csv'",)),
        (("deploy", TOY), ("no stack runs", "headwater up")),
        (("decisions", "tyo"), ("no pipeline 'tyo'", "toy")),
        (
            ("update", TOY, "--decision", "nonsense"),
            ("no decision 'nonsense'", "headwater decisions toy"),
        ),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_a_wrong_argument_is_refused(
    run: Run, home: Settings, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = list(stores(home))
    refused(run(*arguments), *words)
    assert list(stores(home)) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": pl.lit("many")}, ("row 0 (from 0): column 'x' (String) holds 'many'", "no float")),
        ({"x": pl.lit(float("nan"))}, ("row 0 (from 0): column 'x' holds nan", "None")),
        ({"x": pl.lit(None)}, ("column 'x' is null", "nullable")),
        ({"label": pl.lit("perhaps")}, ("column 'label'",)),
        ({"served_at": pl.col("served_at").dt.replace_time_zone(None)}, ("served_at", "zone")),
        ({"y": pl.when(pl.col("id") == "p7").then(99.0).otherwise("y")}, ("p7", "another payload")),
    ],
    ids=["type", "nan", "null", "label", "naive time", "another payload"],
)
def test_a_table_that_does_not_fit_is_refused_whole(
    run: Run,
    home: Settings,
    tmp_path: Path,
    changes: dict[str, pl.Expr],
    words: tuple[str, ...],
) -> None:
    before = list(stores(home))
    stop = 300 if "y" in changes else 200
    refused(run("import", TOY, history(tmp_path / "bad.parquet", 0, stop, **changes)), *words)
    assert list(stores(home)) == before


def test_a_missing_column_is_named(run: Run, tmp_path: Path) -> None:
    result = run("import", TOY, history(tmp_path / "t.parquet"), "--known-at", "when")
    refused(result, "no column when", "it has id, served_at, known_at")


def test_a_corrupt_table_is_named_and_the_database_read_instead(
    run: Run, home: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = (home.root / "storage" / "tables" / "toy" / "examples").glob("*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    learned = run("train", TOY, "--fresh", "--json").json
    path.write_bytes(content)
    assert (learned["version"]["learned"], path.name in caplog.text) == (200, True)
    again = run("train", TOY, "--fresh", "--json").json
    assert again["version"]["digest"] == learned["version"]["digest"]


def test_storage_that_is_away_is_named_and_loses_nothing(run: Run, tmp_path: Path) -> None:
    pipeline = f"{TOYS}:by_hand"
    run("import", pipeline, history(tmp_path / "some.parquet"))
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    with socket.socket() as deaf:  # it does not listen, and nobody else can while it is bound
        deaf.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        away = {"HEADWATER_STORAGE": "s3://away/tables", "HEADWATER_S3_ENDPOINT": endpoint, **keys}
        refused(run("collect", pipeline, **away), "bucket 'away'", "HEADWATER_S3_ENDPOINT")
    found = run("collect", pipeline, "--json").json
    assert (found["archived"], found["stop"]) == (200, 200)


def test_a_taken_port_is_named(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(run("up", "--prefect-port", port), f"port {port} is taken", "--prefect-port 0")


def test_a_setting_that_does_not_fit_is_named(run: Run) -> None:
    refused(run("status", TOY, HEADWATER_NOW="yesterday"), "HEADWATER_NOW")


def test_machines_get_the_error_as_json(run: Run) -> None:
    result = run("promote", "toy", "9", "--json")
    assert result.status == 1
    assert result.json["error"] == "NotFoundError"
    assert result.json["hint"] == "it has 1"


def test_a_replay_needs_all_of_an_example(run: Run, tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text("def events(): ...\n")
    refused(run("replay", str(tmp_path)), "live.py has no START", "examples/flights/live.py")
