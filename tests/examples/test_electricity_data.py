"""The electricity stream: what the rows are, that no feature sees the future, and a tiny replay."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from examples.electricity import pipeline as declared
from examples.electricity.data import DELAY_ROWS, FEATURES, HALF_HOUR, VARIABLE, build, find, load, read
from examples.electricity.run import NAMES, lead, main, no_change, scores
from polars.testing import assert_frame_equal
from sklearn.metrics import cohen_kappa_score

from headwater.spec.data.feature import python_type
from headwater.spec.errors import NotFoundError, SchemaError

FEATURE_NAMES = [feature.name for feature in FEATURES]
NUMBERS = ["day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
LATE = ["nswprice", "vicprice", "up"]
FIRST = datetime(1996, 5, 7, tzinfo=UTC)
DAYS = 14


def made_up(days: int = DAYS) -> pl.DataFrame:
    """Make a stream with the columns of the real one, in which prices follow the demand."""
    draw = np.random.default_rng(7)
    rows = days * 48
    number = np.arange(rows)
    demand = 0.5 + 0.2 * np.sin(2 * np.pi * (number % 48) / 48) + draw.normal(0, 0.03, rows)
    price = 0.1 * demand + draw.normal(0, 0.005, rows)
    mean = pl.Series(price).rolling_mean(48, min_samples=1).to_numpy()
    return pl.DataFrame(
        {
            "date": number // 48 / 1_000,
            "day": (number // 48 + 1) % 7 + 1,
            "period": (number % 48 / 47).round(6),
            "nswprice": price,
            "nswdemand": demand,
            "vicprice": price / 10 + draw.normal(0, 0.001, rows),
            "vicdemand": demand + draw.normal(0, 0.03, rows),
            "transfer": draw.uniform(0.3, 0.6, rows),
            "class": np.where(price > mean, "UP", "DOWN"),
        }
    )


def changed(raw: pl.DataFrame, columns: list[str], after: int) -> pl.DataFrame:
    """Change what the columns hold in the rows after that one."""
    later = pl.int_range(pl.len()) > after
    others = [
        pl.when(later).then(~pl.col(n) if n == "up" else 1.0 - 3 * pl.col(n)).otherwise(n).alias(n)
        for n in columns
    ]
    return raw.with_columns(others)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elec2") / "elec2.parquet"
    began = pl.lit(FIRST.replace(tzinfo=None)) + pl.int_range(pl.len()) * HALF_HOUR
    made_up().with_columns(ts_derived=began).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def raw(file: Path) -> pl.DataFrame:
    return read(file)


@pytest.fixture(scope="module")
def rows(raw: pl.DataFrame) -> pl.DataFrame:
    return build(raw)


def test_one_row_a_half_hour(rows: pl.DataFrame) -> None:
    assert rows.columns == ["id", "served_at", "label", "known_at", *FEATURE_NAMES]
    assert rows.height == rows["id"].n_unique() == DAYS * 48
    assert rows["id"].to_list()[:2] == ["elec2-000001", "elec2-000002"]
    assert rows["served_at"][0] == FIRST
    assert (rows["served_at"].diff().drop_nulls() == timedelta(minutes=30)).all()
    assert rows["label"].to_list() == (made_up()["class"] == "UP").to_list()


def test_a_label_is_known_when_the_row_48_later_is_served(rows: pl.DataFrame) -> None:
    assert rows["known_at"][:-DELAY_ROWS].equals(rows["served_at"][DELAY_ROWS:])
    assert (rows["known_at"] - rows["served_at"] == timedelta(days=1)).all()


def test_features_are_as_declared(rows: pl.DataFrame) -> None:
    for feature in FEATURES:
        values = rows[feature.name].to_list()
        assert {type(value) for value in values} - {type(None)} == {python_type(feature.dtype)}
        assert feature.nullable == (None in values), feature.name
    assert rows[7 * 48 :].select(FEATURE_NAMES).null_count().sum_horizontal().item() == 0


def test_features_by_hand(raw: pl.DataFrame, rows: pl.DataFrame) -> None:
    for k in (400, 555, 671):
        row, at = rows.row(k, named=True), raw.row(k, named=True)
        past = raw[k - 47 : k + 1]
        known = raw[k - 95 : k - 47]
        assert row["hour_of_day"] == (k % 48) / 2
        assert row["day_of_week"] == row["served_at"].isoweekday()
        assert row["nsw_demand"] == at["nswdemand"]
        assert row["nsw_demand_on_day"] == pytest.approx(at["nswdemand"] - past["nswdemand"].mean())
        assert row["nsw_demand_change"] == at["nswdemand"] - raw["nswdemand"][k - 1]
        assert row["nsw_demand_on_yesterday"] == at["nswdemand"] - raw["nswdemand"][k - 48]
        assert row["nsw_price_yesterday"] == raw["nswprice"][k - 48]
        assert row["nsw_price_on_day"] == pytest.approx(
            raw["nswprice"][k - 48] - known["nswprice"].mean()
        )
        assert row["up_yesterday"] == raw["up"][k - 48]
        assert row["up_last_week"] == raw["up"][k - 336]
        assert row["up_share"] == pytest.approx(known["up"].mean())


@pytest.mark.parametrize("k", [0, 1, 47, 48, 95, 96, 335, 336, 500, 670])
def test_no_feature_sees_the_future(raw: pl.DataFrame, rows: pl.DataFrame, k: int) -> None:
    """Change all that comes after row k, and the prices and labels that are not known then."""
    other = changed(changed(raw, [*NUMBERS, *LATE[2:]], k), LATE, k - DELAY_ROWS)
    assert not other.equals(raw)
    assert_frame_equal(
        build(other)[: k + 1].select(FEATURE_NAMES),
        rows[: k + 1].select(FEATURE_NAMES),
        check_exact=True,
    )


def test_the_cut_is_sharp(raw: pl.DataFrame, rows: pl.DataFrame) -> None:
    """Change one row more, and features differ: the test above can fail."""
    k = 500
    for columns, after, seen in (
        (["nswdemand"], k - 1, ("nsw_demand", "nsw_demand_on_day", "nsw_demand_change")),
        (
            LATE,
            k - DELAY_ROWS - 1,
            ("nsw_price_yesterday", "nsw_price_on_day", "up_yesterday", "up_share"),
        ),
    ):
        other = build(changed(raw, columns, after))
        for name in seen:
            assert other[name][k] != rows[name][k], name


@pytest.mark.parametrize("quote", ["", "'"])
def test_csv_gives_the_same_rows(rows: pl.DataFrame, tmp_path: Path, quote: str) -> None:
    path = tmp_path / "elecNormNew.csv"
    text = [f"{quote}{{}}{quote}"]
    quoted = made_up().with_columns(pl.format(text[0], pl.col("class")).alias("class"))
    quoted.with_columns(pl.format(text[0], pl.col("day")).alias("day")).write_csv(path)
    assert_frame_equal(load(path), rows)
    assert load(path) is load(path)


def test_the_variable_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(file))
    assert find() == file
    assert load().height == DAYS * 48


@pytest.mark.parametrize("named", ["", "nowhere/elec2.parquet"])
def test_a_missing_file_says_where_to_get_it(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, named)
    with pytest.raises(NotFoundError) as caught:
        load()
    for part in ("OpenML", "151", "MOA", "HEADWATER_ELEC2"):
        assert part in caught.value.hint
    assert named in caught.value.what


def test_another_file_is_refused(file: Path, tmp_path: Path) -> None:
    stream = pl.read_parquet(file)
    broken = {
        "has no column class": stream.drop("class"),
        "is not the elec2 stream": stream.with_columns(pl.lit("SIDEWAYS").alias("class")),
        "half an hour apart": stream.reverse(),
    }
    for said, frame in broken.items():
        frame.write_parquet(tmp_path / "other.parquet")
        with pytest.raises(SchemaError, match=said):
            read(tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SchemaError, match="cannot be read"):
        read(tmp_path / "torn.parquet")


def test_from_stage_to_stage_at_most_two_fields_change() -> None:
    stages = [getattr(declared, name) for name in NAMES]
    fields = [name for name in declared.never.__struct_fields__ if name != "name"]
    for before, after in pairwise(stages):
        differ = {name for name in fields if getattr(before, name) != getattr(after, name)}
        assert 1 <= len(differ) <= 2
        assert differ <= {"update", "triggers", "pace"}


def test_no_change_predicts_the_newest_known_label(rows: pl.DataFrame) -> None:
    given = no_change(rows)["output"]
    assert set(given[:DELAY_ROWS]) == {0.5}
    assert given[DELAY_ROWS:].to_list() == rows["label"].cast(pl.Float64)[:-DELAY_ROWS].to_list()


def test_scores_and_lead_by_hand(rows: pl.DataFrame) -> None:
    served = no_change(rows).join(rows.select("id", "served_at", "label"), on="id")[DELAY_ROWS:]
    found = scores(served["output"], served["label"])
    called = (served["output"] >= 0.5).to_numpy()
    assert found.kappa == pytest.approx(cohen_kappa_score(served["label"].to_numpy(), called))
    assert found.accuracy == pytest.approx((called == served["label"].to_numpy()).mean())
    assert lead(served, served) == (0.0, 0.0)
    perfect = served.with_columns(output=pl.col("label").cast(pl.Float64))
    assert scores(perfect["output"], perfect["label"]) == (1.0, 1.0, 1.0)
    assert lead(perfect, served)[0] > 0
    assert lead(served, perfect)[1] < 0


def test_a_tiny_replay(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--file", str(file), "--start", "1996-05-18", "--days", "2"]
    assert main([*arguments, "--home", str(tmp_path / "home")]) == 0
    lines = {line.split("  ")[0].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    titles = ("no change", "never updated", "stage 2, stateless", "stage 3, stateful")
    assert {*titles, "stage 4, continual"} <= set(lines)
    assert "0" in lines["never updated"]
    assert "49 predictions with labels. Against no change, by kappa:" in lines


def test_an_impossible_replay_is_an_error(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--file", str(file), "--start", "1996-05-18", "--days", "200"]) == 1
    assert "error: the stream goes from 1996-05-07 to 1996-05-20" in capsys.readouterr().err
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["--days", "2"]) == 1
    assert "set HEADWATER_ELEC2" in capsys.readouterr().err
