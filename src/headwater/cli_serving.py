"""Commands of the service."""

import os
import sys
from typing import Annotated

import typer

from headwater.screen import show_lines
from headwater.spec.errors import DeclarationError

__all__ = ["commands"]

commands = typer.Typer()

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@commands.command()
def serve(
    pipelines: Annotated[
        list[str], typer.Argument(metavar="PIPELINE...", help="module:attribute or path.py:attribute")
    ],
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer; one a core is usual")
    ] = min(2, os.cpu_count() or 1),
) -> None:
    """Serve pipelines over HTTP: predict, log, label.

    Each serves its champion; a new one is swapped in between two requests. Ctrl-C drains, then ends.
    kill -HUP replaces the workers one by one.

    Try it: curl localhost:8000/docs
    """
    from headwater.infra.settings import settings  # noqa: PLC0415
    from headwater.serving.server import bind  # noqa: PLC0415
    from headwater.serving.server import serve as serve_now  # noqa: PLC0415
    from headwater.spec.loading import load_pipeline  # noqa: PLC0415

    if host not in _LOOPBACK:
        raise DeclarationError(
            f"--host {host} would let other machines in, and there are no keys yet",
            hint="listen on 127.0.0.1, behind a proxy that asks for keys",
        )
    names = [load_pipeline(reference).name for reference in pipelines]
    if len(set(names)) < len(names):
        raise DeclarationError(f"a pipeline is named twice among {names}", hint="name each once")
    listening = bind(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}"
    show_lines([f"serving {', '.join(names)} at {address}; {address}/docs tells how. Ctrl-C ends it."])
    sys.stdout.flush()
    serve_now(pipelines, listening, workers, settings())
