"""The promotion of the best shadow as a task, if the routing asks for it."""

from prefect import task

from headwater.loop.binding import Bound
from headwater.loop.operator.serve_best import serve_best
from headwater.spec.loading import load_pipeline
from headwater.spec.rulings import Reign
from headwater.tasks.prefect_errors import RETRIED

__all__ = ["promote_best_shadow"]


@task(name="serve best", **RETRIED)
def promote_best_shadow(reference: str) -> Reign | None:
    """Make the best shadow champion, if it is better by the measure of the routing.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.

    Raises
    ------
    ConflictError, StorageError
        If they last longer than the retries.
    DigestError
        If the shadow's state fails its check; the champion stays.
    """
    with Bound(load_pipeline(reference)) as bound:
        return serve_best(bound)
