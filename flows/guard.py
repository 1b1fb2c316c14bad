"""Prefect's errors, turned into an error that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from httpx import HTTPError, HTTPStatusError
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
        raise ServerError(f"Prefect at {api} refuses: {first}", hint=_hint(error)) from error


def _hint(error: Exception) -> str:
    if isinstance(error, HTTPStatusError) and error.response.status_code == 401:
        return (
            "it needs a key: that of headwater up is in operator.key of its home, which its owner alone "
            "can read; for your own Prefect set PREFECT_API_AUTH_STRING"
        )
    return "check that it runs and is of the installed version, then try again"
