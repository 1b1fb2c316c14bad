"""The flights: what the rows are, and that no feature sees what had not happened yet."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from examples.flights.data import FEATURES, Tables, build, features_of, load, read
from polars.testing import assert_frame_equal

from headwater.spec.data.feature import python_type

NAMES = [feature.name for feature in FEATURES]
OUTCOMES = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
ISLANDS = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
DAYS_BEFORE = timedelta(days=4)  # no feature looks further back than a long flight and half a day


def minute_of_day(moment: pl.Expr) -> pl.Expr:
    return moment.dt.hour().cast(pl.Int64) * 60 + moment.dt.minute()


def scheduled() -> pl.Expr:
    return pl.col("time_hour") + pl.duration(minutes="minute")


def with_real_times(tables: Tables) -> pl.DataFrame:
    """Add the id, and left_at and landed_at by the clocks at both ends, not by the timetable."""
    zones = dict(tables.airports.select("faa", "tzone").iter_rows()) | ISLANDS
    frame = tables.flights.with_columns(left_at=scheduled() + pl.duration(minutes="dep_delay"))
    zone_of = pl.col("dest").replace_strict(zones, return_dtype=pl.String)
    landed = pl.col("arr_time") // 100 * 60 + pl.col("arr_time") % 100
    elapsed = pl.lit(None, dtype=pl.Int64)
    for zone in sorted(set(zones.values()) - {None}):
        there = minute_of_day(pl.col("left_at").dt.convert_time_zone(zone))
        elapsed = pl.when(zone_of == zone).then((landed - there) % 1440).otherwise(elapsed)
    landed_at = pl.col("left_at") + pl.duration(minutes=elapsed)
    day = pl.date("year", "month", "day")
    clock = pl.col("sched_dep_time").cast(pl.String).str.zfill(4)
    return frame.with_columns(
        id=pl.format("{}-{}-{}-{}-{}", day, "carrier", "flight", "origin", clock),
        landed_at=pl.when(pl.col("arr_delay").is_not_null()).then(landed_at),
    )


def without_future(raw: Tables, flights: pl.DataFrame, moment: datetime) -> Tables:
    """Cut the tables down to what had happened by then; the timetable itself stays."""
    ahead = {name: pl.col("landed_at") <= moment for name in ("arr_time", "arr_delay", "air_time")}
    ahead |= {name: pl.col("left_at") <= moment for name in ("dep_time", "dep_delay")}
    known = [pl.when(happened).then(name).alias(name) for name, happened in ahead.items()]
    observed = pl.col("time_hour") + timedelta(hours=1) <= moment
    cut = flights.with_columns(known).select(raw.flights.columns)
    return raw._replace(flights=cut, weather=raw.weather.filter(observed))


def around(flights: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    return flights.filter(scheduled().is_between(moment - DAYS_BEFORE, moment + timedelta(days=1)))


def at(rows: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    return rows.filter(pl.col("served_at") == moment).select("id", *NAMES)


@pytest.fixture(scope="module")
def raw() -> Tables:
    return read()


@pytest.fixture(scope="module")
def flights(raw: Tables) -> pl.DataFrame:
    return with_real_times(raw)


def moments() -> list[datetime]:
    """Sixty departures, spread over the year and the hours of the day, and days on which clocks move."""
    times = load()["served_at"].unique().sort()
    spread = times.gather_every(len(times) // 56 + 1, offset=700).to_list()
    moved = [datetime(2013, 3, 10, 11, tzinfo=UTC), datetime(2013, 11, 3, 12, tzinfo=UTC)]
    storms = [datetime(2013, 3, 8, 17, tzinfo=UTC), datetime(2013, 7, 23, 1, 15, tzinfo=UTC)]
    return spread + moved + storms


def test_one_row_a_flight() -> None:
    rows = load()
    assert rows.height == 336_776
    assert rows["id"].n_unique() == rows.height
    assert rows.columns == ["id", "served_at", "late", "known_at", *NAMES]
    assert load() is rows


def test_rows_are_sorted(raw: Tables) -> None:
    rows = load().select(
        "served_at", "carrier", flight=pl.col("id").str.split("-").list.get(4), o="origin"
    )
    keys = rows.with_columns(pl.col("flight").cast(pl.Int64))
    assert_frame_equal(keys, keys.sort(keys.columns))


def test_served_at_is_the_scheduled_departure_by_the_local_clock(raw: Tables) -> None:
    local = scheduled().dt.convert_time_zone("America/New_York")
    clock = raw.flights.select(
        day=local.dt.date() == pl.date("year", "month", "day"),
        time=local.dt.hour().cast(pl.Int64) * 100 + local.dt.minute() == pl.col("sched_dep_time"),
    )
    assert clock.select(pl.all().all()).row(0) == (True, True)
    first = load().row(0, named=True)
    assert first["id"] == "2013-01-01-UA-1545-EWR-0515"
    assert first["served_at"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)


def test_labels_are_known_after_they_were_served() -> None:
    rows = load()
    assert 0.2 < rows["late"].mean() < 0.26  # type: ignore[operator]
    assert rows["late"].null_count() == rows["known_at"].null_count() == 1_175
    assert rows.filter(pl.col("late").is_null() != pl.col("known_at").is_null()).is_empty()
    assert rows.filter(pl.col("known_at") <= pl.col("served_at")).is_empty()


def test_diverted_flights_are_never_labelled_and_cancelled_ones_are_late(raw: Tables) -> None:
    diverted = pl.col("dep_time").is_not_null() & pl.col("arr_delay").is_null()
    cancelled = pl.col("dep_time").is_null()
    some = raw.flights.filter(diverted | cancelled)
    rows = build(some, raw.weather, raw.airports)
    assert rows["late"].null_count() == some.filter(diverted).height
    assert rows.drop_nulls("late")["late"].all()
    due_at = pl.col("served_at") + pl.duration(minutes=pl.col("block_minutes") + 15)
    assert rows.drop_nulls("late").filter(pl.col("known_at") != due_at).is_empty()


def test_arrivals_agree_with_the_clock_at_the_destination(flights: pl.DataFrame) -> None:
    both = (
        load()
        .join(flights.select("id", "left_at", "landed_at", "air_time"), on="id")
        .drop_nulls("landed_at")
    )
    assert both.height == 336_776 - 8_255 - 1_175
    assert both.filter(pl.col("known_at") != pl.col("landed_at")).is_empty()
    on_ground = (pl.col("landed_at") - pl.col("left_at")).dt.total_minutes() - pl.col("air_time")
    assert both.select(on_ground.is_between(5, 240).all()).item()


def test_block_minutes_are_sane(flights: pl.DataFrame) -> None:
    both = load().join(flights.select("id", "air_time"), on="id").drop_nulls("air_time")
    spare = both["block_minutes"] - both["air_time"]
    assert 35 < spare.mean() < 40  # type: ignore[operator]
    assert spare.is_between(-100, 150).all()
    assert load()["block_minutes"].is_between(45, 720).all()


def test_a_destination_without_a_zone_has_its_block_estimated(raw: Tables) -> None:
    some = raw.flights.head(2_000)
    known = build(some, raw.weather, raw.airports)
    guessed = build(some, raw.weather, raw.airports.clear())
    off = (known["block_minutes"] - guessed["block_minutes"]).abs()
    assert off.mean() < 20  # type: ignore[operator]
    assert off.max() > 0  # type: ignore[operator]
    assert guessed.filter(pl.col("known_at") <= pl.col("served_at")).is_empty()


def test_features_are_as_declared() -> None:
    rows = load().gather_every(1_000)
    made = features_of(rows)
    assert len(made) == rows.height
    for feature in FEATURES:
        values = [features[feature.name] for features in made]
        assert {type(value) for value in values} - {type(None)} == {python_type(feature.dtype)}
        assert feature.nullable == (load()[feature.name].null_count() > 0)
    assert list(made[0]) == NAMES
    assert made[7] == rows.select(NAMES).row(7, named=True)
    assert not load().select(pl.col(pl.Float64).is_nan().any()).transpose().to_series().any()


@pytest.mark.parametrize("moment", moments(), ids=str)
def test_no_feature_sees_the_future(raw: Tables, flights: pl.DataFrame, moment: datetime) -> None:
    cut = without_future(raw, around(flights, moment), moment)
    served = at(load(), moment)
    assert not served.is_empty()
    assert_frame_equal(at(build(*cut), moment), served, check_exact=True)


def test_no_feature_sees_the_future_with_the_whole_year_at_hand(
    raw: Tables, flights: pl.DataFrame
) -> None:
    moment = datetime(2013, 7, 10, 22, tzinfo=UTC)
    cut = without_future(raw, flights, moment)
    assert cut.flights["dep_time"].null_count() > 150_000
    assert_frame_equal(at(build(*cut), moment), at(load(), moment), check_exact=True)


def test_the_cut_is_sharp(raw: Tables, flights: pl.DataFrame) -> None:
    """Cut an hour earlier, and features that look at others differ: the test above can fail."""
    moment = datetime(2013, 7, 10, 22, tzinfo=UTC)
    cut = without_future(raw, around(flights, moment), moment - timedelta(hours=1))
    blind, served = at(build(*cut), moment), at(load(), moment)
    for name in ("temp", "origin_delay", "origin_departures", "carrier_delay", "waiting"):
        assert not blind[name].equals(served[name]), name


def test_a_flight_does_not_see_itself(raw: Tables, flights: pl.DataFrame) -> None:
    """Blank the outcome of flights that left early: what they are served with stays as it was."""
    early = flights.filter(pl.col("dep_delay").is_between(-40, 0)).gather_every(7_000)
    for row in early.select("id", served_at=scheduled()).iter_rows(named=True):
        near = around(flights, row["served_at"])
        itself = pl.col("id") == row["id"]
        blank = near.with_columns(pl.when(~itself).then(name).alias(name) for name in OUTCOMES)
        rows = build(blank.select(raw.flights.columns), raw.weather, raw.airports).filter(itself)
        assert rows["late"].all()
        assert_frame_equal(rows.select(NAMES), load().filter(itself).select(NAMES), check_exact=True)


def test_features_of_others_by_hand(flights: pl.DataFrame) -> None:
    """Count again, flight by flight, what `build` counts in passing."""
    window, served_at = timedelta(hours=2), scheduled()
    for row in load().gather_every(9_000).iter_rows(named=True):
        now = row["served_at"]
        others = flights.filter((pl.col("origin") == row["origin"]) & (pl.col("id") != row["id"]))
        left = others.filter((pl.col("left_at") > now - window) & (pl.col("left_at") <= now))
        due = others.filter((served_at > now - window) & (served_at < now))
        gone = due.filter(pl.col("left_at") <= now)
        same = left.filter(pl.col("carrier") == row["carrier"])
        assert row["origin_departures"] == left.height
        assert row["origin_delay"] == left["dep_delay"].mean()
        assert row["carrier_delay"] == same["dep_delay"].mean()
        assert row["waiting"] == due.height - gone.height


def test_weather_is_of_an_hour_that_is_over(raw: Tables) -> None:
    for row in load().drop_nulls("temp").gather_every(9_000).iter_rows(named=True):
        hour = row["served_at"].replace(minute=0)
        seen = raw.weather.filter(
            (pl.col("origin") == row["origin"])
            & pl.col("time_hour").is_between(hour - timedelta(hours=4), hour - timedelta(hours=1))
        ).sort("time_hour")
        assert row["temp"] == seen["temp"].last()
        assert row["visib"] == seen["visib"].last()
        assert row["wind_gust"] == (seen["wind_gust"].last() or 0.0)


def test_old_weather_counts_as_none(raw: Tables) -> None:
    last = raw.weather["time_hour"].max()
    after = load().filter(pl.col("served_at") > last + timedelta(hours=4))  # type: ignore[operator]
    assert after.height > 500
    assert after["temp"].null_count() == after["wind_gust"].null_count() == after.height
