"""Housekeeping: numbers logged against versions, and the leftovers of killed trainers."""

from datetime import datetime

from headwater.registry.mlflow_store.connection import PAGE_ROWS, MlflowConnection, guarded
from headwater.registry.version import Version

__all__ = ["close_leftovers", "log_metrics"]


def log_metrics(
    connection: MlflowConnection,
    version: Version,
    metrics: dict[str, float],
    at: datetime,
    step: int = 0,
) -> None:
    """Log numbers against a version; logging the same numbers again changes nothing.

    Parameters
    ----------
    connection, version
        MLflow, and the version.
    metrics
        By name.
    at, step
        The time they are of, and their place on MLflow's charts.

    Raises
    ------
    StorageError
        If MLflow refuses.
    """
    from mlflow.entities import Metric  # noqa: PLC0415 - heavy

    at_ms = int(at.timestamp() * 1_000)
    rows = [
        Metric(name, value, at_ms, step, model_id=version.model_id, run_id=version.run_id)
        for name, value in metrics.items()
    ]
    with guarded(connection.settings):
        connection.client.log_batch(version.run_id, metrics=rows)


def close_leftovers(connection: MlflowConnection) -> int:
    """Close the runs and models that a killed trainer left open; only the holder of the lease may.

    Returns
    -------
    int
        How many were closed.
    """
    from mlflow.entities import LoggedModelStatus  # noqa: PLC0415 - heavy

    # MLflow keeps the status as a number and compares it with what stands in the filter: by its name
    # SQLite finds none, and PostgreSQL refuses.
    pending = LoggedModelStatus.PENDING.to_int()
    client, experiments = connection.client, [connection.experiment_id]
    with guarded(connection.settings):
        runs = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=PAGE_ROWS)
        for run in runs:
            client.set_terminated(run.info.run_id, "KILLED")
        models = client.search_logged_models(
            experiments, filter_string=f"status = '{pending}'", max_results=PAGE_ROWS
        )
        for model in models:
            client.finalize_logged_model(model.model_id, "FAILED")
    return len(runs) + len(models)
