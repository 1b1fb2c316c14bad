"""Materialise as a task; a table of batch features is its asset."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.assets import add_asset_metadata, materialize

from headwater.loop.batch.materialise import due_tables, materialise, table_of
from headwater.loop.binding import Bound
from headwater.spec.data.feature_table import Materialised
from headwater.spec.loading import load_pipeline
from headwater.tasks.assets import table_asset
from headwater.tasks.prefect_errors import RETRIED

__all__ = ["find_due_tables", "materialise_tables"]


@task(name="due tables", **RETRIED)
def find_due_tables(reference: str) -> list[str]:
    """Return the names of the tables that are due.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.

    Raises
    ------
    StorageError
        If the database is away for longer than the retries.
    """
    with Bound(load_pipeline(reference)) as bound:
        return [table.name for table in due_tables(bound)]


def materialise_tables(reference: str, names: list[str]) -> list[Materialised]:
    """Materialise tables, each as a task of its own, and show them.

    All tables are tried, even if one fails: the first fault is raised at the end.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    names
        Names of the tables.

    Raises
    ------
    SchemaError, NonFiniteError, NotEnoughError
        If a source does not fit the declaration.
    StorageError
        If a source or a store is away for longer than the retries.
    """
    pipeline = load_pipeline(reference).name
    states = [
        _materialise.with_options(assets=[table_asset(pipeline, name)])(
            reference, name, return_state=True
        )
        for name in names
    ]
    materialised: list[Materialised] = [state.result() for state in states]
    return materialised


@materialize(  # the table's own asset takes its place
    table_asset("any", "any"), name="materialise", **RETRIED
)
def _materialise(reference: str, name: str) -> Materialised:
    with Bound(load_pipeline(reference)) as bound:
        materialised, pipeline = materialise(bound, table_of(bound, name)), bound.pipeline.name
    add_asset_metadata(
        table_asset(pipeline, name),
        {"number": materialised.number, "rows": materialised.rows, "source": materialised.source},
    )
    key = f"{pipeline}-{name}".replace("_", "-").lower()
    create_markdown_artifact(
        _text(pipeline, materialised), f"{key}-materialised", "What was materialised"
    )
    return materialised


def _text(pipeline: str, made: Materialised) -> str:
    return (
        f"# {pipeline}: table {made.table}, {made.rows:,} rows\n\n"
        f"Materialisation {made.number}, read at {made.read_at:%Y-%m-%d %H:%M:%S} UTC\n\n"
        f"Source `{made.source}`\n"
    )
