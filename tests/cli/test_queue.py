"""``headwater queue``: what people are asked, and how far they agree."""

from msgspec.structs import replace
from tests.cli.conftest import TOYS, Run

from headwater import FeatureLog, LabelQueue, Prediction, load_pipeline
from headwater.infra.clock import SystemClock
from headwater.infra.settings import Settings

ASKING = f"{TOYS}:asking"


def test_the_queue_is_counted(run: Run, home: Settings) -> None:
    log = FeatureLog(load_pipeline(ASKING), home)
    now = SystemClock().now()
    for n in range(4):
        features: dict[str, float] = {"x": float(n), "y": 2.0}
        one = Prediction(id=f"p{n}", features={**features}, output=0.5, served_at=now)
        log.record([replace(one, version="1")])
    with log.sequencer() as sequencer:
        sequencer.drain()
    first = run("queue", ASKING)
    assert "4 questions wait" in first.out
    assert "agreement is unknown" in first.out
    queue = log.queue()
    assert isinstance(queue, LabelQueue)
    for person in ("ada", "bob"):
        for question in queue.claim(person, 2):
            queue.answer(person, question.prediction_id, person == "ada")
    assert "agreement: 0.0000 of 2 pairs" in run("queue", ASKING).out
    found = run("queue", ASKING, "--json").json
    assert (found["answers"], found["people"], found["agreement"]["kappa"]) == (4, 2, 0.0)
    log.close()
    log.database.close()


def test_a_pipeline_without_people_has_no_queue(run: Run) -> None:
    result = run("queue", f"{TOYS}:toy")
    assert result.status == 1
    assert "people=People()" in result.err
