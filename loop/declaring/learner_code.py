"""The code that makes a pipeline's estimator, as versions keep it."""

import inspect
import sys

from msgspec import UNSET

from headwater.features.values.projection import function_beside
from headwater.learners.parameters import parameters_of
from headwater.learners.wrap import Adapter
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode

__all__ = ["learner_code"]


def learner_code(pipeline: Pipeline, adapter: Adapter) -> LearnerCode:
    """Take the text of the factory's module, if it can run again elsewhere.

    Parameters
    ----------
    pipeline, adapter
        Whose factory, and what wraps the estimator that it makes.

    Raises
    ------
    DeclarationError
        If it is made in a script or a notebook, or its text is not there; if a feature names a function
        that is not there.
    """
    factory = pipeline.model
    for feature in pipeline.features:
        for name in (feature.fill, feature.convert):
            if name is not UNSET:
                function_beside(factory, name)
    module = sys.modules.get(factory.__module__)
    hint = f"put {factory.__name__} and the pipeline into a file of their own, and import or name that"
    if factory.__module__ == "__main__":
        raise DeclarationError(
            f"the model of pipeline {pipeline.name!r} is made in a script or a notebook: "
            "a rebuild would run all of it again",
            hint,
        )
    try:
        source = inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        source = ""
    if not source or getattr(module, factory.__name__, None) is None:
        raise DeclarationError(
            f"the model of pipeline {pipeline.name!r} cannot be kept: the text of module "
            f"{factory.__module__!r} is not there, or has no {factory.__name__}",
            hint,
        )
    return LearnerCode(
        module=factory.__module__,
        function=factory.__name__,
        source=source,
        adapter=adapter,
        parameters=parameters_of(factory),
    )
