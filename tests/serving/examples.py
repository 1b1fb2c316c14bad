"""Record predictions and their labels as the service does, without a socket."""

import random

from headwater.loop.binding import Bound
from headwater.spec.data.records import Label, Prediction

__all__ = ["fill"]


def fill(bound: Bound, first: int, last: int, *, flipped: bool = False, **features: float) -> None:
    """Record predictions of the champion that are about right, and their labels.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    first, last
        Numbers that make the ids, and the features where those are not given.
    flipped
        Whether labels say the opposite.
    """
    now, rng = bound.clock.now(), random.Random(first)
    rows = [{"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)} | features for _ in range(first, last)]
    truth = [(row["a"] + row["b"] > 0) != flipped for row in rows]
    named = [f"p{number}" for number in range(first, last)]
    bound.log.record(
        [
            Prediction(
                id=id_,
                features=dict(row),
                output=0.8 if value else 0.2,
                served_at=now,
                version="1",
                role="champion",
            )
            for id_, row, value in zip(named, rows, truth, strict=True)
        ]
    )
    bound.log.label(
        [
            Label(prediction_id=id_, value=value, known_at=now)
            for id_, value in zip(named, truth, strict=True)
        ]
    )
