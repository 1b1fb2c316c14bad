"""A process for fault tests: records, labels, collects and trains, and says what was acknowledged."""

import sys
from datetime import timedelta
from pathlib import Path

from tests.conftest import START
from tests.loop.conftest import PIPELINE

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.update import train
from headwater.spec.records import Label, Prediction

_ROWS = 30


def main(home: str, day: int) -> None:
    """Do one day's work; the same day again is the same work."""
    clock = SimulatedClock(START + timedelta(days=day))
    with Bound(PIPELINE, Settings(home=Path(home)), clock) as bound:
        ids = [f"{day}-{i}" for i in range(_ROWS)]
        bound.log.record(
            [
                Prediction(
                    id=id_, features={"a": float(i % 7), "b": 1.0}, output=0.5, served_at=clock.now()
                )
                for i, id_ in enumerate(ids)
            ]
        )
        print("recorded", flush=True)
        bound.log.label(
            [
                Label(prediction_id=id_, value=i % 2 == 0, known_at=clock.now())
                for i, id_ in enumerate(ids)
            ]
        )
        print("labelled", flush=True)
        print("collected", collect(bound.log).stop, flush=True)
        print("trained", train(bound).reason, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
