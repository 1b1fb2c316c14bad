"""The electricity market of New South Wales, half hour by half hour, each with what was known before.

The stream is Harries' "Splice-2 comparative evaluation: electricity pricing" (1999), also called elec2:
45,312 half hours from 7 May 1996, with the demand and the price in New South Wales and Victoria, the
scheduled transfer between them, all scaled to between 0 and 1, and whether the price was up on the mean
of the last 24 hours. No licence is stated, so the file is not shipped: `find` says where to get it.
`read` gives it raw, `build` makes one row a half hour of it, and `load` does both, once.

A row is served when its half hour begins; its label, and the prices, are known 48 rows later. So:

- the prices of the row itself are no features: the label is made of one, and the other is settled with
  it. Prices and labels are seen from the 48th row back on, when they are known;
- demand and scheduled transfer of the row itself are features: the market's operator forecasts them,
  and the dispatch that sets the price takes them in. Here the recorded values stand for the forecasts;
- ``date`` is none: it is the place in the stream, which no later row shares;
- the victorian price and demand and the transfer stand still until May 1997, when the market there
  opened. The model is not told.
"""

import os
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl

from headwater.spec.data.feature import Feature, RequestFeature
from headwater.spec.errors import NotFoundError, SchemaError, few

__all__ = ["DELAY_ROWS", "FEATURES", "HALF_HOUR", "VARIABLE", "build", "find", "load", "read"]

VARIABLE = "HEADWATER_ELEC2"
"""The environment variable that says where the file is."""

HALF_HOUR = timedelta(minutes=30)
DELAY_ROWS = 48
"""So many rows after its own, a label is known: a day."""

FEATURES: tuple[RequestFeature, ...] = (
    Feature("hour_of_day", float),
    Feature("day_of_week", float),
    Feature("nsw_demand", float),
    Feature("vic_demand", float),
    Feature("transfer", float),
    Feature("nsw_demand_on_day", float, nullable=True),
    Feature("vic_demand_on_day", float, nullable=True),
    Feature("transfer_on_day", float, nullable=True),
    Feature("nsw_demand_change", float, nullable=True),
    Feature("nsw_demand_on_yesterday", float, nullable=True),
    Feature("nsw_price_yesterday", float, nullable=True),
    Feature("vic_price_yesterday", float, nullable=True),
    Feature("nsw_price_on_day", float, nullable=True),
    Feature("up_yesterday", float, nullable=True),
    Feature("up_last_week", float, nullable=True),
    Feature("up_share", float, nullable=True),
)
"""What a model sees of a half hour; `build` says what each one means."""

_NAMES = [feature.name for feature in FEATURES]
_NUMBERS = ("day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
_FIRST = datetime(1996, 5, 7)  # noqa: DTZ001 - the zone is given to the column
_DAY_ROWS = 48
_WEEK_ROWS = 7 * _DAY_ROWS
_WHERE = (
    "get it from OpenML (data set 151, 'electricity') or as elecNormNew.csv from MOA's page of data sets"
)


def load(path: Path | None = None) -> pl.DataFrame:
    """Give every half hour, as `build` makes them; the second call costs nothing.

    Parameters
    ----------
    path
        The file; where `find` finds it if not given.

    Raises
    ------
    NotFoundError, SchemaError
        If there is no file, or it is another one.
    """
    return _built(find(path).resolve())


def find(path: Path | None = None) -> Path:
    """Give the path of the file, by default the environment variable's.

    Raises
    ------
    NotFoundError
        If none is named, or there is no file; it says where to get it.
    """
    named = os.environ.get(VARIABLE, "") if path is None else str(path)
    if not named:
        raise NotFoundError(
            "the elec2 stream is not shipped with headwater, and no file is named",
            hint=f"{_WHERE}, and set {VARIABLE} to the file's path",
        )
    if not Path(named).is_file():
        raise NotFoundError(
            f"no file {named!r} with the elec2 stream", hint=f"{_WHERE}, and set {VARIABLE} to its path"
        )
    return Path(named)


def read(path: Path) -> pl.DataFrame:
    """Read the raw stream.

    Parameters
    ----------
    path
        Parquet, or CSV with a line of names, in time order.

    Returns
    -------
    pl.DataFrame
        The numbers of the source as floats, by the source's names, and

        - served_at: when the half hour begins; ``ts_derived`` where the file has it, and otherwise a
          half hour after the row before, from 7 May 1996. The source gives no zone; it is taken as UTC.
        - up: whether the class is UP.

    Raises
    ------
    SchemaError
        If the file cannot be read, lacks a column or holds something else in it, or its rows are not
        half an hour apart.
    """
    try:
        raw = _read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SchemaError(
            f"{path} cannot be read: {str(error).splitlines()[0][:150]}",
            hint="give Parquet, or CSV with a line of names",
        ) from error
    missing = [name for name in (*_NUMBERS, "class") if name not in raw.columns]
    if missing:
        raise SchemaError(
            f"{path} has no column {few(missing)}; it has {few(raw.columns, 12)}", hint=_WHERE
        )
    return _typed(raw, path)


def build(raw: pl.DataFrame) -> pl.DataFrame:
    """Make one row a half hour: what identifies it, its label, and the features known when served.

    Parameters
    ----------
    raw
        As `read` gives it.

    Returns
    -------
    pl.DataFrame
        Sorted by served_at, with these columns. A *day* is 48 rows; a feature that looks further back
        than the stream goes is null.

        - id: ``elec2-000001`` and on.
        - served_at, label: when the half hour begins, and whether the price was up.
        - known_at: when the row 48 rows later is served.
        - hour_of_day, day_of_week: when the half hour begins; Monday is 1.
        - nsw_demand, vic_demand, transfer: of the half hour, scaled.
        - nsw_demand_on_day, vic_demand_on_day, transfer_on_day: less their mean over the day that ends
          with the half hour; nsw_demand_change: less the half hour's before; nsw_demand_on_yesterday:
          less the same half hour's a day before.
        - nsw_price_yesterday, vic_price_yesterday: prices 48 rows before, the newest that are known;
          nsw_price_on_day: less the mean price of the day that ends there.
        - up_yesterday, up_last_week: 1 where the label was UP 48 and 336 rows before; up_share: the
          mean over the newest day of known labels.
    """
    number = pl.int_range(1, pl.len() + 1).cast(pl.String).str.zfill(6)
    return raw.select(
        id=pl.format("elec2-{}", number),
        served_at="served_at",
        label="up",
        known_at=pl.col("served_at") + DELAY_ROWS * HALF_HOUR,
        hour_of_day=(pl.col("period") * (_DAY_ROWS - 1)).round() / 2,
        day_of_week="day",
        nsw_demand="nswdemand",
        vic_demand="vicdemand",
        transfer="transfer",
        nsw_demand_on_day=_on_day(pl.col("nswdemand")),
        vic_demand_on_day=_on_day(pl.col("vicdemand")),
        transfer_on_day=_on_day(pl.col("transfer")),
        nsw_demand_change=pl.col("nswdemand").diff(),
        nsw_demand_on_yesterday=pl.col("nswdemand").diff(_DAY_ROWS),
        nsw_price_yesterday=pl.col("nswprice").shift(DELAY_ROWS),
        vic_price_yesterday=pl.col("vicprice").shift(DELAY_ROWS),
        nsw_price_on_day=_on_day(pl.col("nswprice")).shift(DELAY_ROWS),
        up_yesterday=pl.col("up").cast(pl.Float64).shift(DELAY_ROWS),
        up_last_week=pl.col("up").cast(pl.Float64).shift(_WEEK_ROWS),
        up_share=pl.col("up").cast(pl.Float64).rolling_mean(_DAY_ROWS).shift(DELAY_ROWS),
    )


@cache
def _built(path: Path) -> pl.DataFrame:
    return build(read(path))


def _read_csv(path: Path) -> pl.DataFrame:
    """Read all as text; some copies quote names and values in their own way."""
    raw = pl.read_csv(path, infer_schema=False)
    return raw.rename(_unquoted).with_columns(pl.all().str.strip_chars("'\" "))


def _unquoted(name: str) -> str:
    return name.strip("'\" ")


def _on_day(value: pl.Expr) -> pl.Expr:
    return value - value.rolling_mean(_DAY_ROWS)


def _typed(raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    try:
        frame = raw.select(
            _began(raw).alias("served_at"),
            pl.col("class")
            .cast(pl.String)
            .replace_strict({"UP": True, "DOWN": False}, return_dtype=pl.Boolean)
            .alias("up"),
            *(pl.col(name).cast(pl.String).cast(pl.Float64) for name in _NUMBERS),
        )
    except pl.exceptions.PolarsError as error:
        raise SchemaError(
            f"{path} is not the elec2 stream: {str(error).splitlines()[0][:150]}", hint=_WHERE
        ) from error
    if not (frame["served_at"].diff().drop_nulls() == HALF_HOUR).all():
        raise SchemaError(f"the rows of {path} are not half an hour apart, in time order", hint=_WHERE)
    return frame


def _began(raw: pl.DataFrame) -> pl.Expr:
    """Give the time in UTC at which each row's half hour begins."""
    began = pl.lit(_FIRST) + pl.int_range(pl.len()) * HALF_HOUR
    if "ts_derived" in raw.columns:
        began = pl.col("ts_derived")
        began = began.str.to_datetime() if raw["ts_derived"].dtype == pl.String else began
    return began.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
