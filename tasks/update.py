"""An update as tasks: train, then record the new version as an asset."""

from prefect import get_run_logger, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE

from headwater.loop.binding import Bound
from headwater.loop.decision.execute import carry_out
from headwater.loop.training.update import UpdateResult, train
from headwater.registry.version import Version
from headwater.spec.loading import load_pipeline
from headwater.tasks.assets import examples_asset, model_asset
from headwater.tasks.prefect_errors import RETRIED

__all__ = ["carry_out_decision", "record_version", "update_model"]


@task(name="train", **RETRIED)
def update_model(reference: str, *, from_scratch: bool) -> UpdateResult:
    """Learn the collected examples, publish the version, and show the result.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    from_scratch
        Start a stateful line anew; a stateless update always does.

    Raises
    ------
    BusyError, StorageError
        If they last longer than the retries.
    HeadwaterError
        As :func:`headwater.loop.training.update.train` does, at once.
    """
    with Bound(load_pipeline(reference)) as bound:
        updated = train(bound, by=f"flow run {runtime.flow_run.name}", from_scratch=from_scratch)
        name = bound.pipeline.name
    _show(name, updated)
    return updated


@task(name="carry out", **RETRIED)
def carry_out_decision(reference: str, decision: str | None) -> UpdateResult | None:
    """Carry out the update that a decision asks for, once, and show the result.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    decision
        Its id; None takes the oldest decision that fired and has not ended. So does an id that does not
        wait, if another decision waits: a request only wakes the flow, and the rows name the work.

    Returns
    -------
    UpdateResult or None
        None if no decision waits.

    Raises
    ------
    BusyError, StorageError
        If they last longer than the retries.
    HeadwaterError
        As :func:`headwater.loop.decision.execute.carry_out` does, at once.
    """
    with Bound(load_pipeline(reference)) as bound:
        waiting = [unended.id for unended in bound.decisions.unended()]
        chosen = decision if decision in waiting or not waiting else waiting[0]
        if chosen is None:
            return None
        updated = carry_out(bound, chosen, by=f"flow run {runtime.flow_run.name}")
        name = bound.pipeline.name
    _show(name, updated)
    return updated


def record_version(updated: UpdateResult) -> None:
    """Record a new version as an asset, downstream of the examples, if there is one."""
    version = updated.version
    if version is not None:
        known = _record.with_options(
            assets=[model_asset(version.pipeline)], asset_deps=[examples_asset(version.pipeline)]
        )
        known(version, promoted=updated.promoted)


@materialize(model_asset("any"), name="record version", by="mlflow", cache_policy=NO_CACHE)
def _record(version: Version, *, promoted: bool) -> None:
    facts = {**_version_facts(version), "promoted": promoted, "run_id": version.run_id}
    add_asset_metadata(model_asset(version.pipeline), facts)


def _show(pipeline: str, updated: UpdateResult) -> None:
    """Show the result of an update as a table, and its warnings in the run's log too."""
    rows = [{"what": what, "is": value} for what, value in _facts(updated).items()]
    rows += [{"what": "warning", "is": text} for text in updated.warnings]
    create_table_artifact(rows, f"{pipeline}-update", f"{pipeline}: {updated.reason}")
    for text in updated.warnings:
        get_run_logger().warning(text)


def _facts(updated: UpdateResult) -> dict[str, str]:
    """Describe the result of an update, a fact a line."""
    facts = {"reason": updated.reason}
    if updated.version is not None:
        facts |= _version_facts(updated.version)
        facts["promoted"] = "yes" if updated.promoted else "no"
    return facts | {f"served {name}": f"{value:.4f}" for name, value in updated.served.items()}


def _version_facts(version: Version) -> dict[str, str]:
    return {
        "version": version.number,
        "update": version.update,
        "parent": version.parent or "none",
        "offsets": str(version.examples),
        "learned": f"{version.learned:,}",
        "CPU s": f"{version.train_cpu_s:.2f}",
        "digest": version.digest,
    }
