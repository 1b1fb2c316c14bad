"""Prefect's server with a door, as ``headwater up`` starts it.

``python -m headwater.flows.stack.prefect_server PORT`` does what ``prefect server start`` does on
loopback, which takes no door.
"""

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from headwater.flows.stack.doors import Door
from headwater.infra.same_origin import Host, SameOrigin
from headwater.infra.settings import settings

__all__ = ["main"]


def main(port: int) -> None:
    """Serve Prefect's API and pages on loopback until SIGTERM or SIGINT.

    Parameters
    ----------
    port
        The port.
    """
    own = (
        Host(name, str(port)) for name in ("127.0.0.1", "localhost")
    )  # its pages ask the first of them
    server = get_current_settings().server
    uvicorn.run(
        Door(create_app(final=True), SameOrigin([*own, *settings().served_hosts])),
        host="127.0.0.1",
        port=port,
        timeout_keep_alive=server.api.keepalive_timeout,
        log_level=server.logging_level.lower(),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
