from datetime import UTC, datetime

import pytest
from prefect import Task
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Failed

from headwater.features.log import FeatureLog
from headwater.flows import events
from headwater.flows.batch_predict import batch_predict
from headwater.flows.collect import collect
from headwater.flows.fine_tune import fine_tune
from headwater.flows.materialise import materialise
from headwater.flows.retrain import retrain
from headwater.flows.update import update
from headwater.loop.batch.materialise import table_states
from headwater.loop.binding import Bound
from headwater.loop.collect import CollectResult
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import (
    BusyError,
    DigestError,
    HeadwaterWarning,
    NotEnoughError,
    NotFoundError,
    NotReadyError,
    SchemaError,
    StorageError,
)
from headwater.spec.loading import load_pipeline
from headwater.spec.updating.decision import decision_of
from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer
from headwater.tasks import collect as collect_task
from headwater.tasks.prefect_errors import is_transient, retried_after

AT_ONCE = retried_after(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (StorageError("away"), True),
        (BusyError("held"), True),
        (DigestError("changed"), False),
        (NotEnoughError("none"), False),
        (ValueError("bug"), False),
    ],
)
def test_only_faults_that_pass_by_themselves_are_tried_again(error, transient):
    task = Task(collect_task.collect_examples)
    assert is_transient(task, None, Failed(data=error)) is transient


def test_a_task_waits_for_storage_that_comes_back(toy, recorded, monkeypatch):
    calls = []

    def flaky(log):
        calls.append(log)
        if len(calls) < 3:
            raise StorageError("storage is away")
        return real(log)

    real = collect_task.collect
    monkeypatch.setattr(collect_task, "collect", flaky)
    collected = collect_task.collect_examples(f"{toy}:twin", retried=AT_ONCE)
    assert collected == CollectResult(emitted=0, archived=0, stop=0)
    assert len(calls) == 3


def test_a_task_raises_a_lasting_fault_at_once(toy, recorded, monkeypatch):
    calls = []

    def broken(log):
        calls.append(log)
        raise DigestError("the state is not what was written")

    monkeypatch.setattr(collect_task, "collect", broken)
    with pytest.raises(DigestError, match="not what was written"):
        collect_task.collect_examples(f"{toy}:twin", retried=AT_ONCE)
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow")  # hints on log_model's arguments
def test_the_retrain_flow_shows_its_examples_and_version(toy, recorded, settings):
    _feed(f"{toy}:daily", settings, 40)
    ended = retrain(f"{toy}:daily")
    assert ended["promoted"] is True
    assert ended["version"]["number"] == "1"
    assert ended["version"]["examples"] == {"start": 0, "stop": 40}
    with SyncPrefectClient(recorded) as client:
        known = client.read_artifacts()
        run_id = next(each.flow_run_id for each in known if each.key == "toy-update")
        artifacts = {each.key: str(each.data) for each in known if each.flow_run_id == run_id}
        state = client.read_flow_run(run_id).state
    assert "# toy: 40 new examples" in artifacts["toy-collected"]
    assert ended["version"]["digest"] in artifacts["toy-update"]
    assert state is not None
    assert state.is_completed()


@pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow")  # hints on log_model's arguments
def test_the_update_flow_carries_out_a_waiting_decision(toy, recorded, settings):
    reference = f"{toy}:watched"
    _feed(reference, settings, 40)
    with Bound(load_pipeline(reference), settings) as bound:
        evidence = Evidence(pipeline="watched", at=bound.clock.now(), standing="enough")
        decision = decision_of(evidence, TriggerAnswer(fired=True, reason="asked for by a test"))
        bound.decisions.store(decision)
    updated = update(reference, "nobody-made-it")
    assert updated is not None
    assert updated["version"]["decision"] == decision.id
    again = update(reference, decision.id)
    assert again is not None
    assert again["reason"].startswith("done already")
    assert update(reference) is None  # nothing waits
    with pytest.raises(NotFoundError, match="no decision 'nobody-made-it'"):
        update(reference, "nobody-made-it")


@pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow")  # hints on log_model's arguments
def test_flows_show_why_a_version_will_not_rebuild(toy, recorded, settings):
    reference = f"{toy}:unseeded"
    _feed(reference, settings, 40)
    with pytest.warns(HeadwaterWarning, match="will not rebuild"):
        trained = fine_tune(reference)
    with pytest.warns(HeadwaterWarning):
        bound = Bound(load_pipeline(reference), settings)
    with bound:
        evidence = Evidence(pipeline="unseeded", at=bound.clock.now(), standing="enough")
        decision = decision_of(evidence, TriggerAnswer(fired=True, reason="asked for by a test"))
        bound.decisions.store(decision)
    with pytest.warns(HeadwaterWarning, match="will not rebuild"):
        updated = update(reference)
    assert updated["warnings"] == trained["warnings"]
    assert "MLPClassifier" in updated["warnings"][0]
    with SyncPrefectClient(recorded) as client:
        shown = [str(each.data) for each in client.read_artifacts() if each.key == "unseeded-update"]
    assert len(shown) == 2
    assert all("will not rebuild" in each for each in shown)


def test_a_table_that_fails_keeps_no_other_from_being_materialised(toy, recorded, settings):
    with pytest.raises(SchemaError, match="'calls' is null in 1 rows"):
        materialise(f"{toy}:looking")
    with Bound(load_pipeline(f"{toy}:looking"), settings) as bound:
        calls, spending = table_states(bound)
    assert calls.newest is None
    assert spending.newest is not None
    assert "headwater_toy_of_flows:spending of " in spending.newest.source
    with SyncPrefectClient(recorded) as client:
        shown = {each.key: str(each.data) for each in client.read_artifacts()}
    assert "2 rows" in shown["toy-spending-materialised"]
    (again,) = materialise(f"{toy}:looking", ["spending"])
    assert (again["number"], again["rows"]) == (2, 2)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow")  # hints on log_model's arguments
def test_the_batch_flow_scores_and_shows_its_run(toy, recorded, settings):
    with pytest.raises(NotReadyError, match="no version"):
        batch_predict(f"{toy}:scored")
    _feed(f"{toy}:scored", settings, 40)
    fine_tune(f"{toy}:scored")
    run = batch_predict(f"{toy}:scored")
    assert (run["state"], run["version"], run["rows"]) == ("published", "1", 2)
    assert run["by"].startswith("flow run ")
    with SyncPrefectClient(recorded) as client:
        (shown,) = [each for each in client.read_artifacts() if each.key == "toy-batch"]
    assert run["id"] in str(shown.data)


def test_the_collect_flow_returns_its_counts(toy, recorded):
    assert collect(f"{toy}:twin") == {"emitted": 0, "archived": 0, "stop": 0}


def test_the_collect_flow_tells_of_each_new_class_once(toy, recorded, settings, monkeypatch):
    emitted = []
    monkeypatch.setattr(
        events, "emit_event", lambda name, about, **more: emitted.append((name, about, more))
    )
    log, now = FeatureLog(load_pipeline(f"{toy}:shades"), settings), datetime.now(UTC)
    told = {"a": "red", "b": "teal", "c": "navy", "d": "teal"}
    log.record([Prediction(id=i, features={"x": 1.0}, output={"red": 1.0}, served_at=now) for i in told])
    log.label([Label(prediction_id=i, value=value, known_at=now) for i, value in told.items()])
    log.close()
    log.database.close()
    for _ in range(2):
        collect(f"{toy}:shades")
    assert [(name, more["payload"]) for name, _, more in emitted] == [
        ("headwater.class.appeared", {"class": "teal", "held": 0}),
        ("headwater.class.appeared", {"class": "navy", "held": 0}),
    ]
    assert len({more["id"] for _, _, more in emitted}) == 2


def test_a_flow_without_examples_raises_the_reason(toy, recorded):
    with pytest.raises(NotEnoughError, match="no examples to learn"):
        retrain(f"{toy}:daily")


def _feed(reference, settings, count):
    log = FeatureLog(load_pipeline(reference), settings)
    now = datetime.now(UTC)
    ids = [f"p{i}" for i in range(count)]
    log.record([Prediction(id=i, features={"x": float(len(i))}, output=0.5, served_at=now) for i in ids])
    log.label([Label(prediction_id=i, value=i.endswith("1"), known_at=now) for i in ids])
    log.close()
    log.database.close()
