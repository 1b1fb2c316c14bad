"""The trigger on the number of new examples."""

from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.pace import check_count
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer, TriggerRule

__all__ = ["Volume"]


class Volume(TriggerRule, frozen=True, tag="volume"):
    """Update if enough examples are new.

    Parameters
    ----------
    examples
        How many, since those that the champion learned.
    update
        As for every trigger: the kind of update, or None.
    """

    examples: int

    def __post_init__(self) -> None:
        self.check_update()
        check_count("Volume", self.examples)

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Fire if enough examples are new."""
        new = evidence.new_examples
        return self.answer(new >= self.examples, f"{new:,} of {self.examples:,} new examples")
