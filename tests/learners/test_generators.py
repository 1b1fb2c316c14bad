from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from headwater.learners.generators import SeededGenerators


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
