"""Collect as a task; the table of examples is its asset."""

from prefect.artifacts import create_markdown_artifact
from prefect.assets import add_asset_metadata, materialize

from headwater.loop.binding import Bound
from headwater.loop.collect import CollectResult, collect
from headwater.spec.loading import load_pipeline
from headwater.tasks.assets import examples_asset
from headwater.tasks.prefect_errors import RETRIED, TaskRetries

__all__ = ["collect_examples"]


def collect_examples(reference: str, *, retried: TaskRetries = RETRIED) -> CollectResult:
    """Sequence and archive the due records, and show the result.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    retried
        How long the task waits after each transient fault.

    Raises
    ------
    BusyError, StorageError
        If they last longer than the retries.
    TableError
        If the archive is corrupt.
    """
    asset = examples_asset(load_pipeline(reference).name)
    return _collect.with_options(assets=[asset], **retried)(reference)


@materialize(examples_asset("any"), name="collect")  # the pipeline's own asset takes its place
def _collect(reference: str) -> CollectResult:
    with Bound(load_pipeline(reference)) as bound:
        collected = collect(bound.log)
        name, address = bound.pipeline.name, bound.log.archive["examples"].address
    add_asset_metadata(
        examples_asset(name),
        {"archived": collected.archived, "stop": collected.stop, "address": address},
    )
    create_markdown_artifact(_text(name, collected, address), f"{name}-collected", "What was collected")
    return collected


def _text(name: str, collected: CollectResult, address: str) -> str:
    return (
        f"# {name}: {collected.emitted:,} new examples\n\n"
        "| emitted | archived | stop |\n|---:|---:|---:|\n"
        f"| {collected.emitted:,} | {collected.archived:,} | {collected.stop:,} |\n\n"
        f"Delta table `{address}`\n"
    )
