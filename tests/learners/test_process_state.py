import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from headwater.learners.process_state import SeededGenerators, ignoring_warnings


def draws(seed: int, many: int) -> list[float]:
    with SeededGenerators(seed):
        return list(np.random.random(many))


def test_a_block_of_another_thread_waits_for_this_one() -> None:
    alone, entered = draws(1, 4), Event()

    def other() -> list[float]:
        with SeededGenerators(2):
            entered.set()
            return list(np.random.random(2))

    with ThreadPoolExecutor(1) as threads:
        with SeededGenerators(1):
            drawn = list(np.random.random(2))
            told = threads.submit(other)
            assert not entered.wait(0.2)  # where it does not wait it is in at once
            drawn += list(np.random.random(2))
        assert told.result() == draws(2, 2)
    assert drawn == alone


def test_a_block_within_a_block_draws_its_own() -> None:
    alone = draws(1, 4)
    with SeededGenerators(1):
        drawn = list(np.random.random(2))
        assert draws(2, 2) == draws(2, 2)
        drawn += list(np.random.random(2))
    assert drawn == alone


def test_a_failed_block_restores_the_generators() -> None:
    np.random.seed(3)
    expected = np.random.RandomState(3).random()
    with pytest.raises(ZeroDivisionError), SeededGenerators(1):
        raise ZeroDivisionError(np.random.random())
    assert np.random.random() == expected


def test_warnings_ignored_in_another_thread_stay_ignored_here() -> None:
    begun = Event()

    def other() -> None:
        begun.set()
        with ignoring_warnings():
            pass

    with ThreadPoolExecutor(1) as threads:
        with ignoring_warnings(UserWarning):
            ended = threads.submit(other)
            begun.wait()
            assert not ended.done()
            warnings.warn("ignored here", UserWarning, stacklevel=1)
        ended.result()
    with pytest.raises(UserWarning):  # as errors, which pytest's filters make of them
        warnings.warn("seen again", UserWarning, stacklevel=1)


def test_warnings_of_another_kind_are_seen() -> None:
    with ignoring_warnings(RuntimeWarning), pytest.raises(UserWarning):
        warnings.warn("another", UserWarning, stacklevel=1)
