"""Send calls: retry after a transient failure, and read the answer as a result or a headwater error."""

import random
import sys
from typing import Protocol, TypeVar

import httpx
import msgspec

from headwater.serving.api.problems import Problem, error_of
from headwater.serving.client.calls import Call
from headwater.spec.errors import HeadwaterError, StorageError

__all__ = ["AsyncSend", "RetryPolicy", "Send", "read_answer", "trace_headers", "unreachable"]

_RETRIED = {408, 425, 429, 502, 503, 504}
_FIRST_WAIT_S = 0.05
_MOST_WAIT_S = 2.0
Found = TypeVar("Found")


class Send(Protocol):
    """Sends a call, and waits for its answer."""

    def __call__(self, call: Call[Found], /) -> Found:
        """Return the answer; raise the error of the service."""


class AsyncSend(Protocol):
    """Sends a call from an event loop."""

    async def __call__(self, call: Call[Found], /) -> Found:
        """Return the answer; raise the error of the service."""


class RetryPolicy:
    """Decides whether and when a call is sent again.

    Parameters
    ----------
    retries
        The largest number of retries.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def pause_s(self, attempt: int, answer: httpx.Response | None) -> float | None:
        """Return the seconds to wait before another attempt; None if there is none."""
        if attempt >= self._retries or (answer is not None and answer.status_code not in _RETRIED):
            return None
        retry_after = "" if answer is None else answer.headers.get("retry-after", "")
        if retry_after.isdigit():
            return min(float(retry_after), _MOST_WAIT_S)
        longest = min(_MOST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
        return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing


def trace_headers() -> dict[str, str]:
    """Return headers that continue the caller's trace, if there is one (W3C trace context)."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.propagate import inject  # noqa: PLC0415 - only beside what is there already

        inject(headers)
    return headers


def read_answer(answer: httpx.Response, kind: type[Found]) -> Found:
    """Return a call's result.

    Raises
    ------
    HeadwaterError
        The error of the service.
    """
    if answer.is_success:
        return msgspec.json.decode(answer.content, type=kind)
    try:
        problem = msgspec.json.decode(answer.content, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        what = f"the service answered {answer.status_code} without a problem document"
        raise HeadwaterError(what) from None
    raise error_of(problem)


def unreachable(failure: Exception | None) -> StorageError:
    """Return the error of a service that does not answer."""
    return StorageError(
        f"the service cannot be reached: {failure or 'it is busy'}",
        hint="start it, or check the address: headwater serve",
    )
