"""Look up batch features in a worker: by entity key, in the published tables."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime

import msgspec

from headwater.features.tables.table_lookup import TableLookup
from headwater.infra.clock import to_us
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import LOAD_ERRORS, Follower, reason_of
from headwater.serving.metrics.service_metrics import PipelineMetrics, TableMetrics
from headwater.serving.published.published_tables import PublishedTables
from headwater.spec.data.feature_table import FeatureTable, Materialised
from headwater.spec.data.records import FeatureValue
from headwater.spec.duration import duration
from headwater.spec.errors import NotReadyError, SchemaError, StaleError
from headwater.spec.pipeline import Pipeline

__all__ = ["FeatureLookup", "TableStatus"]

_logger = logging.getLogger("headwater.serving")
_NEXT = "headwater features materialise"


class TableStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a table that a worker looks up in.

    Parameters
    ----------
    table
        Its name.
    number, rows
        Number and rows of the materialisation in force; None before the first.
    read_at, age_s
        When its source was read, and how many seconds ago that was.
    failure
        Why a newer materialisation could not be opened.
    """

    table: str
    number: int | None
    rows: int | None
    read_at: datetime | None
    age_s: float | None
    failure: str | None


class FeatureLookup:
    """Look up features in the tables of one pipeline, in one process.

    :meth:`follow` is called several times a second, :meth:`look_up` for each prediction. Both are called
    from the event loop, so that a request sees one materialisation of each table.

    Parameters
    ----------
    pipeline, settings
        The pipeline, and the address of the published tables.
    metrics
        Counts look-ups.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings, metrics: PipelineMetrics) -> None:
        self._live = PublishedTables(pipeline, settings)
        self._tables = [_TableInUse(table, pipeline, metrics) for table in pipeline.tables]
        self._follower = Follower(self._live)

    async def follow(self, now: datetime) -> None:
        """Open newly published tables; if a table cannot be opened, the one before stays."""
        if self._follower.is_due():
            await self._swap()
        for table in self._tables:
            table.sample(now)

    def look_up(
        self, entity: Mapping[str, str], now: datetime, where: str
    ) -> tuple[dict[str, FeatureValue], dict[str, float]]:
        """Return the batch features of one prediction, and their ages.

        Parameters
        ----------
        entity
            The request's entity keys.
        now
            When it is served.
        where
            Its place among many, for errors.

        Returns
        -------
        values : dict
            Values by feature.
        ages_s : dict
            Ages in seconds, by table; tables that do not know the key are left out.

        Raises
        ------
        SchemaError
            If an entity key is missing, or is unknown and a feature may not be null.
        StaleError
            If a value is too old and the feature may not be null.
        NotReadyError
            If a table was never materialised.
        StorageError
            If a table is damaged.
        """
        values: dict[str, FeatureValue] = {}
        ages_s: dict[str, float] = {}
        now_us = to_us(now)
        for table in self._tables:
            table.look_up(entity, now_us, where, values, ages_s)
        return values, ages_s

    def missing_table(self) -> str | None:
        """Return the name of a table that was never materialised; None if there is none."""
        return next((table.name for table in self._tables if table.newest is None), None)

    def status(self, now: datetime) -> list[TableStatus]:
        """Return the state of each table."""
        return [table.status(now) for table in self._tables]

    def close(self) -> None:
        """Close the tables."""
        for table in self._tables:
            table.close()

    async def _swap(self) -> None:
        try:
            published = await asyncio.to_thread(self._live.read)
        except LOAD_ERRORS as error:
            if self._follower.failed(error):
                _logger.warning("the looked-up tables stay: %s", reason_of(error))
            return
        for table in self._tables:
            materialised = None if published is None else published.get(table.name)
            if materialised is None or materialised == table.newest:
                continue
            try:
                lookup = await asyncio.to_thread(self._live.open, table.declared, materialised)
            except LOAD_ERRORS as error:
                table.failure = reason_of(error)
                if self._follower.failed(error):
                    _logger.warning("table %s stays as it was: %s", table.name, table.failure)
                continue
            table.swap(lookup, materialised)


class _TableInUse:
    """One table that a process looks up in."""

    def __init__(self, declared: FeatureTable, pipeline: Pipeline, metrics: PipelineMetrics) -> None:
        self.declared = declared
        self.name = declared.name
        self.newest: Materialised | None = None
        self.failure: str | None = None
        self._lookup: TableLookup | None = None
        self._read_at_us = 0
        self._metrics: TableMetrics = metrics.table(declared.name)
        features = pipeline.features_of(declared.name)
        self._nulls = {feature.name: None for feature in features}
        self._needed = next((feature.name for feature in features if not feature.nullable), None)
        oldest = None if declared.max_age is None else duration(declared.max_age)
        self._oldest_us = float("inf") if oldest is None else oldest.total_seconds() * 1e6

    def look_up(
        self,
        entity: Mapping[str, str],
        now_us: int,
        where: str,
        values: dict[str, FeatureValue],
        ages_s: dict[str, float],
    ) -> None:
        """Add the values and the age of a key's row."""
        if self._lookup is None:
            raise NotReadyError(f"table {self.name!r} was never materialised", hint=_NEXT)
        try:
            key = [entity[name] for name in self.declared.entity]
        except KeyError as error:
            raise SchemaError(
                f"{where}entity.{error.args[0]}: it is missing",
                hint=f"send the entity keys {', '.join(self.declared.entity)}",
            ) from error
        row = self._lookup.find(key)
        if row is None:
            self._metrics.unknown()
            if self._needed is not None:
                raise self._unknown(key, where)
            values.update(self._nulls)
            return
        age_us = max(0, now_us - (self._read_at_us if row.at_us is None else row.at_us))
        if age_us > self._oldest_us:
            self._metrics.stale()
            if self._needed is not None:
                raise self._stale(age_us, where)
            values.update(self._nulls)
        else:
            self._metrics.found()
            values.update(row.values)
        ages_s[self.name] = age_us / 1e6

    def swap(self, lookup: TableLookup, materialised: Materialised) -> None:
        """Use another materialisation from the next request on."""
        before, self._lookup = self._lookup, lookup
        self.newest, self.failure, self._read_at_us = materialised, None, to_us(materialised.read_at)
        if before is not None:
            before.close()

    def sample(self, now: datetime) -> None:
        """Bring the gauge of its age up to the moment."""
        if self.newest is not None:
            self._metrics.sample(max(0, to_us(now) - self._read_at_us) / 1e6)

    def status(self, now: datetime) -> TableStatus:
        newest = self.newest
        return TableStatus(
            table=self.name,
            number=None if newest is None else newest.number,
            rows=None if newest is None else newest.rows,
            read_at=None if newest is None else newest.read_at,
            age_s=None if newest is None else max(0.0, (now - newest.read_at).total_seconds()),
            failure=self.failure,
        )

    def close(self) -> None:
        if self._lookup is not None:
            self._lookup.close()

    def _unknown(self, key: list[str], where: str) -> SchemaError:
        return SchemaError(
            f"{where}entity.{self.declared.entity[0]}: table {self.name!r} does not know "
            f"{', '.join(map(repr, key))}, and features.{self._needed} may not be null",
            hint="send a key that it knows, or declare its features nullable",
        )

    def _stale(self, age_us: float, where: str) -> StaleError:
        return StaleError(
            f"{where}features.{self._needed}: its value in table {self.name!r} is {age_us / 1e6:,.0f} s "
            f"old, and may be {self.declared.max_age}",
            hint=f"materialise the table: {_NEXT}; or declare its features nullable",
        )
