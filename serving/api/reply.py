"""A complete reply to a request, before it is written."""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import Send

__all__ = ["Headers", "Reply"]

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
