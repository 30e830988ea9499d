"""Serving the application: one process, on one address, until it is told to end."""

import socket

import uvicorn
from starlette.types import ASGIApp


def server_of(app: ASGIApp, host: str, port: int) -> uvicorn.Server:
    """A server for the application; ``run`` serves until a signal or ``should_exit`` ends it.

    Requests are not logged: what is searched for is nobody's business but the asker's.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=32 << 10,
            http="h11",
            loop="asyncio",
            ws="none",
            proxy_headers=False,
        )
    )


def listening_on(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises:
        OSError: The address is in use, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host.strip("[]"), port), family=family, backlog=64)
    listener.set_inheritable(True)
    return listener
