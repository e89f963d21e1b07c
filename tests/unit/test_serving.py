"""How HTTP is served: what comes over a connection, and how much of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from storemirror.serving import (
    HEAD_MAX_BYTES,
    HEAD_TIMEOUT_S,
    BodiesFull,
    BodyRoom,
    ClientDisconnected,
    body_of,
    headers_of,
    listening,
    serve,
)

_BODY_MAX_BYTES = 1_000_000


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the number of headers and of the body's bytes."""
    _, size_bytes = await body_of(receive, max_bytes=_BODY_MAX_BYTES)
    told = f"{len(headers_of(scope))} headers, {size_bytes} bytes".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})


@contextlib.asynccontextmanager
async def _listening(head_timeout_s: float = HEAD_TIMEOUT_S) -> AsyncIterator[int]:
    """Lend a server's port."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(
            _echo,
            "127.0.0.1",
            0,
            stop,
            head_timeout_s=head_timeout_s,
            on_listening=port.set_result,
        )
    )
    yield await port
    stop.set()
    await serving


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Lend a connection to a server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def _served(
    head_timeout_s: float = HEAD_TIMEOUT_S,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Lend a connection to a server of its own."""
    async with _listening(head_timeout_s) as port, _connected(port) as connection:
        yield connection


async def _asked(*parts: bytes) -> bytes:
    """Send what the parts say, and give all that is answered until the server hangs up."""
    async with _served() as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        answered = b""
        with contextlib.suppress(ConnectionError):
            answered = await reader.read()
        return answered


def _head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"host: x", b"connection: close", *lines, b"", b""])


def test_connections_send_at_once_what_they_are_handed() -> None:
    """An answer's head and body go out one by one: the body waited 40 ms for the head's receipt."""
    with (
        listening("127.0.0.1", 0, backlog=1) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        taken, _ = listener.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


#: So long that a busy machine has read a whole head by then.
HEAD_S = 1.0
_ENDLESS = 16 * HEAD_MAX_BYTES


@pytest.mark.parametrize(
    ("begun", "repeated"),
    [
        pytest.param(_head()[:-2] + b"x-long: ", b"a", id="one-header"),
        pytest.param(_head()[:-2], b"x-some: a\r\n", id="many-headers"),
        pytest.param(b"POST /", b"a", id="path"),
        pytest.param(
            _head(b"transfer-encoding: chunked") + b"1\r\na\r\n0\r\n",
            b"x-some: a\r\n",
            id="trailers",
        ),
    ],
)
async def test_a_head_without_an_end_is_refused(begun: bytes, repeated: bytes) -> None:
    """Whatever the parser is sent of it stays in memory, and anybody can send it."""
    piece = repeated * (8_192 // len(repeated))
    answered = await _asked(begun, *[piece] * (_ENDLESS // len(piece)))
    # What the server has not read when it hangs up may cost its last words.
    assert answered == b"" or answered.startswith(b"HTTP/1.1 400 "), answered[:80]


async def test_a_large_body_is_no_head() -> None:
    """A body may be larger than what a head may be, whole or in small pieces."""
    body = b"b" * 4 * HEAD_MAX_BYTES
    length = b"content-length: %d" % len(body)
    assert b"4 headers" in await _asked(_head(length, b"x-one: 1"), body)
    answered = await _asked(
        _head(b"transfer-encoding: chunked"),
        *[b"4\r\n" + b"b" * 4 + b"\r\n"] * 2 * (HEAD_MAX_BYTES // 8),
        b"0\r\n\r\n",
    )
    assert answered.endswith(b"3 headers, 65536 bytes\r\n0\r\n\r\n"), answered


async def test_each_request_of_a_connection_has_a_head_of_its_own() -> None:
    """A connection is kept for many requests, whose heads together may be of any size."""
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nx: " + b"a" * 40_000 + b"\r\n\r\n"
    last = _head(b"content-length: 0")
    answered = await _asked(head + b"ab", head + b"ab", head + b"ab", last)
    assert answered.count(b"200 OK") == 4


@pytest.mark.parametrize(
    "begun", [b"", b"P", _head()[:-2] + b"x-some: a\r\n"], ids=["silent", "one-byte", "no-end"]
)
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    """A connection costs its holder nothing, and whoever holds enough shuts out all others."""
    async with _served(head_timeout_s=0.05) as (reader, writer):
        writer.write(begun)
        assert await reader.read() == b""


async def test_a_kept_connections_next_head_is_not_waited_for_either() -> None:
    """The server's timer for kept connections ends with the first byte of the next request."""
    async with _served(head_timeout_s=HEAD_S) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(b"POST / HT")
        assert await reader.read() == b""


async def test_a_body_may_take_longer_than_a_head() -> None:
    """How long a body is waited for is the application's to say; the next head waits its turn."""
    async with _listening(head_timeout_s=HEAD_S) as port, _connected(port) as (reader, writer):
        writer.write(_head(b"content-length: 2"))
        async with _connected(port) as (silent, _):
            # Its time began later, and is over.
            assert await silent.read() == b""
        writer.write(b"ab")
        assert b"2 bytes" in await reader.read()


class Sent:
    """A request's body, in the pieces in which it comes; None: the client goes away."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = list(pieces)

    async def receive(self) -> MutableMapping[str, Any]:
        piece = self._pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}


class Unfinished(Sent):
    """A body whose last piece does not come before it is let go on."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(*pieces, b"")
        self.is_waited_for, self.goes_on = asyncio.Event(), asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        if len(self._pieces) == 1:
            self.is_waited_for.set()
            await self.goes_on.wait()
        return await super().receive()


async def test_bodies_that_are_still_coming_have_a_bound_together() -> None:
    """Ten thousand connections would keep gigabytes of people who prove nothing (issue 7)."""
    room = BodyRoom(1_000)
    slow = Unfinished(b"s" * 900)
    reading = asyncio.create_task(body_of(slow.receive, max_bytes=2_000, room=room))
    await slow.is_waited_for.wait()
    with pytest.raises(BodiesFull):
        await body_of(Sent(b"b" * 101, b"").receive, max_bytes=2_000, room=room)
    assert await body_of(Sent(b"b" * 100, b"c").receive, max_bytes=2_000, room=room)
    slow.goes_on.set()
    assert await reading == (b"s" * 900, 900)
    assert room.held_bytes == 0


async def test_a_body_that_comes_at_once_needs_no_room() -> None:
    """Who sends slowly shuts out nobody whose call is as short as calls are."""
    assert await body_of(Sent(b"whole").receive, max_bytes=9, room=BodyRoom(0)) == (b"whole", 5)


@pytest.mark.parametrize(
    ("pieces", "error"),
    [((b"a" * 9, b"b", None), ClientDisconnected), ((b"a" * 9, b"b" * 9, b""), BodiesFull)],
)
async def test_a_body_that_does_not_come_gives_its_room_back(
    pieces: tuple[bytes | None, ...], error: type[Exception]
) -> None:
    """Else the room is full one day, and stays so."""
    room = BodyRoom(10)
    with pytest.raises(error):
        await body_of(Sent(*pieces).receive, max_bytes=99, room=room)
    assert room.held_bytes == 0


async def test_what_is_dropped_of_a_long_body_takes_no_room() -> None:
    """It is read so that the answer arrives."""
    sent = Sent(b"a" * 9, b"b" * 99, b"c" * 99)
    assert await body_of(sent.receive, max_bytes=10, room=BodyRoom(10)) == (b"", 207)


async def test_a_header_that_is_repeated_counts_once() -> None:
    """What one part of a chain checked must not be another line than what the next one uses."""
    scope = {"headers": [(b"authorization", b"first"), (b"authorization", b"second")]}
    assert headers_of(scope) == {"authorization": "first"}
