"""Make a version of a fold that goes on."""

from headwater.infra.clock import Clock
from headwater.loop.binding import Bound
from headwater.loop.training.incremental_fold import IncrementalFold
from headwater.loop.training.update import trainer
from headwater.registry.version import Candidate, Version
from headwater.spec.rulings import Reign

__all__ = ["SERVICE", "candidate_of", "checkpoint"]

SERVICE = "learning service"
"""Who promotes, in the record of a reign, if the service made the version."""


def candidate_of(
    folding: IncrementalFold, parent: Version, clock: Clock, metrics: dict[str, float] | None = None
) -> Candidate:
    """Return the present state of a fold as a candidate.

    Parameters
    ----------
    folding
        The fold.
    parent
        The version that it started from.
    clock
        Has the time at which the version is made.
    metrics
        Its quality, by name of metric.
    """
    return Candidate(
        recipe=folding.recipe.to_json(),
        state=folding.learner.dump(),
        digest=folding.learner.digest(),
        made_at=clock.now(),
        line_started_at=parent.line_started_at,
        learned=folding.learned,
        train_cpu_s=folding.train_cpu_s,
        metrics=metrics or {},
    )


def checkpoint(bound: Bound, folding: IncrementalFold, parent: Version) -> tuple[Version, Reign]:
    """Register what a fold has learned as a version, and make it champion.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    folding
        The fold; it must have learned something.
    parent
        The version that it started from, which must still be champion.

    Raises
    ------
    BusyError, FencedError
        If another trainer works: nothing is published then.
    ConflictError
        If another version became champion meanwhile: the new version is kept, and does not serve.
    StorageError
        If MLflow refuses.
    """
    with trainer(bound) as lease:
        version = bound.registry.publish(candidate_of(folding, parent, bound.clock), lease)
        reign = bound.registry.succeed(parent, version, by=SERVICE, reason="checkpoint", lease=lease)
    return version, reign
