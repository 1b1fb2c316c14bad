"""Transient faults: which they are, and how long a task waits before it tries again."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from headwater.spec.errors import BusyError, StorageError

__all__ = ["RETRY_AFTER_S", "TRANSIENT", "is_transient"]

TRANSIENT = (StorageError, BusyError)
"""Errors that pass by themselves: storage comes back, and a process that holds a lease ends."""

RETRY_AFTER_S = [2.0, 10.0, 30.0]
"""The seconds that a task waits after each transient fault."""


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect calls it so
    """Return whether a failed task is worth another try; Prefect asks after each failure.

    Parameters
    ----------
    task, run
        The task that failed, and its run.
    state
        Holds the exception.
    """
    return isinstance(state.result(raise_on_failure=False), TRANSIENT)
