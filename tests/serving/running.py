"""An application behind a real socket, in a thread of this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp
from tests.patience import PATIENCE_S

from headwater.serving.http.fast_protocol import FastProtocol


@contextmanager
def running(app: ASGIApp) -> Iterator[httpx.Client]:
    """Serve until the block ends; yield a client of the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=FastProtocol, ws="none", log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        # The socket listens already: the first request waits until the application has started.
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
