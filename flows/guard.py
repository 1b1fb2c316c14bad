"""Prefect's errors, turned into an error that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from httpx import HTTPError
from prefect.exceptions import PrefectHTTPStatusError

from headwater.spec.errors import ServerError

__all__ = ["guarded"]


@contextmanager
def guarded(api: str) -> Iterator[None]:
    """Turn refusals of Prefect's server into a :class:`~headwater.spec.errors.ServerError`.

    Parameters
    ----------
    api
        Address of its API.
    """
    try:
        yield
    except (HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ServerError(
            f"Prefect at {api} refuses: {first}",
            hint="check that it runs and is of the installed version, then try again",
        ) from error
