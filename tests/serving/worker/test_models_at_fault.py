"""Served models that fail, or whose output is not valid for the task: named in the error, never logged.

Such a request is refused with 422: the version passed its probes, and answers other requests.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.loop import models_at_fault
from tests.serving.conftest import Opener
from tests.serving.http.test_batch_routes import SCORED

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.alarms import KeeperStatusFile
from headwater.spec.serving.routing import Shadow

AT_FAULT: dict[str, tuple[Callable[[], object], float, str]] = {
    "raises": (models_at_fault.failing, 1_000.0, "ZeroDivisionError"),
    "answers 1.5": (models_at_fault.overshooting, 1_000.0, "its output is not within 0 and 1"),
    "answers NaN": (models_at_fault.overshooting, 3_000.0, "its output is not within 0 and 1"),
}
Row = dict[str, float]
GOOD: Row = {"a": 1.0, "b": 2.0}


def tensors(row: Row) -> list[dict[str, object]]:
    return [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in row.items()]


ROUTES: dict[str, tuple[str, Callable[[Row], dict[str, Any]]]] = {
    "short way": ("/predict", lambda row: {"features": row}),
    "uvicorn's way": ("/predict?as=asgi", lambda row: {"features": row}),
    "many": ("/predict", lambda row: {"predictions": [{"features": GOOD}, {"features": row}]}),
    "/v2": ("/v2/models/line/infer", lambda row: {"inputs": tensors(row)}),
    "/batch": ("/batch/line/nobody", lambda row: {"features": row}),
}


def of(model: Callable[[], object], home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    """Return a pipeline whose newest version is of that model and not champion."""
    declared = replace(SCORED, model=model, promotion="by hand")
    with Bound(declared, home, clock) as bound:
        train(bound, from_scratch=True)
        yield bound


@pytest.fixture(params=[*AT_FAULT])
def fault(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def faulty(fault: str, home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    yield from of(AT_FAULT[fault][0], home, clock)


def settle(keeper: Keeper) -> None:
    while keeper.step():
        pass


def test_every_route_names_the_failing_version_and_records_nothing(
    fault: str, faulty: Bound, open_service: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.registry.promote("2", by="test", reason="to see it fail")
    with Keeper(faulty) as keeper:
        settle(keeper)
        client = open_service(faulty.pipeline)
    _, far, why = AT_FAULT[fault]
    for route, (path, body) in ROUTES.items():
        count = faulty.log.inbox.count_after(0)
        answer = client.post(path, json=body({"a": far, "b": 2.0}))
        problem = answer.json()
        message = problem.get("detail") or problem["error"]
        assert answer.status_code == 422, route
        assert "version 2 cannot answer" in message, route
        assert why in message, route
        assert f"the largest is 'a': {far}" in (problem.get("hint") or message), route
        assert faulty.log.inbox.count_after(0) == count, route
        assert client.post(path, json=body(GOOD)).status_code == 200, route
        assert faulty.log.inbox.count_after(0) > count, route
    fails = [one for one in caplog.records if "version 2 fails on prediction" in one.message]
    assert [one.levelname for one in fails] == ["ERROR"] * len(ROUTES)


def test_a_shadow_s_invalid_output_sounds_an_alarm_and_is_not_stored(
    fault: str, faulty: Bound, open_service: Opener
) -> None:
    faulty.registry.routings.put(Shadow(versions=("2",)), by="test", reason="to see it fail")
    with Keeper(faulty) as keeper:
        settle(keeper)
        client, start = open_service(faulty.pipeline), faulty.log.positions()
        _, far, why = AT_FAULT[fault]
        rows = [GOOD, {"a": far, "b": 2.0}, {"a": 2.0, "b": 2.0}]
        answer = client.post("/predict", json={"predictions": [{"features": row} for row in rows]})
        assert {one["version"] for one in answer.json()["predictions"]} == {"1"}
        with faulty.log.sequencer() as sequencer:
            sequencer.drain()
        settle(keeper)
        (alarm,) = KeeperStatusFile("line", faulty.settings).read().alarms
    assert (alarm.kind, alarm.version) == ("shadow", "2")
    assert why in alarm.what
    end = faulty.log.positions()
    predicted = [one.position - start for one in faulty.log.shadows.between(start, end)]
    assert predicted == [0, 2]
    assert faulty.log.shadows.places()["2"].next == end
