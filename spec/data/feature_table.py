"""A table of batch features: where its values come from, which keys find them, how old they may be."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET

from headwater.spec.data.carried import carried
from headwater.spec.data.feature import BatchFeature, Dtype, dtype_of, is_name, limits
from headwater.spec.data.source import Source, check_source
from headwater.spec.data.values import misfit_of_name
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["FeatureTable", "Materialised", "due"]

_MOST_KEYS = 5


class FeatureTable(msgspec.Struct, frozen=True, kw_only=True):
    """Values of batch features by entity key, which a flow materialises for the service.

    A key that the table does not have, and a value that is too old, are None if the feature may be
    null, and are refused otherwise.

    Parameters
    ----------
    name
        Names the table in the record, in metrics and on the command line.
    entity
        Names of the entity keys that find a row: as they are sent with a request, and as the source's
        columns have them.
    source
        Where its rows are; they are read whole.
    every
        How often the flow materialises it.
    max_age
        How old a value may be when it is served; as old as it gets if not given.
    at
        The source's column with the time of a row's values, with a zone: ages count from it, and of
        several rows of a key the newest counts. Ages count from when the source was read where not
        given, and a key has one row then.

    Raises
    ------
    DeclarationError
        If the parts do not go together; the text says what to write instead.

    Examples
    --------
    >>> from headwater import ParquetSource
    >>> source = ParquetSource("s3://shop/spending.parquet")
    >>> spending = FeatureTable(name="spending", entity=("customer",), source=source, every="1h")
    >>> spending.feature("spent", float, nullable=True)
    BatchFeature(name='spent', dtype='float', nullable=True, table='spending')
    """

    name: str
    entity: tuple[str, ...]
    source: Source
    every: Duration
    max_age: Duration | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise DeclarationError(
                f"table name {self.name!r} is not a name",
                hint="write letters, digits and underscores, such as 'spending'",
            )
        self._check_entity()
        check_source(self.source, f" of table {self.name!r}")
        often = duration(self.every, f"every of table {self.name!r}")
        if self.max_age is not None and duration(self.max_age, "max_age") < often:
            raise DeclarationError(
                f"table {self.name!r} has max_age={self.max_age!r}, and is materialised every "
                f"{self.every!r}: its values would be too old by themselves",
                hint="let max_age be a few times every",
            )
        if self.at is not None and misfit_of_name(self.at) is not None:
            raise DeclarationError(
                f"at={self.at!r} of table {self.name!r} names no column", hint="write at='computed_at'"
            )

    def feature(  # noqa: PLR0913 - the fields of one
        self,
        name: str,
        dtype: type | Dtype,
        *,
        nullable: bool = False,
        low: float | None = None,
        high: float | None = None,
        categories: Sequence[str | int] | None = None,
        longest: int | None = None,
        column: str | None = None,
        was: str | Sequence[str] | None = None,
        default: float | str | bool | None = None,
        fill: Callable[[Any], object] | None = None,
        convert: Callable[[Any], object] | None = None,
    ) -> BatchFeature:
        """Declare a feature that is looked up in this table.

        Parameters
        ----------
        name, dtype, nullable, low, high, categories, longest, column, was, default, fill, convert
            As in :func:`headwater.spec.data.feature.Feature`.
        """
        low_, high_, categories_, longest_ = limits(low, high, categories, longest)
        was_, default_, fill_, convert_ = carried(was, default, fill, convert)
        return BatchFeature(
            name=name,
            dtype=dtype_of(dtype),
            nullable=nullable,
            low=low_,
            high=high_,
            categories=categories_,
            longest=longest_,
            column=UNSET if column is None else column,
            was=was_,
            default=default_,
            fill=fill_,
            convert=convert_,
            table=self.name,
        )

    @property
    def interval(self) -> timedelta:
        """The time between two materialisations."""
        return duration(self.every)

    def _check_entity(self) -> None:
        names = self.entity
        fit = isinstance(names, tuple) and all(misfit_of_name(name) is None for name in names)
        if not fit or not 0 < len(set(names)) == len(names) <= _MOST_KEYS:
            raise DeclarationError(
                f"entity={names!r} of table {self.name!r} does not name entity keys",
                hint=f"write one to {_MOST_KEYS} different names, without control characters: "
                "entity=('customer',)",
            )


class Materialised(msgspec.Struct, frozen=True, kw_only=True):
    """One materialisation of a table.

    Parameters
    ----------
    table
        Its name.
    number
        From 1 on, for each table.
    read_at
        When its source was read, by the pipeline's clock.
    rows
        How many keys it has.
    sha256
        Of its file, in hexadecimal digits.
    source
        Where its values came from.
    """

    table: str
    number: int
    read_at: datetime
    rows: int
    sha256: str
    source: str


def due(
    tables: Iterable[FeatureTable], read_at: dict[str, datetime], now: datetime
) -> list[FeatureTable]:
    """Return the tables that a flow must materialise now; it runs as often as the most frequent one.

    Half of that interval is allowed for runs that start late or early, so that a table is not put off
    to the next run by a second.

    Parameters
    ----------
    tables
        All of a pipeline.
    read_at
        When the source of each was read last, by its name; what was never read is due.
    now
        The present.

    Examples
    --------
    >>> from datetime import UTC
    >>> from headwater import DeltaSource
    >>> hourly, daily = (
    ...     FeatureTable(name=n, entity=("k",), source=DeltaSource("t"), every=e)
    ...     for n, e in (("a", "1h"), ("b", "1d"))
    ... )
    >>> read = {"a": datetime(2026, 1, 1, 5, tzinfo=UTC), "b": datetime(2026, 1, 1, tzinfo=UTC)}
    >>> [table.name for table in due((hourly, daily), read, datetime(2026, 1, 1, 6, tzinfo=UTC))]
    ['a']
    """
    declared = list(tables)
    slack = min((table.interval for table in declared), default=timedelta(0)) / 2
    return [
        table
        for table in declared
        if table.name not in read_at or now - read_at[table.name] + slack >= table.interval
    ]
