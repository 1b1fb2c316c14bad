"""What happened, for services to be trained on."""

import random
from collections.abc import Iterator
from datetime import timedelta

from tests.conftest import START

from headwater.spec.records import Label, Prediction


def history(rows: int) -> Iterator[tuple[Prediction, Label]]:
    drawn = random.Random(0)
    for row in range(rows):
        a, b = drawn.gauss(0, 1), drawn.gauss(0, 1)
        at = START + timedelta(minutes=row)
        yield (
            Prediction(id=f"past-{row}", features={"a": a, "b": b}, output=0.5, served_at=at),
            Label(prediction_id=f"past-{row}", value=a + b > 0, known_at=at + timedelta(minutes=1)),
        )
