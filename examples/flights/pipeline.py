"""Four pipelines on the same flights, with the same model: what differs is two fields."""

from msgspec.structs import replace

from examples.flights.data import FEATURES
from examples.flights.model import boosted_trees
from headwater import (
    AllOf,
    Drift,
    Every,
    LabelRule,
    Monitoring,
    Pace,
    Performance,
    Pipeline,
    Reset,
    Stateful,
    Stateless,
    Subsample,
    Volume,
)
from headwater.spec.updating.trigger import Trigger
from headwater.spec.updating.update import Update

__all__ = ["by_evidence", "never", "stage2", "stage3", "stage4"]


# Refitting leaves does not change trees: they are grown anew every two months.
_RESET = Reset(every="61d", subsample=Subsample(rows=44_000, half_life="90d"))


def _flights(name: str, update: Update, *triggers: Trigger) -> Pipeline:
    """Predict, at scheduled departure, whether a flight arrives over 15 minutes late or is cancelled.

    The label comes at the arrival; for a cancelled flight 15 minutes after the scheduled one.
    """
    return Pipeline(
        name=name,
        task="binary",
        features=FEATURES,
        label=LabelRule(wait="2d"),
        model=boosted_trees,
        metrics=("roc_auc", "log_loss"),
        update=update,
        triggers=triggers,
        # A day of the week is not like another, and a week's labels are too few for a small loss.
        monitoring=Monitoring(window="7d", label_windows=4),
        pace=Pace(cool_down="7d"),  # what the gate refused is asked for again by another window
    )


never = _flights("flights-never", Stateless(window="90d"))
stage2 = _flights("flights-stage2", Stateless(window="90d"), Every("1d"))
stage3 = _flights("flights-stage3", Stateful(reset=_RESET), Every("1d"))
stage4 = _flights(
    "flights-stage4",
    Stateful(reset=_RESET),
    # A hard week is no reason to update: the rehearsal says whether an update would have helped.
    # The more it would, the less sure of it one need be; worse than a coin is sure enough. What a
    # version loses slowly shows in no single week.
    Performance(floor=0.5, gain=0.03, sure=2.5, update="stateless"),
    Performance(gain=0.015, sure=3.5, update="stateless"),
    Performance(gain=0.008, over=4, sure=3.5, update="stateless"),
    AllOf((Drift(), Performance(gain=0.01, sure=2.5)), update="stateless"),
    Volume(20_000, update="stateless"),
)
by_evidence = replace(stage4, name="flights-by-evidence", triggers=stage4.triggers[:-1])
"""Stage 4 without the trigger that counts: what its claims are measured on."""
