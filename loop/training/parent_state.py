"""Load the state of a version; one that is damaged or gone is folded again, and put back."""

import warnings
from collections.abc import Callable

from headwater.features.read.log_reader import LogReader
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.loop.training.fold import fold
from headwater.registry.mlflow_store.versions import VersionStore
from headwater.registry.restore import library_versions
from headwater.registry.version import Version
from headwater.spec.errors import (
    DigestError,
    HeadwaterError,
    HeadwaterWarning,
    IntegrityError,
    NotRebuildableError,
    StorageError,
)

__all__ = ["learned_state", "refolded"]


def learned_state(bound: Bound, version: Version) -> Learner:
    """Return the learner of a version, from its stored state or, if that is damaged, from the log.

    A state that was folded again has the digest that was registered, and takes the damaged one's place.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    version
        The version.

    Warns
    -----
    HeadwaterWarning
        If the state was damaged.

    Raises
    ------
    DigestError, StorageError, NotRebuildableError
        If the state cannot be loaded, and its recipe is damaged too, or cannot be folded here; the
        error says why the state does not load.
    """
    store, factory = bound.registry.store, bound.pipeline.model
    try:
        return store.learner(version, factory)
    except (DigestError, StorageError) as error:
        try:
            learner = refolded(store, bound.log, version, factory)
        except HeadwaterError as again:
            hint = f"{error.hint}; its recipe cannot be folded again either: {again.what}"
            raise type(error)(error.what, hint) from again
    store.put_back(version, learner.dump())
    what = f"the state of version {version.number} was damaged: it was folded again, to the same digest"
    warnings.warn(HeadwaterWarning(what, "check the disk on which MLflow keeps it"), stacklevel=2)
    return learner


def refolded(
    store: VersionStore,
    log: LogReader,
    version: Version,
    factory: Callable[[], object] | None = None,
) -> Learner:
    """Fold the recipe of a version again, from its nearest ancestor whose state holds.

    Parameters
    ----------
    store, log
        The versions and the examples.
    version
        The version; its recipe must hold.
    factory
        Makes the estimator; if it is None, the stored code does.

    Raises
    ------
    DigestError
        If a recipe is damaged.
    NotRebuildableError
        If libraries are not those of the recipe, or the state that comes out is another one.
    NotFoundError, TableError, StorageError
        If examples are damaged, or a store is away.
    """
    recipe = store.recipe(version)
    here = library_versions(recipe.learner.adapter)
    if here != recipe.libraries:
        raise NotRebuildableError(
            f"version {version.number} was computed by other libraries than are installed",
            hint="train in an environment with the versions of its recipe, or roll back",
        )
    base = None
    if recipe.parent is not None:
        parent = store.get(recipe.parent)
        try:
            base = store.learner(parent, factory)
        except (IntegrityError, StorageError):
            base = refolded(store, log, parent, factory)
    learner, _ = fold(recipe, log, base)
    if learner.digest() != version.digest:
        raise NotRebuildableError(
            f"version {version.number} folds to another state than was registered",
            hint="roll back to an earlier version",
        )
    return learner
