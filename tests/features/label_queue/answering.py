"""A process in which one person answers one question: home, person, id of the prediction."""

import sys
from pathlib import Path

from tests.conftest import START
from tests.features.label_queue.test_queue_orders import PIPELINE

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings


def open_log(home: Path) -> FeatureLog:
    """Open the log at the moment at which all of it happens."""
    return FeatureLog(PIPELINE, Settings(home=home), SimulatedClock(START))


if __name__ == "__main__":
    open_log(Path(sys.argv[1])).queue().answer(sys.argv[2], sys.argv[3], value=True)
