"""Labels whose prediction came after the wait are counted, and shown."""

from datetime import timedelta

from tests.features.records import NOW as THEN
from tests.serving.conftest import Opener
from tests.serving.keeper.test_catch_up import settle
from tests.serving.keeper.test_online_learning import EACH
from tests.serving.keeper.test_pausing import each
from tests.serving.metrics.test_metrics import totals

from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.serving.keeper.keeper import Keeper
from headwater.spec.data.records import Label, Prediction
from headwater.spec.duration import duration

__all__ = ["each"]


def test_a_label_whose_prediction_came_after_the_wait_is_counted(
    each: Bound, clock: SimulatedClock, open_service: Opener
) -> None:
    with Keeper(each) as keeper:
        settle(keeper)
        client = open_service(EACH)
        each.log.label([Label(prediction_id="x", value=True, known_at=THEN)])
        settle(keeper)
        assert totals(client)["headwater_labels_expired_total line"] == 0
        clock.advance_to(clock.now() + duration(EACH.label.wait) + timedelta(microseconds=1))
        features = {feature.name: 1.0 for feature in EACH.features}
        each.log.record([Prediction(id="x", features=features, output=0.5, served_at=THEN)])
        settle(keeper)
        assert totals(client)["headwater_labels_expired_total line"] == 1
