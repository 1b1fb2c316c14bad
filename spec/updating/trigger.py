"""The union of all triggers, those that combine others, and the decision that all of them come to.

A trigger is a rule that says whether an update is due: plain data, and ``decide`` is pure. Each family
has a file of ``spec/updating/triggers/``; combinations hold triggers of any kind, so they stand here.

Prefect's scheduler updates a pipeline whose triggers all go by the clock (``triggers/schedule.py``).
With any other trigger the ``monitor`` flow makes evidence, and :func:`decide` answers.
"""

from collections.abc import Sequence

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.pace import Pace, check_count
from headwater.spec.updating.triggers.cost import CostAware
from headwater.spec.updating.triggers.drift import Drift
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer, TriggerRule
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import UpdateKind

__all__ = ["AllOf", "AnyOf", "AtLeast", "Trigger", "by_clock", "decide", "leaves"]


class AnyOf(TriggerRule, frozen=True, tag="any_of"):
    """Fire if any of the triggers fires.

    Parameters
    ----------
    of
        The triggers.
    update
        As for every trigger: the kind of update, or None, which leaves it to those that fired.
    """

    of: "tuple[Trigger, ...]"

    def __post_init__(self) -> None:
        self.check_update()
        _check_of(self, self.of)

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Ask each trigger, and count those that fired."""
        return _counted(self.of, 1, self.update, evidence)


class AllOf(TriggerRule, frozen=True, tag="all_of"):
    """Fire if all of the triggers fire.

    Parameters
    ----------
    of
        The triggers.
    update
        As for :class:`AnyOf`.
    """

    of: "tuple[Trigger, ...]"

    def __post_init__(self) -> None:
        self.check_update()
        _check_of(self, self.of)

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Ask each trigger, and count those that fired."""
        return _counted(self.of, len(self.of), self.update, evidence)


class AtLeast(TriggerRule, frozen=True, tag="at_least"):
    """Fire if at least `count` of the triggers fire.

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
        self.check_update()
        _check_of(self, self.of)
        check_count("AtLeast", self.count)
        if self.count > len(self.of):
            raise DeclarationError(
                f"AtLeast({self.count}) of {len(self.of)} triggers never fires",
                hint=f"write at most {len(self.of)}",
            )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Ask each trigger, and count those that fired."""
        return _counted(self.of, self.count, self.update, evidence)


Trigger = Every | Cron | Volume | Performance | Drift | CostAware | AnyOf | AllOf | AtLeast


def decide(triggers: Sequence[Trigger], pace: Pace, evidence: Evidence) -> TriggerAnswer:
    """Decide whether an update is due. Pure.

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
    hold = pace.refuses(evidence)
    reason = "; ".join(answer.reason for answer in fired)
    if hold is not None:
        return TriggerAnswer(fired=False, reason=f"held back, {hold}: {reason}")
    return TriggerAnswer(fired=True, reason=reason, update=_widest(fired))


def by_clock(triggers: Sequence[Trigger]) -> bool:
    """Return whether all triggers go by the clock: Prefect's scheduler needs no evidence."""
    return all(isinstance(trigger, Every | Cron) for trigger in triggers)


def leaves(triggers: Sequence[Trigger]) -> list[Trigger]:
    """Return the triggers, each combination replaced by the triggers inside it."""
    flat: list[Trigger] = []
    for trigger in triggers:
        inner = trigger.of if isinstance(trigger, AnyOf | AllOf | AtLeast) else ()
        flat += leaves(inner) if inner else [trigger]
    return flat


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


def _check_of(trigger: TriggerRule, of: object) -> None:
    name = type(trigger).__name__
    if not isinstance(of, tuple) or not of or not all(isinstance(one, Trigger) for one in of):
        raise DeclarationError(
            f"{name}({of!r}) is not of triggers",
            hint=f"write {name}((Drift(), Performance(fall=0.02)))",
        )
