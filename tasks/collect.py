"""Collect as a task; the table of examples is its asset."""

from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE

from headwater.loop.binding import Bound
from headwater.loop.collect import CollectResult, collect
from headwater.spec.loading import load_pipeline
from headwater.tasks.assets import examples_asset
from headwater.tasks.prefect_errors import RETRY_AFTER_S, is_transient

__all__ = ["collect_examples"]


def collect_examples(reference: str, *, retry_after_s: Sequence[float] = RETRY_AFTER_S) -> CollectResult:
    """Sequence and archive the due records, and show the result.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    retry_after_s
        How long the task waits after each transient fault.

    Raises
    ------
    BusyError, StorageError
        If they last longer than the retries.
    TableError
        If the archive is corrupt.
    """
    asset = examples_asset(load_pipeline(reference).name)
    delays_s = list(retry_after_s)
    task = _collect.with_options(assets=[asset], retries=len(delays_s), retry_delay_seconds=delays_s)
    return task(reference)


@materialize(
    examples_asset("any"),  # the pipeline's own takes its place
    name="collect",
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def _collect(reference: str) -> CollectResult:
    with Bound(load_pipeline(reference)) as bound:
        collected = collect(bound.log)
        name, address = bound.pipeline.name, bound.log.archive.address("examples")
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
