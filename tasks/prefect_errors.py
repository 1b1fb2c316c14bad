"""Transient faults: which they are, and how a task waits for their end; one policy for all tasks."""

from collections.abc import Callable
from typing import Any, TypedDict

from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun

from headwater.spec.errors import BusyError, StorageError

__all__ = ["RETRIED", "TRANSIENT", "TaskRetries", "is_transient", "retried_after"]

TRANSIENT = (StorageError, BusyError)
"""Errors that pass by themselves: storage comes back, and a process that holds a lease ends."""


class TaskRetries(TypedDict):
    """The options of a task that is tried again after a transient fault; its result is not cached."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Callable[[Task[..., Any], TaskRun, State[Any]], bool]
    cache_policy: CachePolicy


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


def retried_after(*delays_s: float) -> TaskRetries:
    """Return the policy that waits so long after each transient fault."""
    return {
        "retries": len(delays_s),
        "retry_delay_seconds": list(delays_s),
        "retry_condition_fn": is_transient,
        "cache_policy": NO_CACHE,
    }


RETRIED = retried_after(2.0, 10.0, 30.0)
"""The policy of every task."""
