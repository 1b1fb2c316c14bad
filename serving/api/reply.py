"""A complete reply to a request, before it is written."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from starlette.responses import Response
from starlette.types import Send

from headwater.serving.api.problems import FAILED, PROBLEM_TYPE, problem_of
from headwater.spec.errors import HeadwaterError

__all__ = ["Headers", "Reply", "json_response", "refusal"]

Headers = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, with their values."""


class Reply(NamedTuple):
    """A complete reply: status, media type, body, and headers beside those of the body."""

    status: int
    kind: bytes
    body: bytes
    headers: Headers = ()

    async def send(self, send: Send) -> None:
        """Send it as the answer to an ASGI request."""
        length = b"%d" % len(self.body)
        headers = [(b"content-type", self.kind), (b"content-length", length), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_response(answer: object, status: int = 200, kind: str = "application/json") -> Response:
    """Return a response that holds an answer as JSON."""
    return Response(msgspec.json.encode(answer), status, media_type=kind)


def refusal(error: Exception) -> Response:
    """Return the problem document of an error; of one that is none of ours, that the service failed."""
    problem = problem_of(error) if isinstance(error, HeadwaterError) else FAILED
    answer = json_response(problem, problem.status, PROBLEM_TYPE.decode())
    if problem.status == 503:
        answer.headers["retry-after"] = "1"
    return answer
