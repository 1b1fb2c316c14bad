"""What a load was told is held against the log: what is not in it once is wrong."""

from array import array
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.service.serving import Loaded, wrong_in_log
from benchmarks.service.serving_toy import FEATURES, pipeline

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.spec.data.records import Label, Prediction


def test_what_is_not_in_the_log_is_wrong(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    features = {f"x{n}": 0.0 for n in range(FEATURES)}
    with Bound(pipeline, Settings(home=tmp_path)) as bound:
        bound.log.record(
            [Prediction(id=id_, features=features, output=0.5, served_at=now) for id_ in ("a", "b")]
        )
        bound.log.label([Label(prediction_id="a", value=True, known_at=now)])
        told = Loaded(["a", "b"], ["a"], 0, {}, array("d"), array("d"))
        assert wrong_in_log(bound, 0, told) == 0
        assert wrong_in_log(bound, 0, told._replace(acknowledged=["a", "b", "c"])) == 1
        assert wrong_in_log(bound, 0, told._replace(labelled=["a", "b"])) == 1
        assert wrong_in_log(bound, bound.log.stop(), told) == 1  # labelled before the load began
