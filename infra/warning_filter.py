"""Silence warnings of libraries for a block, in one thread at a time."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ignoring_warnings"]

# The filters belong to the whole process: a block that ends in one thread would put back those that
# another thread's block has replaced meanwhile.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def ignoring_warnings(category: type[Warning] = Warning, module: str = "") -> Iterator[None]:
    """Ignore warnings until the block ends; another thread's block waits.

    Parameters
    ----------
    category, module
        Of which kind, and from modules whose names begin so; all where not given.

    Examples
    --------
    >>> import warnings
    >>> with ignoring_warnings(RuntimeWarning):
    ...     warnings.warn("an exact p value was given up", RuntimeWarning)
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=category, module=module)
        yield
