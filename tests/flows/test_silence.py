"""A run that was killed with its worker is not Running for ever."""

from datetime import timedelta
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Completed, Pending, Running

from headwater.flows.stack.silent_runs import close_silent

MINUTE = timedelta(minutes=1)


@pytest.fixture
def client(prefect_api):
    with SyncPrefectClient(prefect_api) as client:
        yield client


@pytest.fixture
def pipeline():
    """Name a pipeline that has no runs yet."""
    return f"toy-{uuid4()}"


def _run(client, state, *tags):
    return client.create_flow_run(Flow(lambda: None, name="asleep"), tags=tags, state=state())


def _close(client, pipeline, run, minutes):
    """Close silent runs, so many minutes after a run has set its state."""
    return close_silent(client, pipeline, run.state.timestamp + minutes * MINUTE)


@pytest.mark.parametrize("state", [Pending, Running])
def test_a_silent_run_is_set_to_crashed(client, pipeline, state):
    run = _run(client, state, "headwater", pipeline)
    assert _close(client, pipeline, run, 4) == []
    assert _close(client, pipeline, run, 6) == [run.name]
    closed = client.read_flow_run(run.id).state
    assert closed.is_crashed()
    assert "fell silent" in closed.message
    assert _close(client, pipeline, run, 6) == []


def test_a_run_that_ended_or_is_not_of_the_pipeline_is_left_alone(client, pipeline):
    run = _run(client, Completed, "headwater", pipeline)
    _run(client, Running, pipeline)
    _run(client, Running, "headwater", "other")
    assert _close(client, pipeline, run, 6) == []
