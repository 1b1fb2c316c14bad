"""What the claims of the service serve: twenty features, a scaler and a logistic regression of River."""

import random
from datetime import UTC, datetime, timedelta

from benchmarks.models import river_regression
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

__all__ = ["FEATURES", "features", "pipeline", "publish"]

FEATURES = 20
_ROWS = 2_000
_START = datetime(2026, 1, 1, tzinfo=UTC)

pipeline = Pipeline(
    name="served",
    task="binary",
    features=tuple(Feature(f"x{n}", float) for n in range(FEATURES)),
    label=LabelRule(wait="1d"),
    model=river_regression,
    update=Stateful(),
)


def features(drawn: random.Random) -> dict[str, float]:
    """Draw one set of features."""
    return {f"x{n}": drawn.gauss(0, 1) for n in range(FEATURES)}


def publish(settings: Settings, trained: Pipeline = pipeline) -> None:
    """Train two versions on a thousand examples each, and publish the second to the workers."""
    drawn, history = random.Random(0), []
    for row in range(_ROWS):
        seen, at = features(drawn), _START + timedelta(minutes=row)
        prediction = Prediction(id=f"past-{row}", features=seen, output=0.5, served_at=at)
        label = Label(prediction_id=f"past-{row}", value=seen["x0"] + seen["x1"] > 0, known_at=at)
        history.append((prediction, label))
    with Bound(trained, settings, SimulatedClock(_START + timedelta(days=7))) as bound:
        for half in (history[: _ROWS // 2], history[_ROWS // 2 :]):
            bound.log.import_history(half)
            collect(bound.log)
            train(bound)
        with Keeper(bound) as keeper:
            keeper.step()
