"""The trigger on the verdict on drift."""

from typing import Literal

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import Evidence, Verdict
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer, TriggerRule

__all__ = ["Drift"]


class Drift(TriggerRule, frozen=True, tag="drift"):
    """Update if the verdict on drift asks for it, however many columns drifted.

    Parameters
    ----------
    at
        The verdict that fires: ``"act"``, or ``"watch"`` to fire at that too.
    update
        As for every trigger: the kind of update, or None.
    """

    at: Literal["act", "watch"] = "act"

    def __post_init__(self) -> None:
        self.check_update()
        if self.at not in ("act", "watch"):
            raise DeclarationError(
                f"Drift(at={self.at!r}) is not a verdict", hint='write Drift() or Drift(at="watch")'
            )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Fire if the verdict is the one declared, or worse."""
        verdicts: tuple[Verdict, ...] = ("act",) if self.at == "act" else ("act", "watch")
        if evidence.verdict is None:
            return self.answer(False, f"drift was not judged ({evidence.standing})")
        worst = next((f for f in evidence.findings if f.verdict == evidence.verdict), None)
        sentence = worst.sentence if worst is not None else "nothing moved"
        return self.answer(evidence.verdict in verdicts, f"{evidence.verdict}: {sentence}")
