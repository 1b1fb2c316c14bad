"""How an import reads a file: its options, columns of other names, and the dry run."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from msgspec.structs import replace
from tests.conftest import START

from headwater.features.log import FeatureLog
from headwater.features.record import import_draft
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.replay.history import Columns, History
from headwater.loop.replay.import_history import import_history, preview_import
from headwater.loop.replay.import_remarks import RemarkedLabels
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import ChangedError, ConflictError, DeclarationError, SchemaError
from headwater.spec.pipeline import Pipeline

KNOWN = START + timedelta(hours=1)
PRICE, B = Feature("price", float, column="Price (EUR)"), Feature("b", bool, nullable=True)


@pytest.fixture
def log(pipeline: Pipeline, settings: Settings, clock: SimulatedClock) -> Any:
    clock.advance_to(KNOWN + timedelta(days=400))
    found = FeatureLog(replace(pipeline, features=(PRICE, B)), settings, clock)
    yield found
    found.close()
    found.database.close()


def examples(log: FeatureLog) -> pl.DataFrame:
    with log.sequencer() as sequencer:
        sequencer.drain()
    return log.examples().unnest("features")


def written(folder: Path, body: str, name: str = "h.csv") -> Path:
    (folder / name).write_text("id;served_at;known_at;label;Price (EUR);b;more\n" + body)
    return folder / name


def test_a_text_file_is_read_as_its_options_say(log: FeatureLog, tmp_path: Path) -> None:
    body = "a;31.03.2024 01:30;31.03.2024 03:30;Ja;1.5;nein;x\nb;01.01.2024 12:00;;-;2;-;x\n"
    columns = Columns(
        null=("-",),
        delimiter=";",
        true=("ja",),
        false=("nein",),
        time_format="%d.%m.%Y %H:%M",
        zone="Europe/Berlin",
    )
    assert import_history(log, written(tmp_path, body), columns) == 3
    (found,) = examples(log).iter_rows(named=True)
    assert (found["price"], found["b"], found["label"]) == (1.5, False, True)
    assert found["served_at"] == datetime(2024, 3, 31, 0, 30, tzinfo=UTC)
    assert found["known_at"] == datetime(2024, 3, 31, 1, 30, tzinfo=UTC)  # the clocks went forward


@pytest.mark.parametrize(
    ("times", "options", "said"),
    [
        ("31.03.2024 02:30", {"time_format": "%d.%m.%Y %H:%M"}, "once"),  # never
        ("27.10.2024 02:30", {"time_format": "%d.%m.%Y %H:%M"}, "once"),  # twice
        ("2024-10-27T02:30", {}, "2013-01-01T05:15:00Z"),
        ("2024-03-31 02:30:00.5", {}, "2013-01-01T05:15:00Z"),
        (" 01.01.2024 12:00", {"time_format": "%d.%m.%Y %H:%M"}, "in the form"),
        ("01.01.24 12:00", {"time_format": "%d.%m.%Y %H:%M"}, "in the form"),
        ("2024-01-01T12:00:00Z", {"time_format": "%d.%m.%Y %H:%M"}, "in the form"),
        ("2024-01-01T12:00", {"zone": None}, "--zone"),
    ],
)
def test_a_time_that_is_no_instant_is_refused_with_its_line(
    log: FeatureLog, tmp_path: Path, times: str, options: dict[str, Any], said: str
) -> None:
    columns = Columns(delimiter=";", **({"zone": "Europe/Berlin"} | options))
    early = "01.01.1999 12:00" if columns.time_format else "1999-01-01T12:00Z"
    path = written(tmp_path, f"a;{early};;;1;;x\nb;{times};;;1;;x\n")
    with pytest.raises(SchemaError, match=r"^line 3: column 'served_at' holds .*no time") as refused:
        import_history(log, path, columns)
    assert said in (refused.value.hint or "")
    assert log.inbox.end() == 0


def test_a_zone_holds_for_times_that_say_none(log: FeatureLog, tmp_path: Path) -> None:
    body = "a;2024-07-01T12:00:00Z;;;1;;x\nb;2024-07-01 12:00;;;1;;x\nc;2024-07-01T12:00:00.25;;;1;;x\n"
    body += "d;2024-07-01T12:00+05:30;;;1;;x\n"
    wanted = ["12:00:00", "10:00:00", "10:00:00.250000", "06:30:00"]
    frame = pl.read_csv(written(tmp_path, body), separator=";")
    for source in (tmp_path / "h.csv", frame):
        text = isinstance(source, Path)
        columns = Columns(zone="Europe/Berlin", delimiter=";" if text else None)
        preview = preview_import(log, source, columns, first=9)
        assert [str(one.served_at.time()) for one, _ in preview.first] == wanted
    naive = frame.head(1).with_columns(served_at=datetime(2024, 7, 1, 12))  # noqa: DTZ001 - that is it
    (shown,) = preview_import(log, naive, Columns(zone="Europe/Berlin")).first
    assert shown[0].served_at == datetime(2024, 7, 1, 10, tzinfo=UTC)
    with pytest.raises(SchemaError, match=r"^row 0 .* no time with a zone"):
        import_history(log, naive)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"true": ("x",), "false": ("X",)}, "'x' would be both true and false"),
        ({"true": ("false",)}, "'false' would be both true and false"),
        ({"null": ("0",)}, "'0' would be both null and a boolean"),
        ({"true": ("",)}, "words for true"),
        ({"false": ()}, "words for false"),
        ({"delimiter": ""}, "splits no fields"),
        ({"delimiter": ";;"}, "splits no fields"),
        ({"delimiter": '"'}, "splits no fields"),
        ({"zone": "Mars/Base"}, "no zone 'Mars/Base'"),
        ({"zone": "../x"}, "no zone"),
        ({"zone": "localtime"}, "no zone"),  # the machine has it, Polars does not
        ({"time_format": "%d.%m.%Y %H:%M"}, "does not say the zone"),
        ({"time_format": "%d.%m.%Y %H:%M %z", "zone": "UTC"}, "says the zone of each time"),
        ({"time_format": "%d.%m.%Y %H:%M %Z", "zone": "UTC"}, "%Z: the name of a zone"),
        ({"time_format": "%d.%m.%y %H:%M", "zone": "UTC"}, "does not tell apart"),
        ({"time_format": "%d.%m.%Y", "zone": "UTC"}, "does not tell apart"),
        ({"time_format": "%I:%M %d.%m.%Y", "zone": "UTC"}, "does not tell apart"),
        ({"time_format": "%Y-%m-%d %H:%M:%f", "zone": "UTC"}, "does not tell apart"),
        ({"time_format": "nonsense", "zone": "UTC"}, "does not tell apart"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    log: FeatureLog, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SchemaError, match=said) as refused:
        import_history(log, written(tmp_path, ""), Columns(**options))
    assert refused.value.hint


def test_a_form_of_python_with_fractions_is_read(log: FeatureLog, tmp_path: Path) -> None:
    path = written(tmp_path, "a;2024-01-01 12:00:00.125 +0100;;;1;;x\n")
    (shown,) = preview_import(
        log, path, Columns(delimiter=";", time_format="%Y-%m-%d %H:%M:%S.%f %z")
    ).first
    assert shown[0].served_at == datetime(2024, 1, 1, 11, 0, 0, 125_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "options", [{"null": ("NA",)}, {"delimiter": ";"}, {"true": ("yes",)}, {"false": ("no",)}]
)
def test_options_of_text_are_refused_for_typed_tables(
    log: FeatureLog, tmp_path: Path, options: dict[str, Any]
) -> None:
    frame = pl.read_csv(written(tmp_path, "a;2024-01-01T00:00Z;;;1;;x\n"), separator=";")
    frame.write_parquet(tmp_path / "h.parquet")
    for source in (frame, frame.to_pandas(), tmp_path / "h.parquet"):
        with pytest.raises(SchemaError, match="no text file"):
            import_history(log, source, Columns(**options))


HISTORY = pl.DataFrame(
    {
        "id": ["a", "b", "b", "c"],
        "served_at": [START] * 4,
        "known_at": [KNOWN, None, None, KNOWN],
        "label": [True, None, None, False],
        "Price (EUR)": [1.5, 2.0, 2.0, 3.0],
        "b": [True, None, None, False],
        "more": [1, 2, 3, 4],
    }
)


def test_a_dry_run_says_what_would_be_recorded_and_records_nothing(log: FeatureLog) -> None:
    preview = preview_import(log, HISTORY, first=2)
    assert log.inbox.end() == 0
    assert msgspec.to_builtins(preview.counts) == {
        "predictions": 3,
        "labels": 2,
        "predictions_known": 1,
        "labels_known": 0,
    }
    assert (preview.rows, preview.unlabelled, preview.unused) == (4, 2, ("more",))
    (prediction, label), (_, nothing) = preview.first
    assert prediction.features == {"price": 1.5, "b": True}
    assert label is not None
    assert label.value is True
    assert nothing is None
    import_history(log, HISTORY)
    again = preview_import(log, HISTORY)
    assert (again.counts.predictions, again.counts.predictions_known) == (0, 4)
    assert (again.counts.labels, again.counts.labels_known) == (0, 2)
    with pytest.raises(ConflictError):
        preview_import(log, HISTORY.with_columns(pl.lit(9.0).alias("Price (EUR)")))
    assert log.inbox.end() == 5


def test_a_dry_run_remarks_on_labels_beyond_the_wait(log: FeatureLog) -> None:
    wait = timedelta(hours=2)
    known = [START + wait, START + wait + timedelta(seconds=1), START - wait, START - 2 * wait]
    labels = pl.Series([True] * 4)
    rows = HISTORY.with_columns(id=pl.Series(list("abcd")), label=labels, known_at=pl.Series(known))
    preview = preview_import(log, rows)
    assert preview.late == RemarkedLabels(rows=1, prediction_id="b")
    assert preview.expired == RemarkedLabels(rows=1, prediction_id="d")
    assert preview.undeclared is None
    import_history(log, rows)
    found = examples(log)
    assert dict(zip(found["prediction_id"], found["late"], strict=True)) == {
        "a": False,
        "b": True,
        "c": False,
    }


def test_a_dry_run_remarks_on_classes_that_are_not_declared(
    log: FeatureLog, settings: Settings, clock: SimulatedClock
) -> None:
    rows = HISTORY.head(2).with_columns(known_at=pl.lit(KNOWN), label=pl.Series(["red", "gren"]))
    for rule, told in (
        (LabelRule(wait="2h", classes=("red", "blue"), open=True), ("gren",)),
        (LabelRule(wait="2h"), None),
    ):
        shades = replace(log.pipeline, name="shades", task="multiclass", label=rule)
        other = FeatureLog(shades, settings, clock, log.database)
        undeclared = preview_import(other, rows).undeclared
        assert (None if undeclared is None else undeclared.classes) == told
        assert undeclared is None or (undeclared.rows, undeclared.prediction_id) == (1, "b")
        other.close()


def test_a_dry_run_puts_no_declaration_in_force(
    log: FeatureLog, pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    import_history(log, HISTORY)
    before = log.declared.stored
    more = replace(log.pipeline, features=(PRICE, B, Feature("more", int, nullable=True)))
    for declared, told in ((more, None), (replace(more, task="regression"), ChangedError)):
        other = FeatureLog(declared, settings, clock, log.database)
        if told is None:
            rows = HISTORY.unique("id").with_columns(pl.col("id") + "-new")
            assert preview_import(other, rows).counts.predictions == 3
        else:
            with pytest.raises(told):
                preview_import(other, HISTORY.with_columns(label=pl.lit(1.0), known_at=KNOWN))
        assert other.declared.stored == before
        other.close()


def test_a_file_of_its_own_makes_the_same_examples(
    log: FeatureLog, settings: Settings, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_history(log, HISTORY)
    wanted = examples(log)
    monkeypatch.setattr(import_draft, "_FEW", 1)
    other = FeatureLog(replace(log.pipeline, name="other"), settings, clock, log.database)
    import_history(other, HISTORY)
    assert other.inbox.imported()
    assert other.recorder.find("a") == log.recorder.find("a")
    assert examples(other).equals(wanted)
    assert other.counts() == log.counts()
    other.close()


def test_a_column_of_another_name_is_read_and_changes_no_recipe(log: FeatureLog) -> None:
    plain = replace(log.pipeline, features=(Feature("price", float), B))
    assert msgspec.json.encode(PRICE) != msgspec.json.encode(plain.features[0])
    assert b"column" not in msgspec.json.encode(plain.features[0])
    with pytest.raises(SchemaError, match=r"no column Price \(EUR\); it has .*price"):
        import_history(log, HISTORY.rename({"Price (EUR)": "price"}))


@pytest.mark.parametrize(
    "features",
    [
        (Feature("a", float, column="x"), Feature("b", float, column="x")),
        (Feature("a", float, column="b"), Feature("b", float)),
    ],
)
def test_a_column_for_two_features_is_refused(pipeline: Pipeline, features: Any) -> None:
    with pytest.raises(DeclarationError, match=r"several features would be read from column '(x|b)'"):
        replace(pipeline, features=features)


@pytest.mark.parametrize("column", ["", 3])
def test_a_column_without_a_name_is_refused(column: Any) -> None:
    with pytest.raises(DeclarationError, match=r"'a' has column="):
        Feature("a", float, column=column)


def test_a_column_of_a_feature_for_another_role_is_refused(log: FeatureLog) -> None:
    with pytest.raises(SchemaError, match="column 'b' would be both"):
        import_history(log, HISTORY, Columns(id="b"))
    with pytest.raises(SchemaError, match="column 'b' would be both the label and feature 'b'"):
        import_history(log, HISTORY, Columns(label="b"))


def test_frames_bear_the_names_of_features(log: FeatureLog) -> None:
    (frame,) = History(log.pipeline, HISTORY).frames()
    assert frame.columns == ["id", "served_at", "known_at", "label", "price", "b"]


@pytest.mark.parametrize(
    ("name", "between", "hint"),
    [
        ("a.csv", ";", "--delimiter ';'"),
        ("a.csv", "|", "--delimiter '|'"),
        ("a.csv", "\t", ".tsv"),
        ("a.tsv", ",", "--delimiter ','"),
        ("a.CSV", ",", "--served-at"),
    ],
)
def test_a_table_that_was_not_split_says_how(
    name: str, between: str, hint: str, log: FeatureLog, tmp_path: Path
) -> None:
    columns = "id stamp known_at label" if between == "," and name == "a.CSV" else "id served_at label"
    (tmp_path / name).write_text(between.join(columns.split()) + "\n")
    with pytest.raises(SchemaError, match="has no column") as refused:
        import_history(log, tmp_path / name)
    assert hint in refused.value.hint


@pytest.mark.parametrize("name", ["h.csv", "h.csv.gz"])
@pytest.mark.parametrize(
    ("rows", "where"),
    [
        (b"a,,,,1,,x\nb\xed\xa0\x80,,,,1,,x\n", r"line 3, column 'id', 'b\xed\xa0\x80' is not UTF-8"),
        (b'a,,,,1,,"x\ny"\n\nb,,,caf\xe9,1,,x\n', r"line 5, column 'label', 'caf\xe9' is not UTF-8"),
        (b"a,,,\xc3\xa9,1,,x,\xe9\n", r"line 2, '\xe9' is not UTF-8"),
    ],
)
def test_what_is_not_utf_8_is_refused_by_its_line_and_column(
    rows: bytes, where: str, name: str, log: FeatureLog, tmp_path: Path
) -> None:
    body = b"id,served_at,known_at,label,Price (EUR),b,more\n" + rows
    (tmp_path / name).write_bytes(gzip.compress(body) if name.endswith("gz") else body)
    with pytest.raises(SchemaError, match="cannot be read") as refused:
        import_history(log, tmp_path / name)
    assert where in refused.value.what
    assert "UTF-8" in refused.value.hint


def test_a_line_of_names_that_is_not_utf_8_is_refused(log: FeatureLog, tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_bytes("id,served_at,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(SchemaError, match=r"line 1, 'caf.xe9' is not UTF-8"):
        import_history(log, tmp_path / "h.csv")


@pytest.mark.parametrize("table", [pl.LazyFrame({"id": ["a"]}), {"id": ["a"]}, [], None, 7, b"a.csv"])
def test_what_is_no_table_is_refused_by_name(table: Any, log: FeatureLog) -> None:
    with pytest.raises(SchemaError, match=f"a {type(table).__name__} is no table"):
        import_history(log, table)
