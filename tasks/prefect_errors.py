"""Which faults pass by themselves, and how long a task waits for that."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from headwater.spec.errors import BusyError, StorageError

__all__ = ["RETRY_AFTER_S", "TRANSIENT", "is_transient"]

TRANSIENT = (StorageError, BusyError)
"""Storage that is away comes back, and a process that holds a lease ends."""

RETRY_AFTER_S = [2.0, 10.0, 30.0]
"""How long a task waits after each transient fault."""


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect calls it so
    """Say whether a failed task is worth another try; Prefect asks after each failure.

    Parameters
    ----------
    task, run
        What failed.
    state
        Holds the exception.
    """
    return isinstance(state.result(raise_on_failure=False), TRANSIENT)
