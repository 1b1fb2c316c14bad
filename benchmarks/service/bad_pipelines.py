"""Three pipelines of models that do harm on request; each starts quick, on the loop of its worker."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from benchmarks.bad_models import bad
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["REFERENCES", "first", "publish", "second", "third"]

_ROWS = 200
_START = datetime(2026, 1, 1, tzinfo=UTC)

first = Pipeline(
    name="first",
    task="binary",
    features=(Feature("act", float), Feature("a", float)),
    label=LabelRule(wait="1d"),
    model=bad,
    update=Stateful(),
)
second = replace(first, name="second")
third = replace(first, name="third")

REFERENCES = [f"{Path(__file__)}:{one.name}" for one in (first, second, third)]
"""Where `headwater serve` finds them."""


def publish(settings: Settings, pipelines: Sequence[Pipeline] = ()) -> None:
    """Train a version of each, of the three if none are given, and publish it to the workers."""
    history = []
    for row in range(_ROWS):
        at = _START + timedelta(minutes=row)
        prediction = Prediction(
            id=f"past-{row}", features={"act": 0.0, "a": row % 7.0}, output=0.5, served_at=at
        )
        history.append((prediction, Label(prediction_id=f"past-{row}", value=row % 7 > 3, known_at=at)))
    for pipeline in pipelines or (first, second, third):
        with Bound(pipeline, settings, SimulatedClock(_START + timedelta(days=7))) as bound:
            bound.log.import_history(history)
            collect(bound.log)
            train(bound)
            with Keeper(bound) as keeper:
                keeper.step()
