"""Triggers by the clock: at a fixed interval, or by a cron line."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.pace import ago
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer, TriggerRule
from headwater.spec.updating.update import UpdateKind

__all__ = ["Cron", "Every"]

_WORDS = "sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_FIELD = re.compile(rf"([0-9*/,\-]|{_WORDS})+", re.IGNORECASE)


class Every(TriggerRule, frozen=True, tag="every"):
    """Update at a fixed interval.

    Parameters
    ----------
    interval
        Time between two updates.
    update
        As for every trigger: the kind of update, or None.
    """

    interval: Duration

    def __post_init__(self) -> None:
        self.check_update()
        duration(self.interval, "Every")

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Fire if the newest version is `interval` old; if it asks from scratch, the champion's line."""
        since = _last_update(evidence, self.update)
        if since is None:
            return self.answer(False, "there is no version yet")
        age = evidence.at - since
        return self.answer(age >= duration(self.interval), f"last update {ago(age)} ago")


class Cron(TriggerRule, frozen=True, tag="cron"):
    """Update at the times that a cron line names.

    Parameters
    ----------
    line
        Five fields: minute, hour, day of month, month, day of week.
    timezone
        IANA name of the zone in which the line is read.
    update
        As for every trigger: the kind of update, or None.
    """

    line: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        self.check_update()
        fields = self.line.split() if isinstance(self.line, str) else []
        if len(fields) != 5 or not all(map(_FIELD.fullmatch, fields)):
            raise DeclarationError(
                f"Cron({self.line!r}) does not have five fields",
                hint='write Cron("30 2 * * *") for half past two every night',
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, TypeError) as error:
            raise DeclarationError(
                f"timezone={self.timezone!r} is no zone", hint='write timezone="Europe/Berlin", say'
            ) from error

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Fire if a time of the cron line lies between the last update and now."""
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - most triggers need it not

        since = _last_update(evidence, self.update)
        if since is None:
            return self.answer(False, "there is no version yet")
        try:
            due = next(CronSim(self.line, since.astimezone(ZoneInfo(self.timezone))))
        except (CronSimError, StopIteration) as error:
            return self.answer(False, f"Cron({self.line!r}) names no times: {error}")
        return self.answer(due <= evidence.at, f"next at {due:%Y-%m-%d %H:%M %Z}")


def _last_update(evidence: Evidence, kind: UpdateKind | None) -> datetime | None:
    return evidence.retrained_at if kind == "stateless" else evidence.updated_at
