"""Request the runs of decisions again that nobody carries out."""

from datetime import datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from headwater.flows.automations import failures
from headwater.infra.store.lease import is_held
from headwater.loop.binding import Bound
from headwater.loop.decision.redispatch import is_due, run_key
from headwater.spec.loading import load_pipeline
from headwater.spec.updating.decision import Decision

__all__ = ["dispatch_lost", "request_again"]


@task(name="dispatch what was lost", cache_policy=NO_CACHE)
def dispatch_lost(reference: str) -> list[str]:
    """Start a run for each decision that fired, has not ended, and that nobody works on.

    A failed automation is logged as a warning; it keeps no run from starting.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.

    Returns
    -------
    list of str
        The decisions for which a run was requested.
    """
    logger = get_run_logger()
    with Bound(load_pipeline(reference)) as bound, get_client(sync_client=True) as client:
        for failure in failures(client, bound.pipeline.name):
            logger.warning("the automation of %s failed: %s", bound.pipeline.name, failure)
        requested = request_again(bound, client, bound.clock.now())
    for id_ in requested:
        logger.warning("decision %s: nobody worked on it, a run was requested", id_)
    return requested


def request_again(bound: Bound, client: SyncPrefectClient, now: datetime) -> list[str]:
    """Request a run of each decision that is due for one, once for each attempt.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    client
        Of the server on which its update is deployed.
    now
        The present, by the pipeline's clock.

    Returns
    -------
    list of str
        The decisions for which a run was requested.
    """
    working = is_held(bound.database, bound.clock, f"train/{bound.pipeline.name}")
    requested = []
    for decision in bound.decisions.unended():
        if not is_due(decision, now, working=working):
            continue
        attempt = bound.decisions.attempt(decision)
        if attempt is not None and _start(client, decision, run_key(decision, attempt)):
            requested.append(decision.id)
    return requested


def _start(client: SyncPrefectClient, decision: Decision, key: str) -> bool:
    """Request a run by its key; return False if the pipeline's update is no longer deployed."""
    try:
        deployment = client.read_deployment_by_name(f"update/{decision.pipeline}")
    except ObjectNotFound:
        return False
    parameters = dict(deployment.parameters) | {"decision": decision.id}
    client.create_flow_run_from_deployment(deployment.id, parameters=parameters, idempotency_key=key)
    return True
