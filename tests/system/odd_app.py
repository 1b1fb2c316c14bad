"""Applications of a worker that does what it should not."""

import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headwater.serving.process.worker_process import Beating


async def end(_request: Request) -> Response:
    """End the process as a model may, with the status that means a failed start to uvicorn."""
    os._exit(3)


async def stand(_request: Request) -> Response:
    """Hold the loop."""
    time.sleep(100_000)
    raise AssertionError


async def deaf(_request: Request) -> Response:
    """Ignore what ends processes, as a model may."""
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, signal.SIG_IGN)
    return PlainTextResponse("")


async def leak(_request: Request) -> Response:
    """Leave the process no file that it may open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return PlainTextResponse("")


async def pid(_request: Request) -> Response:
    """Tell which worker answers."""
    return PlainTextResponse(str(os.getpid()))


def odd() -> ASGIApp:
    """Make an application that ends, stands still, or is well."""
    ways = {"/end": end, "/stand": stand, "/pid": pid, "/deaf": deaf, "/leak": leak}
    return Beating(Starlette(routes=[Route(path, way) for path, way in ways.items()]))


def unloadable() -> ASGIApp:
    """Fail to be made, as a declaration does that does not load."""
    raise RuntimeError("it does not load")


def broken() -> ASGIApp:
    """Make an application that fails to start."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("it does not start")
        yield

    return Starlette(lifespan=lifespan)
