"""Triggers: rules that say whether an update is due. Each is plain data, and ``decide`` is pure.

A pipeline whose triggers all go by the clock (:class:`Every`, :class:`Cron`) is updated by Prefect's
scheduler. With any other trigger the ``monitor`` flow makes evidence, and :func:`decide` answers.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import LOWER_IS_BETTER, REHEARSALS, Evidence, Score, Verdict
from headwater.spec.updating.pace import Pace, ago, check_count
from headwater.spec.updating.update import UpdateKind

__all__ = [
    "AllOf",
    "AnyOf",
    "AtLeast",
    "CostAware",
    "Cron",
    "Drift",
    "Every",
    "Performance",
    "Trigger",
    "TriggerAnswer",
    "Volume",
    "by_clock",
    "decide",
    "leaves",
]

_WORDS = "sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_FIELD = re.compile(rf"([0-9*/,\-]|{_WORDS})+", re.IGNORECASE)


class TriggerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger says to some evidence.

    Parameters
    ----------
    fired
        Whether an update is due.
    reason
        Why, or why not, in words.
    update
        The kind of update asked for; None leaves it to the pipeline.
    """

    fired: bool
    reason: str
    update: UpdateKind | None = None


class _Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every trigger has.

    Parameters
    ----------
    update
        The kind of update it asks for: ``"stateless"``, ``"stateful"``, or None, which leaves it to
        the pipeline.
    """

    update: UpdateKind | None = None

    def _answer(self, fired: bool, reason: str) -> TriggerAnswer:
        return TriggerAnswer(fired=fired, reason=reason, update=self.update if fired else None)

    def _check_update(self) -> None:
        if self.update not in (None, "stateless", "stateful"):
            raise DeclarationError(
                f"{type(self).__name__}(update={self.update!r}) is not an update",
                hint='write update="stateless" or update="stateful", or leave it out',
            )


class Every(_Rule, frozen=True, tag="every"):
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
        self._check_update()
        duration(self.interval, "Every")

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Fire when the newest version is `interval` old, or the line, where it asks from scratch."""
        since = _last_update(evidence, self.update)
        if since is None:
            return self._answer(False, "there is no version yet")
        age = evidence.at - since
        return self._answer(age >= duration(self.interval), f"last update {ago(age)} ago")


class Cron(_Rule, frozen=True, tag="cron"):
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
        self._check_update()
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
        """Fire when a time of the line lies between the last update and now."""
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - most triggers need it not

        since = _last_update(evidence, self.update)
        if since is None:
            return self._answer(False, "there is no version yet")
        try:
            due = next(CronSim(self.line, since.astimezone(ZoneInfo(self.timezone))))
        except (CronSimError, StopIteration) as error:
            return self._answer(False, f"Cron({self.line!r}) names no times: {error}")
        return self._answer(due <= evidence.at, f"next at {due:%Y-%m-%d %H:%M %Z}")


class Volume(_Rule, frozen=True, tag="volume"):
    """Update when enough examples are new.

    Parameters
    ----------
    examples
        How many, since those that the champion learned.
    update
        As for every trigger: the kind of update, or None.
    """

    examples: int

    def __post_init__(self) -> None:
        self._check_update()
        check_count("Volume", self.examples)

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Compare the count."""
        new = evidence.new_examples
        return self._answer(new >= self.examples, f"{new:,} of {self.examples:,} new examples")


class Performance(_Rule, frozen=True, tag="performance"):
    """Update when the champion does badly on what it served. Any one of the conditions is enough.

    Parameters
    ----------
    metric
        Which one; the pipeline's first where not given.
    floor
        Fire when the newest mature window is worse than this.
    fall
        Fire when it is worse than the reference by this much, and by more than `sure` of its standard
        errors, where those are known.
    below_past
        Fire when it is worse than the mean of the champion's own mature windows by this many of
        their standard deviations; it needs at least `least` of them.
    gain
        Fire when an update, rehearsed on what was known as the newest mature window began, would have
        served that window better by this much, and by more than `sure` of its standard errors. This is
        the one that knows whether an update helps; a rehearsal costs what an update does, once a window.
    over
        How many of the newest rehearsals a gain is the mean of, at most twelve: a version that ages
        slowly loses little in any window, and surely over many.
    change
        Fire when a change detector on the stream of errors saw a change (ADWIN: Bifet and Gavaldà,
        "Learning from time-changing data with adaptive windowing", 2007).
    estimate
        Where no window is mature, go by the estimate that needs no labels.
    least
        How many past windows `below_past` learns from.
    sure
        How many standard errors a fall or a gain must exceed.
    update
        As for every trigger: the kind of update, or None.
    """

    metric: str | None = None
    floor: float | None = None
    fall: float | None = None
    below_past: float | None = None
    gain: float | None = None
    over: int = 1
    change: bool = False
    estimate: bool = False
    least: int = 8
    sure: float = 3.0

    def __post_init__(self) -> None:
        self._check_update()
        numbers = (self.floor, self.fall, self.below_past, self.gain)
        if not self.change and all(number is None for number in numbers):
            raise DeclarationError(
                "Performance() says nothing of when it fires",
                hint="write gain=0.01, floor=0.7, fall=0.02, below_past=3.0 or change=True",
            )
        for field in ("fall", "below_past", "gain"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise DeclarationError(
                    f"Performance({field}={value!r}) is not above 0", hint=f"write {field}=0.02, say"
                )
        check_count("Performance", self.least)
        check_count("Performance", self.over)
        if self.over > REHEARSALS or (self.over > 1 and self.gain is None):
            raise DeclarationError(
                f"Performance(over={self.over}) is the mean of rehearsals, {REHEARSALS} at most",
                hint="write Performance(gain=0.01, over=4), say",
            )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Go through the conditions."""
        if self.change and evidence.changed:
            return self._answer(True, "the champion's errors changed (ADWIN)")
        if self.gain is not None:
            answer = self._would_gain(self.gain, evidence)
            if answer.fired or (self.floor, self.fall, self.below_past) == (None, None, None):
                return answer
        score = next((s for s in evidence.scores if self.metric in (None, s.metric)), None)
        if score is None:
            return self._answer(False, f"{self.metric or 'the metric'} was not measured")
        value, kind = score.current, "is"
        if value is None and self.estimate:
            value, kind = score.estimate, "is estimated at"
        if value is None:
            return self._answer(False, f"no mature window has {score.metric} ({evidence.standing})")
        said = f"{score.metric} {kind} {value:.4f}"
        for limit, words in self._limits(score):
            if _worse(score.metric, value, limit):
                return self._answer(True, f"{said}, {words} {limit:.4f}")
        return self._answer(False, said)

    def _would_gain(self, least: float, evidence: Evidence) -> TriggerAnswer:
        if evidence.rehearsal is None:
            return self._answer(False, f"no update was rehearsed ({evidence.standing})")
        found = (*evidence.rehearsed, evidence.rehearsal)[-self.over :]
        if len(found) < self.over:
            return self._answer(False, f"{len(found)} of {self.over} windows were rehearsed")
        gain = sum(one.gain for one in found) / self.over
        error = math.hypot(*(one.error for one in found)) / self.over
        mean = f" in the mean of {self.over} windows" if self.over > 1 else ""
        said = f"a rehearsed update gains {gain:+.4f} ± {error:.4f}{mean}"
        if gain <= max(least, self.sure * error):
            return self._answer(False, said)
        return self._answer(True, f"{said}, over {least:g}")

    def _limits(self, score: Score) -> list[tuple[float, str]]:
        sign = 1.0 if score.metric in LOWER_IS_BETTER else -1.0
        found: list[tuple[float, str]] = []
        if self.floor is not None:
            found.append((self.floor, "worse than the floor"))
        if self.fall is not None and score.reference is not None:
            fall = max(self.fall, self.sure * (score.error or 0.0))
            limit = score.reference + sign * fall
            found.append((limit, f"a fall by over {fall:.3g} from the reference, beyond"))
        if self.below_past is not None and len(score.past) >= self.least:
            mean = sum(score.past) / len(score.past)
            spread = (sum((p - mean) ** 2 for p in score.past) / (len(score.past) - 1)) ** 0.5
            limit = mean + sign * self.below_past * spread
            found.append((limit, f"{self.below_past:g} deviations from its past, beyond"))
        return found


class Drift(_Rule, frozen=True, tag="drift"):
    """Update when what moved needs it: it goes by the verdict, not by how many columns drifted.

    Parameters
    ----------
    at
        The verdict that fires: ``"act"``, or ``"watch"`` to fire at that too.
    update
        As for every trigger: the kind of update, or None.
    """

    at: Literal["act", "watch"] = "act"

    def __post_init__(self) -> None:
        self._check_update()
        if self.at not in ("act", "watch"):
            raise DeclarationError(
                f"Drift(at={self.at!r}) is not a verdict", hint='write Drift() or Drift(at="watch")'
            )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Compare the verdict."""
        verdicts: tuple[Verdict, ...] = ("act",) if self.at == "act" else ("act", "watch")
        if evidence.verdict is None:
            return self._answer(False, f"drift was not judged ({evidence.standing})")
        worst = next((f for f in evidence.findings if f.verdict == evidence.verdict), None)
        said = worst.sentence if worst is not None else "nothing moved"
        return self._answer(evidence.verdict in verdicts, f"{evidence.verdict}: {said}")


class CostAware(_Rule, frozen=True, tag="cost_aware"):
    """Update when waiting has cost as much as an update would.

    This is the rule for renting or buying skis: it never costs more than twice what one who knew the
    future would have paid (Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching", 1988).

    Parameters
    ----------
    unit
        What both costs are in: ``"minutes"`` or ``"money"``.
    per_loss
        What it costs to serve a thousand predictions with a metric that is worse than the reference
        by 0.01.
    per_update
        What an update costs. None takes the CPU minutes of the last one; only with ``"minutes"``.
    update
        As for every trigger: the kind of update, or None.
    """

    unit: Literal["minutes", "money"]
    per_loss: float
    per_update: float | None = None

    def __post_init__(self) -> None:
        self._check_update()
        if self.unit not in ("minutes", "money"):
            raise DeclarationError(
                f"CostAware(unit={self.unit!r}) is not a unit", hint='write unit="minutes" or "money"'
            )
        if self.per_update is None and self.unit == "money":
            raise DeclarationError(
                "CostAware in money does not say what an update costs", hint="write per_update=2.5, say"
            )
        for field in ("per_loss", "per_update"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise DeclarationError(
                    f"CostAware({field}={value!r}) is not above 0", hint=f"write {field}=1.0, say"
                )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Compare the costs."""
        waited = evidence.regret * 100 / 1000 * self.per_loss
        price = self.per_update
        if price is None:
            price = None if evidence.train_s is None else evidence.train_s / 60
        if price is None:
            return self._answer(False, "what an update costs is not known yet")
        said = f"waiting has cost {waited:.2f} {self.unit}, an update costs {price:.2f}"
        return self._answer(waited >= price, said)


class AnyOf(_Rule, frozen=True, tag="any_of"):
    """Fire when any of some triggers does.

    Parameters
    ----------
    of
        The triggers.
    update
        As for every trigger: the kind of update, or None, which leaves it to those that fired.
    """

    of: "tuple[Trigger, ...]"

    def __post_init__(self) -> None:
        self._check_update()
        _check_of(self, self.of)

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Ask each."""
        return _counted(self.of, 1, self.update, evidence)


class AllOf(_Rule, frozen=True, tag="all_of"):
    """Fire when all of some triggers do.

    Parameters
    ----------
    of
        The triggers.
    update
        As for :class:`AnyOf`.
    """

    of: "tuple[Trigger, ...]"

    def __post_init__(self) -> None:
        self._check_update()
        _check_of(self, self.of)

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Ask each."""
        return _counted(self.of, len(self.of), self.update, evidence)


class AtLeast(_Rule, frozen=True, tag="at_least"):
    """Fire when at least so many of some triggers do.

    Parameters
    ----------
    count
        How many.
    of
        The triggers.
    update
        As for :class:`AnyOf`.
    """

    count: int
    of: "tuple[Trigger, ...]"

    def __post_init__(self) -> None:
        self._check_update()
        _check_of(self, self.of)
        check_count("AtLeast", self.count)
        if self.count > len(self.of):
            raise DeclarationError(
                f"AtLeast({self.count}) of {len(self.of)} triggers never fires",
                hint=f"write at most {len(self.of)}",
            )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Ask each."""
        return _counted(self.of, self.count, self.update, evidence)


Trigger = Every | Cron | Volume | Performance | Drift | CostAware | AnyOf | AllOf | AtLeast


def decide(triggers: Sequence[Trigger], pace: Pace, evidence: Evidence) -> TriggerAnswer:
    """Say whether an update is due. Pure.

    Parameters
    ----------
    triggers
        Any one that fires is enough; an update from scratch goes before a fine-tuning.
    pace
        May hold back what fired.
    evidence
        What was found.
    """
    if evidence.standing == "no_champion":
        return TriggerAnswer(fired=False, reason="no version serves yet: run headwater train first")
    answers = [trigger.decide(evidence) for trigger in triggers]
    fired = [answer for answer in answers if answer.fired]
    if not fired:
        return TriggerAnswer(fired=False, reason="; ".join(a.reason for a in answers) or "no triggers")
    held = pace.refuses(evidence)
    reason = "; ".join(answer.reason for answer in fired)
    if held is not None:
        return TriggerAnswer(fired=False, reason=f"held back, {held}: {reason}")
    return TriggerAnswer(fired=True, reason=reason, update=_widest(fired))


def by_clock(triggers: Sequence[Trigger]) -> bool:
    """Say whether Prefect's scheduler alone decides: there is nothing to monitor."""
    return all(isinstance(trigger, Every | Cron) for trigger in triggers)


def leaves(triggers: Sequence[Trigger]) -> list[Trigger]:
    """Give the triggers with those inside :class:`AnyOf` and its like in their place."""
    found: list[Trigger] = []
    for trigger in triggers:
        inner = trigger.of if isinstance(trigger, AnyOf | AllOf | AtLeast) else ()
        found += leaves(inner) if inner else [trigger]
    return found


def _counted(
    of: Sequence[Trigger], count: int, update: UpdateKind | None, evidence: Evidence
) -> TriggerAnswer:
    answers = [trigger.decide(evidence) for trigger in of]
    fired = [answer for answer in answers if answer.fired]
    if len(fired) < count:
        reason = "; ".join(answer.reason for answer in answers)
        return TriggerAnswer(fired=False, reason=f"{len(fired)} of {count} fired ({reason})")
    reason = " and ".join(answer.reason for answer in fired)
    return TriggerAnswer(fired=True, reason=reason, update=update or _widest(fired))


def _widest(fired: Sequence[TriggerAnswer]) -> UpdateKind | None:
    kinds = {answer.update for answer in fired}
    return "stateless" if "stateless" in kinds else "stateful" if kinds == {"stateful"} else None


def _last_update(evidence: Evidence, kind: UpdateKind | None) -> datetime | None:
    return evidence.retrained_at if kind == "stateless" else evidence.updated_at


def _worse(metric: str, value: float, limit: float) -> bool:
    return value > limit if metric in LOWER_IS_BETTER else value < limit


def _check_of(trigger: _Rule, of: object) -> None:
    name = type(trigger).__name__
    if not isinstance(of, tuple) or not of or not all(isinstance(one, Trigger) for one in of):
        raise DeclarationError(
            f"{name}({of!r}) is not of triggers",
            hint=f"write {name}((Drift(), Performance(fall=0.02)))",
        )
