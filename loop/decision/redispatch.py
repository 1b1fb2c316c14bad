"""The policy by which a lost run of a decision is requested again. Pure."""

from datetime import datetime, timedelta

from headwater.spec.updating.decision import Decision

__all__ = ["is_due", "run_key"]

_PATIENCE = timedelta(minutes=2)
_MOST_PATIENCE = timedelta(hours=1)


def is_due(decision: Decision, now: datetime, *, working: bool) -> bool:
    """Tell whether a run must be requested.

    An event starts the first run. If the event was lost, or the run was killed, nobody holds the
    trainer's lease, and the decision has not ended. Then another run is requested: at first after two
    minutes, later after twice as long each time, up to an hour. A claim without a lease shows that a run
    was killed, so the first request after it need not wait.

    Parameters
    ----------
    decision
        A decision that fired.
    now
        The present, by the pipeline's clock.
    working
        Whether a living process holds the trainer's lease of the pipeline.

    Examples
    --------
    A decision that ended needs no run:

    >>> from headwater.spec.updating.decision import Outcome, decision_of
    >>> from headwater.spec.updating.evidence import Evidence
    >>> from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer
    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 1, tzinfo=UTC)
    >>> fired = decision_of(
    ...     Evidence(pipeline="toy", at=at, standing="enough"), TriggerAnswer(fired=True, reason="")
    ... )
    >>> [is_due(fired, at + timedelta(minutes=minutes), working=False) for minutes in (1, 2)]
    [False, True]
    """
    if not decision.open or working:
        return False
    if decision.claimed_by is not None and decision.attempts == 0:
        return True
    patience = min(_PATIENCE * (1 << min(decision.attempts, 10)), _MOST_PATIENCE)
    return now - (decision.dispatched_at or decision.at) >= patience


def run_key(decision: Decision, attempt: int) -> str:
    """Return the idempotency key of a run: two requests with it are one run.

    Parameters
    ----------
    decision
        The decision that the run carries out.
    attempt
        Its number, from 1.
    """
    return f"headwater-{decision.pipeline}-{decision.id}-{attempt}"
