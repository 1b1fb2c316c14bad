"""New classes of labels as tasks: found, and stored as announced once their events were emitted."""

from prefect import task

from headwater.loop.binding import Bound
from headwater.spec.loading import load_pipeline
from headwater.spec.rulings import AppearedClass

__all__ = ["find_new_classes", "store_announced"]


@task(name="new classes")
def find_new_classes(reference: str) -> list[AppearedClass]:
    """Return the classes that are not declared and whose event was not emitted yet.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    """
    with Bound(load_pipeline(reference)) as bound:
        return bound.log.new_classes.unannounced()


@task(name="announced classes")
def store_announced(reference: str, classes: list[AppearedClass]) -> None:
    """Store that the events of classes were emitted.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    classes
        Those of which it was told.
    """
    with Bound(load_pipeline(reference)) as bound:
        bound.log.new_classes.announced(classes)
