"""The trigger that compares the cost of waiting with the cost of an update."""

from typing import Literal

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer, TriggerRule

__all__ = ["CostAware"]


class CostAware(TriggerRule, frozen=True, tag="cost_aware"):
    """Update if waiting has cost as much as an update would.

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
        self.check_update()
        if self.unit not in ("minutes", "money"):
            raise DeclarationError(
                f"CostAware(unit={self.unit!r}) is not a unit", hint='write unit="minutes" or "money"'
            )
        if self.per_update is None and self.unit == "money":
            raise DeclarationError(
                "CostAware in money lacks the cost of an update", hint="write per_update=2.5, say"
            )
        for field in ("per_loss", "per_update"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise DeclarationError(
                    f"CostAware({field}={value!r}) is not above 0", hint=f"write {field}=1.0, say"
                )

    def decide(self, evidence: Evidence) -> TriggerAnswer:
        """Fire if waiting has cost as much as an update."""
        waited = evidence.regret * 100 / 1000 * self.per_loss
        price = self.per_update
        if price is None:
            price = None if evidence.train_s is None else evidence.train_s / 60
        if price is None:
            return self.answer(False, "what an update costs is not known yet")
        reason = f"waiting has cost {waited:.2f} {self.unit}, an update costs {price:.2f}"
        return self.answer(waited >= price, reason)
