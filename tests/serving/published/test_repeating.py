"""A thread that repeats steps: it logs their errors and goes on, and the block's end ends it at once."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from tests.patience import await_

from headwater.serving.published.repeating import Repeating
from headwater.spec.errors import StorageError

LOGGER = logging.getLogger("headwater.tests.repeating")


class Step:
    """A step that counts, and fails as it is told."""

    def __init__(self) -> None:
        self.taken = 0
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.taken += 1
        if self.error is not None:
            raise self.error

    def await_more(self) -> None:
        """Wait for a whole further turn."""
        before = self.taken
        await_(lambda: self.taken > before + 1)


def repeating(*steps: Callable[[], object], every_s: float = 0.001) -> Repeating:
    named = {f"what step {place} did stays": step for place, step in enumerate(steps)}
    return Repeating("repeats", every_s, named, LOGGER)


def named_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "repeats"]


def test_steps_are_repeated_until_the_block_ends() -> None:
    first, second = Step(), Step()
    with repeating(first, second):
        first.await_more()
        second.await_more()
    assert named_threads() == []
    assert first.taken == second.taken


def test_the_block_ends_at_once_however_long_the_wait() -> None:
    began_s = time.monotonic()
    with repeating(Step(), every_s=10_000):
        assert named_threads() == ["repeats"]
    assert time.monotonic() - began_s < 5_000
    assert named_threads() == []


def test_without_a_step_there_is_no_thread() -> None:
    with repeating():
        assert named_threads() == []


@pytest.mark.parametrize("error", [StorageError("the database is away"), OSError("away"), KeyError("a")])
def test_an_error_ends_neither_the_thread_nor_another_step(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = Step(), Step()
    broken.error = error
    with repeating(broken, good):
        broken.await_more()
        good.await_more()
    (logged,) = caplog.records
    assert logged.message.startswith(f"what step 0 did stays: {error}")
    assert bool(logged.exc_info) is isinstance(error, KeyError)  # a bug is shown with its place


def test_an_error_is_logged_once_until_it_changes_or_the_step_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = Step()
    with repeating(step):
        for text in ("away", "full", None, "full"):
            step.error = None if text is None else StorageError(text)
            step.await_more()
    assert [one.message.partition(": ")[2] for one in caplog.records] == ["away.", "full.", "full."]


def test_steps_can_be_taken_before_and_after_the_block(caplog: pytest.LogCaptureFixture) -> None:
    step = Step()
    step.error = StorageError("away")
    repeats = repeating(step, every_s=10_000)
    repeats.take_each()
    with repeats:
        pass
    repeats.take_each()
    assert step.taken == 2
    assert len(caplog.records) == 1
