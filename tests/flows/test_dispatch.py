"""Lost runs are requested again, with a key for each attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import SyncPrefectClient

from headwater.flows.deployments import deploy
from headwater.flows.dispatch import request_again
from headwater.infra.clock import SimulatedClock
from headwater.infra.store.lease import acquire
from headwater.loop.binding import Bound
from headwater.spec.loading import load_pipeline
from headwater.spec.updating.decision import Decision, decision_of
from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def bound(toy, settings):
    with Bound(load_pipeline(f"{toy}:watched"), settings, SimulatedClock(NOW)) as bound:
        yield bound


@pytest.fixture
def client(toy, settings, prefect_api):
    deploy([f"{toy}:watched"], settings, prefect_api=prefect_api)
    with SyncPrefectClient(prefect_api) as client:
        yield client


def test_no_run_is_requested_before_its_time(bound, client):
    decision = _fired(bound)
    assert request_again(bound, client, NOW + MINUTE) == []
    assert request_again(bound, client, NOW + 2 * MINUTE) == [decision.id]
    assert request_again(bound, client, NOW + 3 * MINUTE) == []
    (run,) = _runs(client, decision)
    assert run.idempotency_key == f"headwater-watched-{decision.id}-1"
    assert run.parameters["pipeline"].endswith(":watched")


def test_each_attempt_is_a_run_of_its_own_and_waits_longer(bound, client):
    decision = _fired(bound, "again")
    requested = []
    for minutes in range(30):
        bound.clock.advance_to(NOW + minutes * MINUTE)
        requested += [minutes] * len(request_again(bound, client, bound.clock.now()))
    assert requested == [2, 6, 14]
    assert len(_runs(client, decision)) == 3


def test_no_run_is_requested_while_a_trainer_works(bound, client):
    decision = _fired(bound, "worked on")
    lease = acquire(bound.database, bound.clock, "train/watched")
    late = NOW + 5 * MINUTE
    assert request_again(bound, client, late) == []
    assert lease.epoch == 1
    bound.clock.advance_to(NOW + 11 * MINUTE)  # its term has passed
    assert request_again(bound, client, bound.clock.now()) == [decision.id]


def test_no_run_is_requested_of_a_pipeline_that_is_no_longer_deployed(bound, prefect_api, toy, settings):
    deploy([f"{toy}:watched_by_clock"], settings, prefect_api=prefect_api)
    _fired(bound, "nowhere")
    with SyncPrefectClient(prefect_api) as client:
        assert request_again(bound, client, NOW + 5 * MINUTE) == []


def _fired(bound: Bound, why: str = "asked for") -> Decision:
    evidence = Evidence(pipeline="watched", at=NOW, standing="enough")
    decision = decision_of(evidence, TriggerAnswer(fired=True, reason=f"{why} by a test"))
    bound.decisions.store(decision)
    return decision


def _runs(client: SyncPrefectClient, decision: Decision):
    return [run for run in client.read_flow_runs() if run.parameters.get("decision") == decision.id]
