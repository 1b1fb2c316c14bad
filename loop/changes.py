"""Hold a declaration against what versions have learned, before anything is done by it."""

from headwater.loop.binding import Bound
from headwater.registry.version import Version
from headwater.spec.declaration import (
    declaration_of,
    learner_differences,
    refusal,
    schema_differences,
)
from headwater.spec.recipe import Recipe

__all__ = ["check_champion", "check_goes_on"]


def check_goes_on(bound: Bound, parent: Version, made: Recipe) -> None:
    """Check that a version can be learned on from by what is declared.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    parent
        The version.
    made
        What would be learned.

    Raises
    ------
    ChangedError
        If its task, features or learner are others.
    """
    learned = Recipe.from_json(bound.registry.store.kept(parent).recipe)
    found = schema_differences(learned, declaration_of(bound.pipeline)) + learner_differences(
        learned, made
    )
    if found:
        raise refusal(bound.pipeline.name, f"version {parent.number}", found)


def check_champion(bound: Bound) -> Version | None:
    """Check that the champion answers what the declaration lets through; give it, if there is one.

    Raises
    ------
    ChangedError
        If records, or the champion, were made by another declaration.
    """
    bound.log.agree()
    champion = bound.registry.champion()
    if champion is not None:
        learned = Recipe.from_json(bound.registry.store.kept(champion).recipe)
        if found := schema_differences(learned, declaration_of(bound.pipeline)):
            raise refusal(bound.pipeline.name, f"version {champion.number}, the champion", found)
    return champion
