"""
An HTTP client that costs little: what asks shares two cores with what answers.

Kept connections, one request at a time on each, answers in full.  A client made for comfort took
a third of the processor time of the call that was measured.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import httptools


class HttpClient:
    """Posts to one server.  Made by `connected`."""

    def __init__(self, host: str, port: int) -> None:
        """Connect to nothing yet."""
        self._host = host
        self._port = port
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """
        Send a request as it is; gives the answer's status and body.

        Raises:
            ConnectionError: the server hung up.
        """
        # The server hangs up on those that were idle for some seconds.
        self._idle = [connection for connection in self._idle if connection.is_open]
        connection = self._idle.pop() if self._idle else await self._connect()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Hang up."""
        for connection in self._all:
            connection.close()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        self._all.append(connection)
        return connection


@contextlib.asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[HttpClient]:
    """Lend a client."""
    client = HttpClient(host, port)
    try:
        yield client
    finally:
        client.close()


def post(path: str, headers: str, body: bytes) -> bytes:
    """
    Write a request down.

    Args:
        path: with its slash.
        headers: a line each, every one ended by CRLF.
        body: of a known length.
    """
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Of no class of asyncio's: libuv's has the same methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("the server hung up"))

    # What the parser calls

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        assert self._answered is not None
        answer = (self._parser.get_status_code(), b"".join(self._chunks))
        self._begin()
        self._answered.set_result(answer)
