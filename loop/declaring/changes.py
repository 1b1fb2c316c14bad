"""Compare a declaration with the recipes of versions, before anything is done by it."""

from headwater.loop.binding import Bound
from headwater.registry.version import Version
from headwater.spec.declaration import (
    declaration_of,
    learner_differences,
    refusal,
    schema_differences,
)
from headwater.spec.recipe import Recipe

__all__ = ["check_champion", "check_continues"]


def check_continues(bound: Bound, parent: Version, recipe: Recipe) -> None:
    """Check that an update may continue from a version.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    parent
        The version.
    recipe
        The recipe of the update.

    Raises
    ------
    ChangedError
        If task, features or learner differ.
    """
    learned = bound.registry.store.recipe(parent)
    differences = schema_differences(learned, declaration_of(bound.pipeline)) + learner_differences(
        learned, recipe
    )
    if differences:
        raise refusal(bound.pipeline.name, f"version {parent.number}", differences)


def check_champion(bound: Bound) -> Version | None:
    """Check that the champion fits the declaration, and return it, if there is one.

    Raises
    ------
    ChangedError
        If the records or the champion are of another declaration.
    """
    bound.log.agree()
    champion = bound.registry.champion()
    if champion is not None:
        learned = bound.registry.store.recipe(champion)
        if differences := schema_differences(learned, declaration_of(bound.pipeline)):
            raise refusal(bound.pipeline.name, f"version {champion.number}, the champion", differences)
    return champion
