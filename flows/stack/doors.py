"""The door before Prefect and MLflow under ``headwater up``, which refuses other pages and hosts.

Neither server needs a key on loopback, and their own rules are too weak. Prefect's CORS setting says
which pages may read an answer, not which may send a request, and its event sockets are open to all.
MLflow admits pages of every port of this machine, and host names that begin like a private address.
"""

from functools import lru_cache
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headwater.infra.same_origin import SameOrigin
from headwater.infra.settings import settings
from headwater.serving.api.reply import Reply
from headwater.spec.errors import ForeignRequestError

__all__ = ["Door", "MlflowHttp"]

_POLICY_VIOLATION = 1008


class Door:
    """Wraps a server's application, and refuses requests and sockets of other pages and for other hosts.

    Parameters
    ----------
    app
        The application behind the door.
    rule
        The rule by which requests are admitted.
    """

    def __init__(self, app: ASGIApp, rule: SameOrigin) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403; pass the server's start and end on, too."""
        kind = scope["type"]
        if kind in {"http", "websocket"}:
            try:
                self._rule.check(scope["headers"], link=kind == "http" and scope["method"] == "GET")
            except ForeignRequestError as error:
                if kind == "websocket":
                    await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                    return
                answer = msgspec.json.encode({"detail": str(error)})
                await Reply(403, b"application/json", answer).send(send)
                return
        await self._app(scope, receive, send)


class MlflowHttp(HttpToolsProtocol):
    """uvicorn's protocol with a :class:`Door` before the application; MLflow's command takes no other.

    The command gets it as ``--uvicorn-opts "--http headwater.flows.stack.doors:MlflowHttp --ws none"``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = Door(self.app, _mlflow_rule())


@lru_cache(maxsize=1)
def _mlflow_rule() -> SameOrigin:
    return SameOrigin(settings().served_hosts)
