"""Make a learner from the files of a version: state, recipe and proof."""

import importlib.metadata
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from msgspec import UNSET

from headwater.infra.settings import settings
from headwater.learners.learner import Learner, Schema
from headwater.learners.wrap import Adapter, wrap
from headwater.registry.proof import read_proof, verify
from headwater.spec.errors import NotRebuildableError
from headwater.spec.recipe import LearnerCode, Recipe

__all__ = ["factory_of", "fresh", "library_versions", "restore"]

_COMPUTE: dict[Adapter, tuple[str, ...]] = {
    "river": ("numpy", "river"),
    "sklearn": ("numpy", "scikit-learn", "scipy"),
    "lightgbm": ("lightgbm", "numpy"),
}


def library_versions(adapter: Adapter) -> dict[str, str]:
    """Return the versions of the libraries that compute a state, by name."""
    return {name: importlib.metadata.version(name) for name in _COMPUTE[adapter]}


def fresh(recipe: Recipe, factory: Callable[[], object] | None = None) -> Learner:
    """Make the unfitted learner that a recipe names.

    Parameters
    ----------
    recipe
        Has the task, the features, and how to learn.
    factory
        The model factory; if it is None, it is made from the stored code.
    """
    return wrap(
        Schema(recipe.task, recipe.features, () if recipe.classes is UNSET else recipe.classes),
        factory or factory_of(recipe.learner),
        batch_rows=recipe.batch_rows,
        seed=recipe.seed,
        threads=recipe.threads,
    )


def restore(
    state: bytes,
    recipe: bytes,
    proof: bytes,
    key: bytes | None = None,
    factory: Callable[[], object] | None = None,
) -> Learner:
    """Verify a stored state, then load it.

    Parameters
    ----------
    state, recipe, proof
        As stored with the version.
    key
        The signing key; by default that of the settings.
    factory
        As for :func:`fresh`.

    Raises
    ------
    DigestError
        If the signature or a hash does not hold; only the proof has been parsed then.
    NotRebuildableError
        If the state was made by another version of River or scikit-learn, whose pickles do not cross.
    """
    claimed = read_proof(proof)
    verify(key or settings().key(), claimed, claimed.pipeline, state, recipe)
    parsed = Recipe.from_json(recipe)
    _check_libraries(parsed)
    learner = fresh(parsed, factory)
    learner.load(state)
    return learner


def _check_libraries(recipe: Recipe) -> None:
    if recipe.learner.adapter == "lightgbm":
        return  # its states are LightGBM's own text
    library = {"river": "river", "sklearn": "scikit-learn"}[recipe.learner.adapter]
    made, here = recipe.libraries[library], importlib.metadata.version(library)
    if made.split(".")[:2] != here.split(".")[:2]:
        raise NotRebuildableError(
            f"the state was made with {library} {made}, and {here} is installed",
            hint=f"install {library}=={made}, or fold the recipe again with headwater train --fresh",
        )


def factory_of(code: LearnerCode) -> Callable[[], object]:
    """Make the model factory from its stored code, as a module of its old name.

    Call it only with a recipe whose signature was checked, since it runs the code.

    Raises
    ------
    NotRebuildableError
        If the code does not run here.
    """
    loaded = sys.modules.get(code.module)
    if loaded is not None and _source_of(loaded) == code.source:
        return _function(loaded, code)
    module = ModuleType(code.module)
    if loaded is None:
        sys.modules[code.module] = module  # where pickles look for classes of this module
    try:
        exec(compile(code.source, f"<kept {code.module}>", "exec"), module.__dict__)  # noqa: S102 - signed code of the user's own
    except Exception as error:
        if loaded is None:
            del sys.modules[code.module]
        raise NotRebuildableError(
            f"the kept code of {code.module!r} does not run here: {type(error).__name__}: {error}",
            hint="install what it imports; keep a model factory in a module that imports little",
        ) from error
    return _function(module, code)


def _function(module: ModuleType, code: LearnerCode) -> Callable[[], object]:
    function: Any = getattr(module, code.function, None)
    if not callable(function):
        raise NotRebuildableError(
            f"the kept code of {code.module!r} has no {code.function!r}",
            hint="the recipe is damaged; roll back to another version",
        )
    return function  # type: ignore[no-any-return] # checked to be callable


def _source_of(module: ModuleType) -> str | None:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return None
