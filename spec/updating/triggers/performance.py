"""The trigger on the champion's performance."""

import math

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import LOWER_IS_BETTER, REHEARSALS, Evidence, Score
from headwater.spec.updating.pace import check_count
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer, TriggerRule

__all__ = ["Performance"]


class Performance(TriggerRule, frozen=True, tag="performance"):
    """Update if the champion does badly on its own predictions. Any one of the conditions is enough.

    Parameters
    ----------
    metric
        Which one; the pipeline's first if not given.
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
        self.check_update()
        numbers = (self.floor, self.fall, self.below_past, self.gain)
        if not self.change and all(number is None for number in numbers):
            raise DeclarationError(
                "Performance() has no condition to fire on",
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
        """Fire if any of the conditions holds."""
        if self.change and evidence.changed:
            return self.answer(True, "the champion's errors changed (ADWIN)")
        if self.gain is not None:
            answer = self._would_gain(self.gain, evidence)
            if answer.fired or (self.floor, self.fall, self.below_past) == (None, None, None):
                return answer
        score = next((s for s in evidence.scores if self.metric in (None, s.metric)), None)
        if score is None:
            return self.answer(False, f"{self.metric or 'the metric'} was not measured")
        value, kind = score.current, "is"
        if value is None and self.estimate:
            value, kind = score.estimate, "is estimated at"
        if value is None:
            return self.answer(False, f"no mature window has {score.metric} ({evidence.standing})")
        reason = f"{score.metric} {kind} {value:.4f}"
        for limit, words in self._limits(score):
            if _worse(score.metric, value, limit):
                return self.answer(True, f"{reason}, {words} {limit:.4f}")
        return self.answer(False, reason)

    def _would_gain(self, least: float, evidence: Evidence) -> TriggerAnswer:
        if evidence.rehearsal is None:
            return self.answer(False, f"no update was rehearsed ({evidence.standing})")
        rehearsals = (*evidence.rehearsed, evidence.rehearsal)[-self.over :]
        if len(rehearsals) < self.over:
            return self.answer(False, f"{len(rehearsals)} of {self.over} windows were rehearsed")
        gain = sum(rehearsal.gain for rehearsal in rehearsals) / self.over
        error = math.hypot(*(rehearsal.error for rehearsal in rehearsals)) / self.over
        mean = f" in the mean of {self.over} windows" if self.over > 1 else ""
        reason = f"a rehearsed update gains {gain:+.4f} ± {error:.4f}{mean}"
        if gain <= max(least, self.sure * error):
            return self.answer(False, reason)
        return self.answer(True, f"{reason}, over {least:g}")

    def _limits(self, score: Score) -> list[tuple[float, str]]:
        sign = 1.0 if score.metric in LOWER_IS_BETTER else -1.0
        limits: list[tuple[float, str]] = []
        if self.floor is not None:
            limits.append((self.floor, "worse than the floor"))
        if self.fall is not None and score.reference is not None:
            fall = max(self.fall, self.sure * (score.error or 0.0))
            limit = score.reference + sign * fall
            limits.append((limit, f"a fall by over {fall:.3g} from the reference, beyond"))
        if self.below_past is not None and len(score.past) >= self.least:
            mean = sum(score.past) / len(score.past)
            spread = (sum((p - mean) ** 2 for p in score.past) / (len(score.past) - 1)) ** 0.5
            limit = mean + sign * self.below_past * spread
            limits.append((limit, f"{self.below_past:g} deviations from its past, beyond"))
        return limits


def _worse(metric: str, value: float, limit: float) -> bool:
    return value > limit if metric in LOWER_IS_BETTER else value < limit
