"""Everything that workers need, imported once: they are forked from a process that has opened nothing.

Importing MLflow alone takes seconds, and a claim starts hundreds of processes.
"""

from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

import lightgbm
import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_workspace_store
import mlflow.store.tracking.sqlalchemy_workspace_store
import mlflow.tracing.processor.otel
import river.forest
import river.linear_model
import sklearn.linear_model
import sklearn.metrics

from headwater.loop import binding, collect, rebuild
from headwater.loop.replay import replay
from headwater.loop.training import update

__all__ = ["context"]

IMPORTED = (lightgbm, mlflow, river, sklearn, binding, collect, rebuild, replay, update)
"""What is there from the start."""


@cache
def context() -> ForkServerContext:
    """Give the context whose processes begin with all of this imported."""
    found = get_context("forkserver")
    found.set_forkserver_preload([__name__])
    return found
