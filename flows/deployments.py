"""Deploy pipelines on their schedules: updates, collects, and what else they declare."""

import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from headwater.flows.automations import automate, remove_automation
from headwater.flows.guard import guarded
from headwater.flows.loop_flows import (
    batch_predict,
    collect,
    fine_tune,
    materialise,
    monitor,
    retrain,
    update,
)
from headwater.flows.stack.commands import POOL
from headwater.flows.stack.prefect_environment import environment
from headwater.flows.stack.record import find_stack, prefect_key
from headwater.flows.stack.runs import FLOWS
from headwater.flows.stack.silent_runs import HEARTBEATS
from headwater.infra.settings import Settings
from headwater.learners.cautions import warn_of
from headwater.learners.wrap import check_bound
from headwater.loop.binding import Bound
from headwater.loop.declaring.edit_plan import declare
from headwater.loop.training.plan import check_update
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError, ServerError, StorageError
from headwater.spec.loading import load_pipeline
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.updating.trigger import by_clock
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.update import Stateless

__all__ = ["DeployResult", "absolute", "deploy", "schedule_of"]

_ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""Intervals are counted from here, so that deploying again moves no run."""


class DeployResult(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment in Prefect.

    Parameters
    ----------
    name
        As ``prefect deployment run`` takes it: ``"fine-tune/flights"``.
    flow, pipeline
        The flow, and the name of the pipeline that it works on.
    id
        Prefect's id of the deployment; it stays when the pipeline is deployed again.
    schedules
        When it runs, in words; none if it runs on request only.
    """

    name: str
    flow: str
    pipeline: str
    id: str
    schedules: tuple[str, ...]


class _Deployment(NamedTuple):
    """A deployment that a pipeline declares."""

    flow: Flow[..., Any]
    pipeline: str
    reference: str
    words: tuple[str, ...]
    schedules: list[DeploymentScheduleCreate]
    cool_down: timedelta | None = None


def deploy(
    references: Sequence[str],
    settings: Settings,
    *,
    collect_every: Duration = "1h",
    monitor_every: Duration = "15m",
    prefect_api: str | None = None,
) -> list[DeployResult]:
    """Deploy pipelines to the work pool; deploying again replaces their deployments.

    Parameters
    ----------
    references
        The pipelines, as :func:`~headwater.spec.loading.load_pipeline` takes them.
    settings
        Where their stores are. The signing key and addresses that hold a password are not stored in
        Prefect: the worker has them from the environment in which ``headwater up`` was called.
    collect_every
        Time between two collects.
    monitor_every
        Time between two decisions of a pipeline whose triggers do not all go by the clock.
    prefect_api
        Address of Prefect's API; by default that of the running stack.

    Raises
    ------
    DeclarationError, NotFoundError
        If a pipeline cannot be loaded or bound, or differs from its records or its champion; nothing is
        deployed then.
    ServerError
        If no stack runs, or Prefect refuses.
    """
    deployments = _deployments(references, collect_every, monitor_every)
    _check_declared(references, settings)
    api = prefect_api or _running_api(settings)
    variables = {
        "command": f"{sys.executable} -m prefect.engine",
        "env": environment(settings, secrets=False) | HEARTBEATS,
        "working_dir": str(Path.cwd()),
    }
    with guarded(api), SyncPrefectClient(api, auth_string=prefect_key(api, settings)) as client:
        _ensure_pool(client)
        deployed = [_put(client, deployment, variables) for deployment in deployments]
        _remove_others(client, deployed)
        _automate(client, deployments, deployed)
    return deployed


def undeploy(pipeline: str, settings: Settings) -> bool:
    """Remove the deployments of a pipeline from the running stack; return whether one runs.

    Raises
    ------
    ServerError
        If Prefect refuses.
    """
    if find_stack(settings) is None:
        return False
    api = _running_api(settings)
    with guarded(api), SyncPrefectClient(api, auth_string=prefect_key(api, settings)) as client:
        _remove(client, pipeline, kept=())
        remove_automation(client, pipeline)
    return True


def schedule_of(trigger: Every | Cron) -> IntervalSchedule | CronSchedule:
    """Return Prefect's schedule for a trigger that goes by the clock.

    Raises
    ------
    DeclarationError
        If a cron line or its time zone means nothing.

    Examples
    --------
    >>> from headwater.spec.updating.triggers.schedule import Cron
    >>> schedule_of(Cron("30 2 * * *", "Europe/Berlin")).timezone
    'Europe/Berlin'
    """
    if isinstance(trigger, Every):
        return _interval(trigger.interval)
    try:
        ZoneInfo(trigger.timezone)
        return CronSchedule(cron=trigger.line, timezone=trigger.timezone)
    except (ValidationError, ZoneInfoNotFoundError, ValueError) as error:
        raise DeclarationError(
            f"Cron({trigger.line!r}, {trigger.timezone!r}) names no times",
            hint='write a line of five fields and a time zone: Cron("30 2 * * *", "Europe/Berlin")',
        ) from error


def absolute(reference: str) -> str:
    """Make the path of a reference to a file absolute; a reference to a module stays.

    >>> absolute("/srv/app/../flights.py:stage3"), absolute("flights.pipeline:stage3")
    ('/srv/flights.py:stage3', 'flights.pipeline:stage3')
    """
    where, _, attribute = reference.rpartition(":")
    return f"{Path(where).resolve()}:{attribute}" if where.endswith(".py") else reference


def _deployments(
    references: Sequence[str], collect_every: Duration, monitor_every: Duration
) -> list[_Deployment]:
    deployments: list[_Deployment] = []
    names: dict[str, str] = {}
    half = duration(collect_every, "collect_every") / 2  # an update collects too: keep them apart
    for reference in references:
        pipeline = load_pipeline(reference)
        check_bound(pipeline)
        warn_of(pipeline)
        if names.setdefault(pipeline.name, reference) != reference:
            raise DeclarationError(
                f"{names[pipeline.name]!r} and {reference!r} both declare {pipeline.name!r}",
                hint="give each pipeline its own name",
            )
        where = absolute(reference)
        deployments.append(_update(pipeline, where))
        deployments.append(_every(collect, pipeline, where, collect_every, half))
        if pipeline.tables:  # as often as the most frequent of them; a run does what is due
            shortest = min(pipeline.tables, key=lambda table: table.interval).every
            deployments.append(_every(materialise, pipeline, where, shortest))
        if not by_clock(pipeline.triggers):
            deployments.append(_every(monitor, pipeline, where, monitor_every))
            deployments.append(
                _Deployment(update, pipeline.name, where, (), [], pipeline.pace.cool_down_span)
            )
        if pipeline.batch is not None:
            deployments.append(_batch(pipeline, pipeline.batch, where))
    return deployments


def _check_declared(references: Sequence[str], settings: Settings) -> None:
    """Check that each pipeline can be updated by its declaration; a store may be away."""
    for reference in references:
        with suppress(StorageError), Bound(load_pipeline(reference), settings) as bound:
            bound.log.agree()
            if bound.log.declared.is_learned():  # without a version there is nothing to ask MLflow
                check_update(bound)
            declare(bound, by="headwater deploy")


def _every(
    flow: Flow[..., Any],
    pipeline: Pipeline,
    reference: str,
    every: Duration,
    offset: timedelta = timedelta(0),
) -> _Deployment:
    schedules = [DeploymentScheduleCreate(schedule=_interval(every, offset))]
    return _Deployment(flow, pipeline.name, reference, (f"every {every}",), schedules)


def _update(pipeline: Pipeline, reference: str) -> _Deployment:
    flow = retrain if isinstance(pipeline.update, Stateless) else fine_tune
    clocks = [trigger for trigger in pipeline.triggers if isinstance(trigger, Every | Cron)]
    if not by_clock(pipeline.triggers):
        clocks = []  # the monitor flow decides on them with the other triggers
    words = tuple(map(_words, clocks))
    schedules = [DeploymentScheduleCreate(schedule=schedule_of(trigger)) for trigger in clocks]
    return _Deployment(flow, pipeline.name, reference, words, schedules)


def _batch(pipeline: Pipeline, batch: BatchPrediction, reference: str) -> _Deployment:
    if batch.every is None:
        return _Deployment(batch_predict, pipeline.name, reference, (), [])
    if isinstance(batch.every, str):
        return _every(batch_predict, pipeline, reference, batch.every)
    schedules = [DeploymentScheduleCreate(schedule=schedule_of(batch.every))]
    return _Deployment(batch_predict, pipeline.name, reference, (_words(batch.every),), schedules)


def _interval(every: Duration, offset: timedelta = timedelta(0)) -> IntervalSchedule:
    return IntervalSchedule(interval=duration(every), anchor_date=_ANCHOR + offset, timezone="UTC")


def _words(trigger: Every | Cron) -> str:
    if isinstance(trigger, Every):
        return f"every {trigger.interval}"
    return f"{trigger.line} ({trigger.timezone})"


def _put(client: SyncPrefectClient, deployment: _Deployment, variables: dict[str, Any]) -> DeployResult:
    """Create a deployment, or replace it with its schedules: Prefect's create is an upsert."""
    flow = deployment.flow
    alone = None if flow is update else 1  # an update is alone by its lease, which dies with its process
    deployment_id = client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=deployment.pipeline,
        entrypoint=FLOWS[flow.name],
        parameters={"pipeline": deployment.reference},
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        enforce_parameter_schema=True,
        description=flow.description,
        tags=["headwater", deployment.pipeline],
        work_pool_name=POOL,
        job_variables=variables,
        pull_steps=[],
        schedules=deployment.schedules,
        concurrency_limit=alone,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
    return DeployResult(
        name=f"{flow.name}/{deployment.pipeline}",
        flow=flow.name,
        pipeline=deployment.pipeline,
        id=str(deployment_id),
        schedules=deployment.words,
    )


def _automate(
    client: SyncPrefectClient, deployments: Sequence[_Deployment], deployed: Sequence[DeployResult]
) -> None:
    """Make an automation that runs requested updates, for each pipeline that is monitored."""
    monitored = set()
    for deployment, result in zip(deployments, deployed, strict=True):
        if deployment.flow is update:
            automate(client, deployment.pipeline, UUID(result.id), deployment.cool_down)
            monitored.add(deployment.pipeline)
    for name in {deployment.pipeline for deployment in deployed} - monitored:
        remove_automation(client, name)


def _remove_others(client: SyncPrefectClient, deployed: Sequence[DeployResult]) -> None:
    """Remove deployments that a pipeline no longer declares, for example after a change to stateless."""
    names = {deployment.name for deployment in deployed}
    for name in {deployment.pipeline for deployment in deployed}:
        _remove(client, name, names)


def _remove(client: SyncPrefectClient, pipeline: str, kept: Collection[str]) -> None:
    """Remove the deployments of a pipeline, but for some."""
    for flow in (collect, retrain, fine_tune, monitor, update, materialise, batch_predict):
        name = f"{flow.name}/{pipeline}"
        if name not in kept:
            with suppress(ObjectNotFound):
                client.delete_deployment(client.read_deployment_by_name(name).id)


def _ensure_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(
            name=POOL,
            type=ProcessWorker.type,
            description="Updates and collects, a process each",
            base_job_template=template,
        )
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:  # the worker was faster
            return


def _running_api(settings: Settings) -> str:
    stack = find_stack(settings)
    if stack is None:
        raise ServerError(
            f"no stack runs below {settings.root}", hint="start it in another terminal: headwater up"
        )
    return stack.prefect_api
