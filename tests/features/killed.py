"""A process that records, labels, sequences and archives three batches, and says what is done.

Imports take longer than the work, so one process forks a worker for each line of JSON that it reads:
home, whether to send, commit point. Nothing is opened before the fork.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

from tests.conftest import START, sgd
from tests.features.records import label, prediction

from headwater.features.log import FeatureLog
from headwater.infra import commit_points
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

PIPELINE = Pipeline(
    name="toy",
    task="binary",
    features=(Feature("x", float), Feature("city", str, nullable=True)),
    label=LabelRule(wait="2h"),
    model=sgd,
    update=Stateful(),
)
BATCHES = [[f"{batch}{i}" for i in range(10)] for batch in "abc"]


def open_log(home: Path) -> FeatureLog:
    """Open the log on the one moment at which all this happens."""
    return FeatureLog(PIPELINE, Settings(home=home), SimulatedClock(START))


def work(log: FeatureLog, *, send: bool) -> None:
    """Do the work, and say after each step what is promised from now on."""
    with log.sequencer() as sequencer:
        for ids in BATCHES:
            if send:
                log.record([prediction(id_) for id_ in ids])
                print("recorded", *ids, flush=True)
                log.label([label(id_, id_.endswith("0")) for id_ in ids])
                print("labelled", *ids, flush=True)
            sequencer.drain()
            print("sequenced", *log.examples()["prediction_id"], flush=True)
            log.collect()
            print("archived", *log.examples()["prediction_id"], flush=True)


def child(home: str, kill_at: str, said: int, *, send: bool) -> None:
    """Work as a process of its own would."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["HEADWATER_KILL_AT"] = kill_at
    importlib.reload(commit_points)
    try:
        work(open_log(Path(home)), send=send)
    except BaseException:  # noqa: BLE001 - whatever ends a child, it must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            pid = os.fork()
            if pid == 0:
                child(order["home"], order["kill_at"], said.fileno(), send=order["send"])
            _, status = os.waitpid(pid, 0)
            said.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "said": said.read()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
