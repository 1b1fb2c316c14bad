"""Cross-origin resource sharing: pages of the hosts in ``HEADWATER_HOSTS`` may read answers.

A browser lets a page send to another server what a form can send, and lets it read nothing, unless that
server says so. Before a page sends JSON, a key or a ``PUT``, the browser asks for leave (a preflight).

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

import re

from starlette.types import Message, Send

from headwater.infra.same_origin import SameOrigin
from headwater.serving.api.operations import OPERATIONS
from headwater.serving.api.reply import Headers, Reply

__all__ = ["CrossOrigin"]

_METHODS = ", ".join(sorted({row.method for row in OPERATIONS})).encode()
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
_REMEMBERED_S = b"600"
_READABLE = b"retry-after, www-authenticate, inference-header-content-length"
_BY_ORIGIN = (b"vary", b"origin")


class CrossOrigin:
    """Answers preflights, and marks answers that a page elsewhere may read.

    Parameters
    ----------
    rule
        Knows whose pages those are.
    """

    def __init__(self, rule: SameOrigin) -> None:
        self._rule = rule

    def preflight(self, method: str, headers: Headers) -> Reply | None:
        """Return the answer to a preflight of a listed page; None for any other request."""
        if method != "OPTIONS":
            return None
        sent = dict(headers)
        origin = self._listed(headers)
        if origin is None or b"access-control-request-method" not in sent:
            return None
        given = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", _REMEMBERED_S),
            _BY_ORIGIN,
        ]
        names = sent.get(b"access-control-request-headers", b"")
        if _NAMES.fullmatch(names):
            given.append((b"access-control-allow-headers", names))
        return Reply(200, b"text/plain", b"", given)

    def share(self, reply: Reply, headers: Headers) -> Reply:
        """Return a reply with the headers by which the page that asked may read it."""
        return reply._replace(headers=[*reply.headers, *self._given(headers)])

    def sharing(self, headers: Headers, send: Send) -> Send:
        """Return what sends an answer with those headers."""
        given = self._given(headers)

        async def shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *given]}
            await send(message)

        return shared

    def _given(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        origin = self._listed(headers)
        if origin is None:
            return [_BY_ORIGIN]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _READABLE),
            _BY_ORIGIN,
        ]

    def _listed(self, headers: Headers) -> bytes | None:
        """Return the origin of a request, if it is one page of a listed host."""
        origins = [value for name, value in headers if name == b"origin"]
        return origins[0] if len(origins) == 1 and self._rule.lists_page(origins[0]) else None
