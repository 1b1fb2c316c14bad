"""Regressions: inputs that were once acknowledged and then lost, or that blocked or poisoned a store."""

import threading
from pathlib import Path

import msgspec
import pytest
from tests.features.records import NOW, drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import DeclarationError, SchemaError, TableError
from headwater.spec.loading import load_pipeline
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange
from headwater.spec.updating.triggers.schedule import Cron


def test_a_thread_is_not_acknowledged_inside_the_transaction_of_another(log: FeatureLog) -> None:
    inside = threading.Event()
    other = threading.Thread(target=lambda: (inside.set(), log.record([prediction("other")])))

    def half() -> None:
        with log.one_sync():
            log.record([prediction("mine")])
            other.start()
            inside.wait()
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        half()
    other.join()
    assert [row[2] for row in log.inbox.read(0, 10)] == ["other"]


def test_an_integer_beyond_64_bits_is_refused(
    pipeline: Pipeline, settings: Settings, log: FeatureLog
) -> None:
    whole = msgspec.structs.replace(pipeline, name="whole", features=(Feature("n", int),))
    counted = FeatureLog(whole, settings, database=log.database)
    with pytest.raises(SchemaError, match="64 bits"):
        counted.record([Prediction(id="a", features={"n": 2**63}, output=0.5, served_at=NOW)])
    counted.close()


def test_a_huge_label_does_not_block_the_sequencer(
    pipeline: Pipeline, settings: Settings, log: FeatureLog
) -> None:
    line = msgspec.structs.replace(pipeline, name="line", task="regression")
    measured = FeatureLog(line, settings, database=log.database)
    with pytest.raises(SchemaError, match="finite"):
        measured.label([label("a", 10**400)])
    assert drain(measured) == 0
    measured.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 7},
        {"role": "king"},
        {"propensity": True},
        {"version": "x" * 201},
        {"entity": {"a": object()}},
        {"entity": 3},
        {"output": 10**400},
        {"id": "\ud800"},
    ],
)
def test_a_record_that_could_not_be_read_again_is_refused(
    log: FeatureLog, wrong: dict[str, object]
) -> None:
    with pytest.raises(SchemaError):
        log.record([msgspec.structs.replace(prediction("a"), **wrong)])
    assert log.counts().unsequenced == 0


@pytest.mark.parametrize("source", ["poison", 3])
def test_an_unknown_source_is_refused(log: FeatureLog, source: object) -> None:
    strange = Label(prediction_id="a", value=True, known_at=NOW, source=source)  # type: ignore[arg-type] # on purpose
    with pytest.raises(SchemaError, match="source"):
        log.label([strange])


def test_a_file_that_took_the_place_of_another_is_noticed(log: FeatureLog) -> None:
    for start in (0, 10):
        log.record([prediction(str(i)) for i in range(start, start + 10)])
        log.label([label(str(i)) for i in range(start, start + 10)])
        drain(log)
        log.collect()
    files = sorted(
        Path(log.archive["examples"].address).glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns
    )
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(TableError):
        log.archive["examples"].read(OffsetRange(5, 15), log.frames.schema(("label",)))
    assert log.examples(5, 15)["prediction_id"].to_list() == [str(i) for i in range(5, 15)]


def test_a_file_is_not_taken_for_another_of_its_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        text = "from tests.spec.test_declaring import declare\nhere = declare()\n"
        (tmp_path / folder / "declared_twice.py").write_text(text)
    load_pipeline(f"{tmp_path}/one/declared_twice.py:here")
    with pytest.raises(DeclarationError, match="a name of its own"):
        load_pipeline(f"{tmp_path}/two/declared_twice.py:here")


@pytest.mark.parametrize(("line", "zone"), [("a b c d e", "UTC"), ("30 2 * * *", "Mars/Base")])
def test_a_cron_line_that_means_nothing_is_refused(line: str, zone: str) -> None:
    with pytest.raises(DeclarationError):
        Cron(line, zone)
    assert Cron("*/5 2-4 1,15 * mon-fri", "Europe/Berlin").line


def test_an_empty_signing_key_signs_nothing(settings: Settings) -> None:
    (settings.root / "signing.key").touch()
    with pytest.raises(DeclarationError, match="is empty"):
        settings.key()


def test_a_timeout_of_elsewhere_is_refused(log: FeatureLog) -> None:
    own = msgspec.structs.replace(label("a"), source="timeout")
    with pytest.raises(SchemaError, match="headwater's own"):
        log.label([own])
    with pytest.raises(SchemaError, match="headwater's own"):
        log.import_history([(prediction("a"), own)])
    assert log.counts().unsequenced == 0
