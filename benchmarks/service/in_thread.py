"""An application that answers on loopback from a thread of this process."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

__all__ = ["answering"]


@contextmanager
def answering(app: ASGIApp, protocol: type[asyncio.Protocol] | Literal["httptools"]) -> Iterator[int]:
    """Serve an application until the block ends; yield its port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    config = uvicorn.Config(app, http=protocol, ws="none", access_log=False, log_level="error")
    server = uvicorn.Server(config)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(server.run, [listening])
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
    ended.result()
