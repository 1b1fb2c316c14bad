"""A process for fault tests: records, labels, collects, decides, updates, and says what it has done."""

import sys
from datetime import timedelta
from pathlib import Path

import msgspec
from tests.conftest import START
from tests.loop.conftest import PIPELINE

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.training.update import train
from headwater.spec.data.records import Label, Prediction
from headwater.spec.updating.triggers.volume import Volume

_ROWS = 30
_PIPELINE = msgspec.structs.replace(PIPELINE, triggers=(Volume(_ROWS),), gate=None)


def main(home: str, day: int) -> None:
    """Do one day's work; the same day again is the same work."""
    clock = SimulatedClock(START + timedelta(days=day))
    with Bound(_PIPELINE, Settings(home=Path(home)), clock) as bound:
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
        print("updated", *update(bound), flush=True)


def update(bound: Bound) -> list[str]:
    """Train a first version; later do what the trigger asks for, and what was left undone."""
    if bound.registry.champion() is None:
        return [train(bound).reason]
    decide(bound)
    return [carry_out(bound, waiting.id, by="worker").reason for waiting in bound.decisions.unended()]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
