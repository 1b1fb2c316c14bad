import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from headwater.infra.warning_filter import ignoring_warnings


def test_a_block_of_another_thread_does_not_undo_this_one() -> None:
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


def test_another_kind_is_seen() -> None:
    with ignoring_warnings(RuntimeWarning), pytest.raises(UserWarning):
        warnings.warn("another", UserWarning, stacklevel=1)
