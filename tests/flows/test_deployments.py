from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.schemas.automations import EventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from pydantic import SecretStr

from headwater.flows.deployments import DeployResult, absolute, deploy, schedule_of, undeploy
from headwater.flows.stack.record import Addresses, write_record
from headwater.flows.stack.runs import FLOWS
from headwater.flows.stack.silent_runs import HEARTBEATS
from headwater.infra.settings import Settings
from headwater.spec.errors import DeclarationError, HeadwaterWarning, ServerError
from headwater.spec.updating.triggers.schedule import Cron, Every


@pytest.mark.parametrize(
    ("interval", "wanted"), [("1d", timedelta(days=1)), ("15m", timedelta(minutes=15))]
)
def test_every_is_an_interval_that_does_not_move_when_deployed_again(interval, wanted):
    schedule = schedule_of(Every(interval))
    assert isinstance(schedule, IntervalSchedule)
    assert schedule.interval == wanted
    assert schedule.anchor_date == datetime(2020, 1, 1, tzinfo=UTC)
    assert schedule.timezone == "UTC"


def test_cron_keeps_its_line_and_its_zone():
    schedule = schedule_of(Cron("30 2 * * 1-5", "Europe/Berlin"))
    assert isinstance(schedule, CronSchedule)
    assert (schedule.cron, schedule.timezone) == ("30 2 * * 1-5", "Europe/Berlin")


def test_a_cron_line_that_names_no_times_is_refused():
    with pytest.raises(DeclarationError, match="names no times") as raised:
        schedule_of(Cron("99 2 * * *"))
    assert "Cron(" in raised.value.hint


def test_a_file_is_made_absolute_and_a_module_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("pipe.py:daily") == f"{tmp_path}/pipe.py:daily"
    assert absolute("pipe:daily") == "pipe:daily"


def test_a_stateless_pipeline_is_retrained_and_a_stateful_one_fine_tuned(toy, settings, prefect_api):
    deployed = deploy([f"{toy}:daily"], settings, prefect_api=prefect_api)
    assert [(d.name, d.schedules) for d in deployed] == [
        ("retrain/toy", ("every 1d",)),
        ("collect/toy", ("every 1h",)),
    ]
    deployed = deploy([f"{toy}:stateful"], settings, collect_every="15m", prefect_api=prefect_api)
    assert [(d.name, d.schedules) for d in deployed] == [
        ("fine-tune/toy", ("every 6h", "30 2 * * * (Europe/Berlin)")),
        ("collect/toy", ("every 15m",)),
    ]
    with SyncPrefectClient(prefect_api) as client, pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("retrain/toy")  # its schedule must not go on


def test_tables_are_materialised_as_often_as_the_most_frequent_one(toy, settings, prefect_api):
    deployed = deploy([f"{toy}:looking"], settings, prefect_api=prefect_api)
    assert [(d.name, d.schedules) for d in deployed] == [
        ("fine-tune/toy", ()),
        ("collect/toy", ("every 1h",)),
        ("materialise/toy", ("every 1h",)),
    ]
    deploy([f"{toy}:twin"], settings, prefect_api=prefect_api)
    with SyncPrefectClient(prefect_api) as client, pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("materialise/toy")


def test_a_batch_prediction_is_on_its_schedule(toy, settings, prefect_api):
    found = {}
    for name in ("scored", "scored_at_night", "scored_by_hand"):
        (batch,) = (
            each
            for each in deploy([f"{toy}:{name}"], settings, prefect_api=prefect_api)
            if each.flow == "batch-predict"
        )
        found[name] = (batch.name, batch.schedules)
        assert len(_read(prefect_api, batch).schedules) == len(batch.schedules)
        assert load_flow_from_entrypoint(_read(prefect_api, batch).entrypoint or "").name == batch.flow
    assert found == {
        "scored": ("batch-predict/toy", ("every 6h",)),
        "scored_at_night": ("batch-predict/toy", ("30 2 * * * (Europe/Berlin)",)),
        "scored_by_hand": ("batch-predict/toy", ()),
    }
    deploy([f"{toy}:twin"], settings, prefect_api=prefect_api)
    with SyncPrefectClient(prefect_api) as client, pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("batch-predict/toy")  # it is not declared any more


def test_deploying_again_replaces_the_deployment(toy, settings, prefect_api):
    first = deploy([f"{toy}:stateful"], settings, prefect_api=prefect_api)
    again = deploy([f"{toy}:stateful"], settings, prefect_api=prefect_api)
    assert again == first
    assert len(_read(prefect_api, first[0]).schedules) == 2
    without = deploy([f"{toy}:twin"], settings, prefect_api=prefect_api)
    assert without[0].id == first[0].id
    assert _read(prefect_api, without[0]).schedules == []


def test_a_pipeline_is_taken_off_the_running_stack_and_another_stays(toy, settings, prefect_api):
    assert not undeploy("watched", settings)  # no stack runs
    deploy([f"{toy}:watched", f"{toy}:stateful"], settings, prefect_api=prefect_api)
    write_record(
        settings.root,
        Addresses(prefect_api=prefect_api, prefect_ui=prefect_api, mlflow_ui=prefect_api),
        [],
    )
    assert _of(prefect_api, "watched") > 2
    assert undeploy("watched", settings)
    assert _of(prefect_api, "watched") == 0
    assert _of(prefect_api, "toy") == 2


def _of(prefect_api: str, pipeline: str) -> int:
    """Count what Prefect has of a pipeline: deployments and its automation."""
    with SyncPrefectClient(prefect_api) as client:
        deployments = [each.name for each in client.read_deployments()]
        automations = client.request("POST", "/automations/filter", json={}).json()
    return deployments.count(pipeline) + sum(pipeline in each["name"] for each in automations)


def test_a_deployment_can_run_anywhere_and_once_at_a_time(toy, settings, prefect_api, monkeypatch):
    folder = Path(toy).parent
    monkeypatch.chdir(folder)
    deployed = deploy([f"{Path(toy).name}:stateful"], settings, prefect_api=prefect_api)
    found = _read(prefect_api, deployed[0])
    assert found.parameters == {"pipeline": f"{toy}:stateful"}
    assert found.work_pool_name == "headwater"
    assert found.job_variables["working_dir"] == str(folder)
    assert found.job_variables["env"] == {"HEADWATER_HOME": str(settings.root)} | HEARTBEATS
    assert found.global_concurrency_limit is not None
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options is not None
    assert found.concurrency_options.collision_strategy == "CANCEL_NEW"


def test_an_update_holds_no_slot_that_would_outlive_its_process(toy, settings, prefect_api):
    with SyncPrefectClient(prefect_api) as client:  # as it was deployed by an earlier headwater
        client.create_deployment(client.create_flow_from_name("update"), "watched", concurrency_limit=1)
    deployed = {
        each.flow: each for each in deploy([f"{toy}:watched"], settings, prefect_api=prefect_api)
    }
    assert set(deployed) == {"fine-tune", "collect", "monitor", "update"}
    assert _read(prefect_api, deployed["update"]).global_concurrency_limit is None
    assert _read(prefect_api, deployed["monitor"]).global_concurrency_limit is not None


def test_the_automation_acts_once_in_a_cool_down(toy, settings, prefect_api):
    deploy([f"{toy}:watched"], settings, prefect_api=prefect_api)
    with SyncPrefectClient(prefect_api) as client:
        (found,) = client.read_automations_by_name("headwater: update watched")
        assert isinstance(found.trigger, EventTrigger)
        assert found.trigger.within == timedelta(hours=1)
        deploy([f"{toy}:watched_by_clock"], settings, prefect_api=prefect_api)
        assert client.read_automations_by_name("headwater: update watched") == []


def test_update_and_collect_do_not_fall_together(toy, settings, prefect_api):
    deployed = deploy([f"{toy}:daily"], settings, prefect_api=prefect_api)
    update, collect = (_read(prefect_api, each).schedules[0].schedule for each in deployed)
    assert collect.anchor_date - update.anchor_date == timedelta(minutes=30)


def test_secrets_are_not_stored_in_prefect(toy, tmp_path, prefect_api):
    settings = Settings(
        home=tmp_path,
        signing_key=SecretStr("s3cret-key"),
        mlflow_uri="https://me:s3cret-word@models.example",
        s3_endpoint="http://127.0.0.1:9000",
    )
    deployed = deploy([f"{toy}:daily"], settings, prefect_api=prefect_api)
    for each in deployed:
        found = _read(prefect_api, each)
        assert "s3cret" not in found.model_dump_json()
        assert found.job_variables["env"]["HEADWATER_S3_ENDPOINT"] == "http://127.0.0.1:9000"


def test_deployments_have_the_published_entrypoints(toy, settings, prefect_api):
    for each in deploy([f"{toy}:daily"], settings, prefect_api=prefect_api):
        assert _read(prefect_api, each).entrypoint == FLOWS[each.flow]


@pytest.mark.parametrize("name", FLOWS)
def test_a_published_entrypoint_loads_the_flow_of_its_name(name):
    flow = load_flow_from_entrypoint(FLOWS[name])
    assert flow.name == name
    assert flow.description
    assert flow.parameters.required == ["pipeline"]


def test_two_pipelines_of_one_name_are_refused(toy, settings, prefect_api):
    with pytest.raises(DeclarationError, match="both declare 'toy'"):
        deploy([f"{toy}:daily", f"{toy}:twin"], settings, prefect_api=prefect_api)


def test_deploying_a_model_that_will_not_rebuild_warns(toy, settings, prefect_api):
    with pytest.warns(HeadwaterWarning, match="will not rebuild"):
        assert deploy([f"{toy}:unseeded"], settings, prefect_api=prefect_api)


def test_nothing_is_deployed_if_one_pipeline_cannot_be(toy, settings):
    with pytest.raises(DeclarationError):  # before the API, which does not exist, is asked
        deploy([f"{toy}:never"], settings, prefect_api="http://127.0.0.1:9/api")


def test_deploying_without_a_stack_says_how_to_start_one(toy, settings):
    with pytest.raises(ServerError, match="no stack runs") as raised:
        deploy([f"{toy}:daily"], settings)
    assert "headwater up" in raised.value.hint


def test_a_prefect_that_is_away_is_a_server_error(toy, settings):
    with pytest.raises(ServerError, match="refuses"):
        deploy([f"{toy}:daily"], settings, prefect_api="http://127.0.0.1:9/api")


def _read(api: str, deployed: DeployResult) -> DeploymentResponse:
    with SyncPrefectClient(api) as client:
        found = client.read_deployment_by_name(deployed.name)
    assert str(found.id) == deployed.id
    return found
