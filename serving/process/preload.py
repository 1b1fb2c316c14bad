"""What a worker imports, which takes seconds: imported once, where the workers are forked from.

That process opens nothing and starts nothing, so that a fork of it is as good as a fresh process. The
pipelines' own files are not among it: a worker that replaces another one loads them as they are by then.
"""

from contextlib import suppress
from importlib import import_module

from headwater.serving.process import app

__all__ = ["FOUND"]

_LIBRARIES = (
    "lightgbm",
    "river.compose",
    "river.linear_model",
    "river.preprocessing",
    "river.proba",
    "sklearn.base",
)

FOUND = [app]
"""What is there from the start: the application, and as much of the extras as is installed."""

for _name in _LIBRARIES:
    with suppress(ImportError):
        FOUND.append(import_module(_name))
