"""The automation of a pipeline: it starts the update when an update is requested."""

from datetime import UTC, timedelta
from itertools import takewhile
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import RunDeployment
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.types import DateTime

from headwater.flows.events import UPDATE_REQUESTED, resource
from headwater.flows.guard import guarded
from headwater.flows.stack.record import find_stack, prefect_key
from headwater.infra.settings import Settings

__all__ = ["automate", "failures", "failures_now", "remove_automation"]

_FAILED = "prefect.automation.action.failed"
_EXECUTED = "prefect.automation.action.executed"
_NAME = "headwater: update "
_LOOK_BACK = timedelta(hours=24)
_LEAST_COOL_DOWN = timedelta(minutes=1)


def automate(
    client: SyncPrefectClient, pipeline: str, deployment_id: UUID, cool_down: timedelta | None
) -> None:
    """Make the automation that starts the update, or replace it.

    The automation acts on the first request at once, and on no other within the cool-down: a repeated
    request, or ten thousand of them, start nothing. Requests bear the times of their decisions, which
    are a cool-down apart, so it drops none that counts. If it did, the row is the truth, and the next
    run of the monitor flow requests the update.

    Parameters
    ----------
    client
        Of the server that runs it.
    pipeline
        Name of the pipeline whose events it follows.
    deployment_id
        The deployment that it runs, with the event's decision.
    cool_down
        The pipeline's; a minute if it has none.
    """
    automation = AutomationCore(
        name=_name(pipeline),
        description=f"Carries out the updates that triggers of {pipeline} request",
        tags=["headwater", pipeline],
        trigger=EventTrigger(
            expect={UPDATE_REQUESTED},
            match={"prefect.resource.id": resource(pipeline)["prefect.resource.id"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=cool_down or _LEAST_COOL_DOWN,
        ),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=deployment_id,
                job_variables=None,
                parameters={
                    "decision": {
                        "__prefect_kind": "jinja",
                        "template": "{{ event.payload.decision }}",
                    }
                },
            )
        ],
    )
    existing = client.read_automations_by_name(_name(pipeline))
    if existing:
        client.update_automation(existing[0].id, automation)
    else:
        client.create_automation(automation)


def remove_automation(client: SyncPrefectClient, pipeline: str) -> None:
    """Remove the automation of a pipeline that is updated by the clock again."""
    for automation in client.read_automations_by_name(_name(pipeline)):
        client.delete_automation(automation.id)


def failures(client: SyncPrefectClient, pipeline: str) -> list[str]:
    """List how the automation failed since its last success, within a day; newest first."""
    automations = client.read_automations_by_name(_name(pipeline))
    if not automations:
        return []
    ids = [f"prefect.automation.{automation.id}" for automation in automations]
    since = DateTime.now(UTC) - _LOOK_BACK  # the server's events have its time
    page = client.read_events(
        filter=EventFilter(
            event=EventNameFilter(name=[_FAILED, _EXECUTED]),
            occurred=EventOccurredFilter(since=since),
            resource=EventResourceFilter(id=ids),
        ),
        limit=20,
    )
    failed = takewhile(lambda event: event.event == _FAILED, page.events)
    return [str(event.payload.get("reason", event.payload)) for event in failed]


def failures_now(settings: Settings) -> dict[str, list[str]]:
    """List how the automations of the running stack fail.

    Parameters
    ----------
    settings
        The settings of the stack.

    Returns
    -------
    dict
        By pipeline, :func:`failures` of its automation; empty if no stack runs.

    Raises
    ------
    ServerError
        If Prefect refuses.
    """
    stack = find_stack(settings)
    if stack is None:
        return {}
    api = stack.prefect_api
    with guarded(api), SyncPrefectClient(api, auth_string=prefect_key(api, settings)) as client:
        automations = [
            automation for automation in client.read_automations() if automation.name.startswith(_NAME)
        ]
        enabled_by_pipeline = {
            automation.name.removeprefix(_NAME): automation.enabled for automation in automations
        }
        return {
            name: failures(client, name) if enabled else ["it is switched off"]
            for name, enabled in enabled_by_pipeline.items()
        }


def _name(pipeline: str) -> str:
    return f"{_NAME}{pipeline}"
