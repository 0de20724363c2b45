"""The HTTP server of ``poleng serve``: uvicorn, with the limits of ``connections.py``."""

from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from poleng_assets.serving.connections import BoundedProtocol, Connections, Reason, make_room

GOODBYE_SECONDS = 10
IDLE_SECONDS = 5


def build_server(app: ASGIApp, refused: Callable[[Reason], None]) -> uvicorn.Server:
    """Return a server that runs with ``run([listening])``; see also :func:`make_room`.

    Args:
        refused: called with the reason when a connection is closed before a request.
    """
    room = make_room()
    config = uvicorn.Config(
        app,
        http=partial(BoundedProtocol, connections=Connections(room, refused)),  # type: ignore[arg-type]
        ws="none",
        access_log=False,  # the times of requests are personal data as well
        server_header=False,
        proxy_headers=False,
        log_level="error",  # a line for each invalid request could fill a disk
        log_config=None,
        backlog=room.queue,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    return uvicorn.Server(config)
