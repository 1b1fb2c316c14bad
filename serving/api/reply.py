"""A whole answer, before it is written."""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import Send

__all__ = ["Headers", "Reply"]

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""


class Reply(NamedTuple):
    """A whole answer: status, media type, body, and what headers it has beside those of its body."""

    status: int
    kind: bytes
    body: bytes
    headers: Headers = ()

    async def send(self, send: Send) -> None:
        """Answer an ASGI request with it."""
        length = b"%d" % len(self.body)
        headers = [(b"content-type", self.kind), (b"content-length", length), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
