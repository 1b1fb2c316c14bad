"""Import the libraries of the workers once, in the process from which the workers are forked.

The imports take seconds. That process opens nothing and starts nothing, so that a fork of it is as good
as a fresh process. It does not import the pipelines' own files: a worker that replaces another loads
them as they are by then.
"""

from contextlib import suppress
from importlib import import_module

from headwater.serving.process import app

__all__ = ["PRELOADED"]

_LIBRARIES = (
    "lightgbm",
    "river.compose",
    "river.linear_model",
    "river.preprocessing",
    "river.proba",
    "sklearn.base",
)

PRELOADED = [app]
"""The imported modules: the application, and the extras that are installed."""

for _name in _LIBRARIES:
    with suppress(ImportError):
        PRELOADED.append(import_module(_name))
