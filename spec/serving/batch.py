"""Batch prediction as declared: the table, the schedule, and the answer for a missing key."""

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from headwater.spec.data.source import Source, check_source
from headwater.spec.data.values import misfit_of_name
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError
from headwater.spec.updating.triggers.schedule import Cron

__all__ = [
    "LONGEST_KEY",
    "BatchPrediction",
    "is_due",
    "prediction_id",
]

LONGEST_KEY = 150
"""How many characters a key may have: a prediction's id holds it, and the run's."""


class BatchPrediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Score a table with the champion on a schedule, and keep the answers by key.

    Parameters
    ----------
    source
        What is scored: a row an entity, with a column a feature.
    key
        Name of the column that tells the entities apart. Its values are text of 1 to 150 characters, or
        become such; each comes once. The name is also that of the entity key in the records.
    every
        How often ``headwater deploy`` has it run: an interval or a :class:`Cron`. None leaves it to
        ``headwater batch predict``.
    fall_through
        Whether ``POST /batch/PIPELINE/KEY`` asks the online model where the batch has no answer.
    max_age
        An answer that is older counts as none; None lets it live until the next run replaces it.
    rows
        How many rows are read, scored and written at a time.
    keep
        How many runs' files stay in storage. What was predicted stays in the log in any case.
    """

    source: Source
    key: str
    every: Duration | Cron | None = "1d"
    fall_through: bool = False
    max_age: Duration | None = None
    rows: int = 10_000
    keep: int = 7

    def __post_init__(self) -> None:
        check_source(self.source, " of a batch")
        if misfit_of_name(self.key, LONGEST_KEY) is not None:
            raise DeclarationError(f"key={self.key!r} names no column", hint='write key="customer", say')
        if not isinstance(self.fall_through, bool):
            raise DeclarationError(
                f"fall_through={self.fall_through!r} is not known", hint="write True or False"
            )
        self._check_times()
        for name, usual in (("rows", 10_000), ("keep", 7)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DeclarationError(
                    f"{name}={value!r} is not a number from 1 on", hint=f"write {name}={usual:_}"
                )

    def _check_times(self) -> None:
        if self.every is not None and not isinstance(self.every, Cron):
            duration(self.every, "every")
        if self.max_age is None:
            return
        longest = duration(self.max_age, "max_age")
        if isinstance(self.every, str) and longest < duration(self.every):
            raise DeclarationError(
                f"max_age={self.max_age!r} is shorter than every={self.every!r}: "
                "answers would be gone before the next run makes new ones",
                hint=f"write max_age={self.every!r} or longer, or run more often",
            )


def is_due(batch: BatchPrediction, since: datetime, now: datetime) -> bool:
    """Return whether another run was due after the run that began at `since`.

    Parameters
    ----------
    batch
        Says how often.
    since, now
        With a zone.

    Examples
    --------
    >>> from datetime import UTC
    >>> from headwater import ParquetSource
    >>> nightly = BatchPrediction(source=ParquetSource("t.parquet"), key="id", every=Cron("30 2 * * *"))
    >>> [is_due(nightly, datetime(2024, 1, 1, 3, tzinfo=UTC), datetime(2024, 1, 2, h, tzinfo=UTC))
    ...  for h in (2, 3)]
    [False, True]
    """
    if batch.every is None:
        return False
    if not isinstance(batch.every, Cron):
        return now - since >= duration(batch.every)
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - few need it

    try:
        return next(CronSim(batch.every.line, since.astimezone(ZoneInfo(batch.every.timezone)))) <= now
    except (CronSimError, StopIteration):
        return False


def prediction_id(run: str, key: str) -> str:
    """Return the id under which a run's prediction for a key is logged and labelled.

    >>> prediction_id("7-9f31ac02", "customer-17")
    'batch-7-9f31ac02-customer-17'
    """
    return f"batch-{run}-{key}"
