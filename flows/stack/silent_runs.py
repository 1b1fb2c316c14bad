"""Close runs that were killed with their worker, of which nobody tells Prefect that they ended."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Crashed
from prefect.types import DateTime

from headwater.spec.loading import load_pipeline

__all__ = ["HEARTBEATS", "close_silent", "close_silent_runs"]

HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
"""A run sends a heartbeat every half minute; Prefect's own default is three minutes."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_SILENCE = timedelta(minutes=5)
_MOST = 200
_MESSAGE = "It fell silent: its process was killed. A later run does the rest of its work"


@task(name="close silent runs", cache_policy=NO_CACHE)
def close_silent_runs(reference: str) -> list[str]:
    """Set silent runs of a pipeline to Crashed, which Prefect would show as Running for ever.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.

    Returns
    -------
    list of str
        Their names.
    """
    with get_client(sync_client=True) as client:
        closed = close_silent(client, load_pipeline(reference).name, datetime.now(UTC))
    for name in closed:
        get_run_logger().warning("run %s fell silent, and counts as crashed", name)
    return closed


def close_silent(client: SyncPrefectClient, pipeline: str, now: datetime) -> list[str]:
    """Set pending and running runs to Crashed that have sent nothing for five minutes.

    A server that is started again takes less than five minutes. Prefect's own way, an automation that
    waits for heartbeats, takes runs of a few seconds for silent, and its server on SQLite locks itself
    out over it (3.8).

    Parameters
    ----------
    client
        Of the server that knows the runs.
    pipeline
        Name of the pipeline.
    now
        The present by Prefect's clock, which is the machine's.

    Returns
    -------
    list of str
        Their names.
    """
    kinds = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=["headwater", pipeline]), state=FlowRunFilterState(type=kinds)
        ),
        limit=_MOST,
    )
    silent = [run for run in runs if _is_silent(client, run, now)]
    for run in silent:
        client.set_flow_run_state(run.id, Crashed(message=_MESSAGE))
    return [run.name for run in silent]


def _is_silent(client: SyncPrefectClient, run: FlowRun, now: datetime) -> bool:
    since = now - _SILENCE
    if run.state is None or run.state.timestamp > since:
        return False
    heartbeats = EventFilter(
        event=EventNameFilter(name=[_HEARTBEAT]),
        occurred=EventOccurredFilter(since=_at(since), until=_at(now)),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
    )
    return not client.read_events(filter=heartbeats, limit=1).events


def _at(moment: datetime) -> DateTime:
    return DateTime.fromtimestamp(moment.timestamp(), UTC)
