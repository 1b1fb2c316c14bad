"""A batch prediction as a task; an artifact shows its run."""

from prefect import runtime, task
from prefect.artifacts import create_table_artifact

from headwater.features.batch.batch_runs import BatchRun
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.binding import Bound
from headwater.spec.loading import load_pipeline
from headwater.tasks.prefect_errors import RETRIED

__all__ = ["predict_batch"]


@task(name="batch predict", **RETRIED)
def predict_batch(reference: str) -> BatchRun:
    """Score the pipeline's table with its champion, and show the run.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.

    Raises
    ------
    BusyError, StorageError
        If they last longer than the retries; what is staged is finished by the next run.
    HeadwaterError
        As :func:`headwater.loop.batch.batch_predict.batch_predict` does, at once.
    """
    with Bound(load_pipeline(reference)) as bound:
        run = batch_predict(bound, by=f"flow run {runtime.flow_run.name}")
        name = bound.pipeline.name
    facts = {
        "run": run.id,
        "version": run.version,
        "predictions": f"{run.rows:,}",
        "served at": run.at.isoformat(timespec="seconds"),
    }
    rows = [{"what": what, "is": value} for what, value in facts.items()]
    create_table_artifact(rows, f"{name}-batch", f"{name}: predictions by key")
    return run
