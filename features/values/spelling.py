"""The spelling of values in text: words for true and false, the form of times, and their zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import polars as pl

from headwater.spec.errors import SchemaError, few

__all__ = ["ISO", "Spelling"]

_SAMPLES = (datetime(1913, 11, 25, 17, 45, tzinfo=UTC), datetime(2088, 2, 3, 4, 5, tzinfo=UTC))
"""Two centuries, and an hour after noon: a form that does not tell them apart would have us guess."""


class Spelling(msgspec.Struct, frozen=True, kw_only=True):
    """How a text says what a value is. The defaults are those of the table of lossless representations.

    Parameters
    ----------
    true, false
        Words for the two, capitals or not.
    time_format
        The form of times, in the letters of ``strftime`` (chrono's, which Polars reads by), such as
        ``"%d.%m.%Y %H:%M"``; ISO 8601 if None.
    zone
        The zone of times that say none, such as ``"Europe/Berlin"``; if None, they are refused. A time
        that the zone has twice or never, where clocks change, is refused.

    Raises
    ------
    SchemaError
        If the parts do not go together; the text says which.
    """

    true: tuple[str, ...] = ("true", "1")
    false: tuple[str, ...] = ("false", "0")
    time_format: str | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        if both := sorted(set(map(str.lower, self.true)) & set(map(str.lower, self.false))):
            raise SchemaError(
                f"{few(map(repr, both))} would be both true and false",
                hint="give other words for true, or other words for false",
            )
        for name, words in (("true", self.true), ("false", self.false)):
            if not words or "" in words:
                raise SchemaError(
                    f"the words for {name} are {words!r}",
                    hint="give at least one word; an empty field is null",
                )
        if self.zone is not None:
            _check_zone(self.zone)
        if self.time_format is not None:
            self._check_format(self.time_format)

    @property
    def says_zone(self) -> bool:
        """Whether each time of the declared form says its zone."""
        form = (self.time_format or "").replace("%%", "")
        return any(sign in form for sign in ("%z", "%:z", "%::z", "%#z", "%+"))

    @property
    def read_form(self) -> str:
        """The form of times as Polars reads it: Python's ``.%f`` is ``%.f`` there."""
        return (self.time_format or "").replace(".%f", "%.f")

    @property
    def booleans(self) -> dict[str, bool]:
        """What each word stands for, in lower case."""
        words = {word.lower(): True for word in self.true}
        return words | {word.lower(): False for word in self.false}

    def _check_format(self, form: str) -> None:
        if "%Z" in form.replace("%%", ""):
            raise SchemaError(
                f"time format {form!r} has %Z: the name of a zone does not say which one it is",
                hint="let times have an offset, %z; or give the zone, and write its name as it stands",
            )
        if self.says_zone and self.zone is not None:
            raise SchemaError(
                f"time format {form!r} says the zone of each time, and zone={self.zone!r} is given too",
                hint="leave one of them out",
            )
        if not self.says_zone and self.zone is None:
            raise SchemaError(
                f"time format {form!r} does not say the zone of a time",
                hint="give the zone: zone='Europe/Berlin' (--zone), or the offset with %z",
            )
        if "%f" in self.read_form.replace("%%", "") or not _comes_back(self.read_form):
            raise SchemaError(
                f"time format {form!r} does not tell apart a time's century, day, hour and minute",
                hint="write all of it, such as '%d.%m.%Y %H:%M', or '%m/%d/%Y %I:%M %p'",
            )


ISO = Spelling()


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
        pl.Series(_SAMPLES).dt.convert_time_zone(zone)  # Polars has none of the machine's own
    except (ZoneInfoNotFoundError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise SchemaError(
            f"there is no zone {zone!r}", hint="write a name such as 'UTC' or 'Europe/Berlin'"
        ) from error


def _comes_back(form: str) -> bool:
    """Return whether times written in the form are read as what they were."""
    samples = pl.Series(_SAMPLES)
    try:
        read = samples.dt.strftime(form).str.to_datetime(form, time_unit="us", strict=False)
        written = read.dt.replace_time_zone("UTC") if read.dtype == pl.Datetime("us") else read
        return bool((written == samples).fill_null(value=False).all())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, Warning):
        return False
