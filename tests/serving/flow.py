"""Past predictions and labels, on which services are trained."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta

from tests.conftest import START

from headwater.spec.data.records import Label, Prediction


def history_of(names: Sequence[str], first: int, last: int) -> Iterator[tuple[Prediction, Label]]:
    """Yield labelled predictions, a minute apart; the label says whether the sum is positive."""
    rng = random.Random(first)
    for row in range(first, last):
        features = {name: rng.gauss(0, 1) for name in names}
        at = START + timedelta(minutes=row)
        yield (
            Prediction(id=f"past-{row}", features=dict(features), output=0.5, served_at=at),
            Label(
                prediction_id=f"past-{row}",
                value=sum(features.values()) > 0,
                known_at=at + timedelta(minutes=1),
            ),
        )
