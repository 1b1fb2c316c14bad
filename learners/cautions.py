"""Warnings that a pipeline's versions will not rebuild."""

import sys
import warnings
from collections.abc import Iterator

from headwater.learners.first_party import own_modules
from headwater.learners.learner import Learner
from headwater.learners.process_state import SeededGenerators
from headwater.learners.rebuildable import doubts, modules_of
from headwater.learners.wrap import fresh_of
from headwater.spec.errors import HeadwaterWarning, few
from headwater.spec.pipeline import Pipeline

__all__ = ["cautions_of_state", "warn_of"]


def warn_of(pipeline: Pipeline) -> tuple[HeadwaterWarning, ...]:
    """Warn if versions of a pipeline will not rebuild, before it learns anything.

    Called wherever a pipeline is checked before work: bound to its stores, deployed.

    Parameters
    ----------
    pipeline
        As declared, with a model that was checked.

    Returns
    -------
    tuple of HeadwaterWarning
        What was warned of.

    Warns
    -----
    HeadwaterWarning
        If versions will not rebuild, or need modules that are not kept.
    """
    cautions = _cautions(pipeline)
    for caution in cautions:
        warnings.warn(caution, stacklevel=3)
    return cautions


def _cautions(pipeline: Pipeline) -> tuple[HeadwaterWarning, ...]:
    with SeededGenerators(0):
        learner = fresh_of(pipeline)
    cautions = cautions_of_state(pipeline, learner)
    if not cautions:
        with SeededGenerators(0):
            again = fresh_of(pipeline)
        if learner.digest() != again.digest():
            cautions = (
                _unequal(pipeline, "two calls of its factory make different ones", "seed all it draws"),
            )
    return (*cautions, *_unkept(pipeline, modules_of(learner)))


def cautions_of_state(pipeline: Pipeline, learner: Learner) -> tuple[HeadwaterWarning, ...]:
    """Return warnings that a learner's state will not be rebuilt, by the objects that it holds."""
    return tuple(_unequal(pipeline, doubt.why, doubt.hint) for doubt in doubts(learner))


def _unequal(pipeline: Pipeline, why: str, hint: str) -> HeadwaterWarning:
    return HeadwaterWarning(
        f"versions of pipeline {pipeline.name!r} will not rebuild to the same digest: {why}", hint
    )


def _unkept(pipeline: Pipeline, beside: set[str]) -> Iterator[HeadwaterWarning]:
    factory = pipeline.model
    if factory.__module__ not in sys.modules:
        return
    own = own_modules(factory.__module__, factory.__name__, beside)
    if own:
        yield HeadwaterWarning(
            f"the model of pipeline {pipeline.name!r} needs {few(own)} beside its own module, and no "
            "version keeps that: an edit there changes how versions rebuild and load",
            f"move that code into {factory.__module__}, the module of {factory.__name__}",
        )
