"""Evidence of monitoring at one moment: plain data that triggers decide on and decisions keep."""

from datetime import datetime
from typing import Literal

import msgspec

from headwater.spec.updating.update import UpdateKind

__all__ = [
    "LOWER_IS_BETTER",
    "REHEARSALS",
    "Evidence",
    "Finding",
    "Rehearsal",
    "Score",
    "Standing",
    "Verdict",
    "Window",
]

LOWER_IS_BETTER = ("log_loss", "mae", "rmse")
"""Metrics of which less is better."""

REHEARSALS = 12
"""How many of the newest rehearsals of a champion evidence keeps, the newest one counted."""

Standing = Literal["enough", "insufficient_data", "starved", "no_champion"]
"""``starved``: predictions are mature and none has a label. Only ``enough`` means that it was judged."""

Verdict = Literal["act", "watch", "benign"]
"""``act``: somebody, or an update, is needed. ``watch``: it moved, and little hangs on it."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of predictions, by the time of prediction.

    Parameters
    ----------
    start, stop
        From `start` up to, but not including, `stop`; UTC.
    predictions
        How many were served in it.
    labelled
        How many of them have a label.
    mature
        Whether every prediction's wait has passed: only then are its labels judged.
    """

    start: datetime
    stop: datetime
    predictions: int
    labelled: int
    mature: bool


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The champion's score by one metric.

    Parameters
    ----------
    metric
        Its name.
    reference
        On predictions that were served before the champion had to prove itself; None if too few.
    current
        On the newest mature window; None if it has too few labels.
    estimate
        Estimated without labels on the newest window; None if it cannot be.
    past
        On the mature windows since the champion began and before the newest one, oldest first.
    error
        Standard error of `current`, by blocks of time; None if it is not known.
    """

    metric: str
    reference: float | None = None
    current: float | None = None
    estimate: float | None = None
    past: tuple[float, ...] = ()
    error: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A change between the reference and the current window, with its effects and verdict.

    Parameters
    ----------
    what
        A feature's name, or ``"output"``, ``"label"``, ``"joint"`` (a shift that no single feature
        shows) or ``"concept"`` (labels follow features in another way).
    distance
        How far it moved, by `measure`.
    measure
        Name of the distance or test.
    drifted
        Whether Evidently's default test calls it drifted.
    clear
        Whether it moved further than it does from time to time, or its relations broke.
    output_effect
        How much the champion's outputs move because of it, in units of the output.
    metric_effect
        Estimated loss of the pipeline's first metric because of it; above 0 is worse. None if it
        cannot be estimated.
    verdict
        What to do.
    sentence
        The same in words that a person understands.
    """

    what: str
    distance: float
    measure: str
    drifted: bool
    clear: bool = True
    output_effect: float = 0.0
    metric_effect: float | None = None
    verdict: Verdict
    sentence: str


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of the newest mature window with the same window after a rehearsed update.

    Both versions are scored on the same predictions, so that an easy or a hard week tells for neither.

    Parameters
    ----------
    update
        The kind of update that was rehearsed.
    examples
        How many it learned.
    gain
        By how much the first metric would have been better; below 0 is worse.
    error
        Standard error of `gain`, by blocks of time.
    """

    update: UpdateKind
    examples: int
    gain: float
    error: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of one run of monitoring.

    Parameters
    ----------
    pipeline
        Name of the pipeline.
    at
        When, UTC, by the pipeline's clock.
    standing
        Whether there is enough to judge, and if not, why.
    champion
        Number of the version that serves; None if none does.
    champion_since
        When it became champion.
    updated_at
        When the newest version was made; None if there is none.
    retrained_at
        When the champion's line was started from scratch.
    new_examples
        How many examples came after those that the champion learned.
    reference, current, mature
        The champion's training slice, the newest window, and the newest mature one.
    scores
        A metric each, the pipeline's first one first.
    verdict
        The worst of the findings; None if drift was not judged.
    findings
        What moved, the most harmful first.
    fell
        Whether the first metric's newest mature window is worse than the reference by more than two
        standard errors.
    changed
        Whether a change detector saw the champion's errors change.
    regret
        Sum over the mature windows since the champion began of what the first metric lost against the
        reference, times the window's predictions; never below 0.
    rehearsal
        What an update would have changed; None if none was asked for, or could be.
    rehearsed
        The rehearsals on mature windows since the champion began and before the newest one, oldest
        first; so many that with the newest one there are :data:`REHEARSALS` at most.
    train_s
        CPU seconds of the last update; None if there was none.
    fired
        When earlier decisions fired, newest first, as far as pace needs them.
    open
        The decision that fired and has not ended; None if none is under way.
    report
        Address of Evidently's report; None if nobody need look, and no update is due.
    notes
        What could not be judged, and why, in words.
    """

    pipeline: str
    at: datetime
    standing: Standing
    champion: str | None = None
    champion_since: datetime | None = None
    updated_at: datetime | None = None
    retrained_at: datetime | None = None
    new_examples: int = 0
    reference: Window | None = None
    current: Window | None = None
    mature: Window | None = None
    scores: tuple[Score, ...] = ()
    verdict: Verdict | None = None
    findings: tuple[Finding, ...] = ()
    fell: bool = False
    changed: bool = False
    regret: float = 0.0
    rehearsal: Rehearsal | None = None
    rehearsed: tuple[Rehearsal, ...] = ()
    train_s: float | None = None
    fired: tuple[datetime, ...] = ()
    open: str | None = None
    report: str | None = None
    notes: tuple[str, ...] = ()
