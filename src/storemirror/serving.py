"""
Serving HTTP: one ASGI application on one port, until it is told to stop.

What the trigger receiver and the gateway have in common; what they answer is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp

from storemirror.errors import ConfigError

#: How long requests under way may take once the server is to stop.
SHUTDOWN_TIMEOUT_S: Final = 10


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    requests_max_count: int,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """
    Listen until `stop` is set; requests under way are answered first, in `SHUTDOWN_TIMEOUT_S`.

    Args:
        app: answers requests.
        host: address to listen on.
        port: 0 takes a free one.
        stop: ends it.
        requests_max_count: under way at a time; more are answered 503.
        on_listening: told the port, once connections are taken.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    with listening(host, port, backlog=requests_max_count) as listener:
        if on_listening is not None:
            on_listening(listener.getsockname()[1])
        server = _Server(_config(app, requests_max_count))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            await serving


async def body_of(request: Request, *, max_bytes: int, kept_bytes: int = 0) -> tuple[bytes, int]:
    """
    Read a request's body; gives what of it is kept, and how many bytes it had.

    Args:
        request: whose body was not read yet.
        max_bytes: a longer one is read and dropped: unread, the answer would not arrive.
        kept_bytes: how much of the beginning of a longer one is kept.

    Raises:
        starlette.requests.ClientDisconnect: the client went away before all of it had come.
    """
    size_bytes = 0
    chunks: list[bytes] = []
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes <= max_bytes:
            chunks.append(chunk)
    body = b"".join(chunks)
    return (body if size_bytes <= max_bytes else body[:kept_bytes]), size_bytes


def _config(app: ASGIApp, requests_max_count: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=requests_max_count,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


class _Server(uvicorn.Server):
    """Leaves signals to the command line, which sets `stop`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


@contextlib.contextmanager
def listening(host: str, port: int, *, backlog: int) -> Iterator[socket.socket]:
    """Lend a socket that listens; ConfigError: the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=backlog)
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"cannot listen on {host} port {port}: {exc}") from exc
    with listener:
        # Handed down to connections.  asyncio sets it only where a socket names its protocol, and
        # without it an answer's body waits 40 ms for the receipt of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener
