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
from starlette.types import ASGIApp, Receive, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from storemirror.errors import ConfigError

#: How long requests under way may take once the server is to stop.
SHUTDOWN_TIMEOUT_S: Final = 10
#: Open connections at a time, silent ones too; on more, requests are answered 503.
CONNECTIONS_MAX_COUNT: Final = 10_000
#: How long the head of a request may take to come, from the connection's beginning on or, on one
#: that is kept, from the head's.
HEAD_TIMEOUT_S: Final = 10.0
#: Of a request, how much may be head, trailers and framing.
HEAD_MAX_BYTES: Final = 65_536
#: A body that comes in chunks has a few bytes of framing to each.
_FRAMING_MAX_RATIO: Final = 16
#: Bytes of bodies that are still coming, of all requests together.
BODIES_MAX_BYTES: Final = 64 * 1_048_576


class ClientDisconnected(Exception):
    """The client went away before all of its request had come."""


class BodiesFull(Exception):
    """So much of other bodies is waiting for its rest that this one has no room; answer 503."""


class BodyRoom:
    """
    Bounds what is kept of bodies that are still coming, whoever sends them.

    Who a sender is, is told once a body is whole.  One that comes at once takes no room, so that
    those who send slowly do not shut out others' ordinary calls.
    """

    def __init__(self, max_bytes: int = BODIES_MAX_BYTES) -> None:
        """Begin empty."""
        self._max_bytes = max_bytes
        #: Bytes that are kept.
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take room; BodiesFull: there is none, and none was taken."""
        if self.held_bytes + size_bytes > self._max_bytes:
            raise BodiesFull
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Leave room that was taken."""
        self.held_bytes -= size_bytes


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    connections_max_count: int = CONNECTIONS_MAX_COUNT,
    head_timeout_s: float = HEAD_TIMEOUT_S,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """
    Listen until `stop` is set; requests under way are answered first, in `SHUTDOWN_TIMEOUT_S`.

    Args:
        app: answers requests.
        host: address to listen on.
        port: 0 takes a free one.
        stop: ends it.
        connections_max_count: see `CONNECTIONS_MAX_COUNT`.  How many requests may be under way is
            the application's to say: who is silent must take no place from who is not.
        head_timeout_s: see `HEAD_TIMEOUT_S`; the connection is closed then.
        on_listening: told the port, once connections are taken.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    with listening(host, port, backlog=connections_max_count) as listener:
        if on_listening is not None:
            on_listening(listener.getsockname()[1])
        http = _http_within(head_timeout_s)
        server = _Server(_config(app, http, connections_max_count))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            await serving


def headers_of(scope: Scope) -> dict[str, str]:
    """Give a request's headers, names in lower case; of one that is repeated, the first."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


async def body_of(
    receive: Receive, *, max_bytes: int, kept_bytes: int = 0, room: BodyRoom | None = None
) -> tuple[bytes, int]:
    """
    Read a request's body; gives what of it is kept, and how many bytes it had.

    Args:
        receive: of a request whose body was not read yet.
        max_bytes: a longer one is read and dropped: unread, the answer would not arrive.
        kept_bytes: how much of the beginning of a longer one is kept.
        room: for what has come while the rest is waited for; None: without bounds.

    Raises:
        ClientDisconnected: the client went away before all of it had come.
        BodiesFull: `room` is full; the rest was not read.
    """
    size_bytes = held_bytes = 0
    chunks: list[bytes] = []
    has_more = True
    try:
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk: bytes = message.get("body", b"")
            has_more = message.get("more_body", False)
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                continue
            if has_more and room is not None:
                room.take(len(chunk))
                held_bytes += len(chunk)
            chunks.append(chunk)
    finally:
        if room is not None:
            room.give_back(held_bytes)
    body = b"".join(chunks)
    return (body if size_bytes <= max_bytes else body[:kept_bytes]), size_bytes


def _config(app: ASGIApp, http: type[BoundedHttp], connections_max_count: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=connections_max_count,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


class BoundedHttp(HttpToolsProtocol):
    """
    Bounds a head in size and time: the parser keeps in memory whatever comes of it.

    Uvicorn bounds neither, and drops its own timer of a kept connection at the first byte.
    """

    head_timeout_s = HEAD_TIMEOUT_S
    _head_bytes = 0
    #: Runs while a head is waited for.
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see how much of it was no body."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """Wait for the rest of the head, of a connection that was kept too."""
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Take the head for whole."""
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take note of what is body."""
        self._head_bytes -= (1 + _FRAMING_MAX_RATIO) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin anew for the next request."""
        self._head_bytes = 0
        super().on_message_complete()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up_head)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up_head(self) -> None:
        # While one request is answered the next one's head may be left unread by ourselves.
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]
            self._await_head()
        else:
            self.transport.close()


def _http_within(timeout_s: float) -> type[BoundedHttp]:
    """Give the protocol with a limit of its own; uvicorn makes one a connection, of its class."""

    class Http(BoundedHttp):
        head_timeout_s = timeout_s

    return Http


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
