"""
A stand-in that speaks SQL Server's wire protocol (TDS 7.4), and knows no SQL.

It answers each batch with what the test has written down for it, so that the real driver is seen
to read answers, errors, cuts and silence.  Source: MS-TDS, Microsoft's specification.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

_BATCH, _RPC, _ATTENTION, _LOGIN, _PRELOGIN, _RESPONSE = 0x01, 0x03, 0x06, 0x10, 0x12, 0x04
_LAST: Final = 0x01
_PACKET_BYTES: Final = 4_088
_PREPARE, _EXECUTE, _UNPREPARE = 11, 12, 15
_COLLATION: Final = b"\x09\x04\xd0\x00\x34"
_INTN, _NVARCHAR = 0x26, 0xE7


class Cut(Exception):
    """Answer nothing, and close the connection."""


class Silence(Exception):
    """Answer nothing until the client gives up, and tell it then that it did."""


#: Given the text of a batch: what it answers, as tokens; or it raises one of the two above.
Answer = Callable[[str], bytes]


def error(number: int, message: str, *, severity: int = 16) -> bytes:
    """An error of the server's."""
    body = struct.pack("<iBB", number, 1, severity) + _long(message) + _short("srv") + _short("")
    body += struct.pack("<i", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def rows(columns: Sequence[str], *records: Sequence[str | int | None]) -> bytes:
    """One result set; a column is of whole numbers when its first value is one."""
    first = records[0] if records else [""] * len(columns)
    out = b"\x81" + struct.pack("<H", len(columns))
    for name, value in zip(columns, first, strict=True):
        out += struct.pack("<IH", 0, 1)
        if isinstance(value, int):
            out += bytes([_INTN, 8])
        else:
            out += bytes([_NVARCHAR]) + struct.pack("<H", 8_000) + _COLLATION
        out += _short(name)
    for record in records:
        out += b"\xd1" + b"".join(_value(value) for value in record)
    return out + done(has_more=True)


def done(*, has_more: bool = False, token: int = 0xFD, flags: int = 0) -> bytes:
    """The end of one statement."""
    return bytes([token]) + struct.pack("<HHQ", flags | (1 if has_more else 0), 0, 0)


@dataclass
class TdsStandIn:
    """One server: what it heard, and what it says."""

    answer: Answer = lambda _: b""
    #: What refuses every sign-in; empty: everybody is let in.
    refusal: Callable[[str], bytes] = lambda _: b""
    port: int = 0
    batches: list[str] = field(default_factory=list)
    connection_count: int = 0
    #: Connections that are open, and the most that ever were at a time.
    open_count: int = 0
    most_open_count: int = 0
    _clients: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one client in a task of its own."""
        task = asyncio.ensure_future(self.serve(reader, writer))
        self._clients.add(task)
        await asyncio.wait([task])

    async def aclose(self) -> None:
        """Let go of every client."""
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one client until it, or we, have had enough."""
        self.connection_count += 1
        self.open_count += 1
        self.most_open_count = max(self.most_open_count, self.open_count)
        prepared: dict[int, str] = {}
        try:
            while True:
                kind, body = await _received(reader)
                writer.write(_packets(self._answered(kind, body, prepared)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, Cut):
            return
        finally:
            self.open_count -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answered(self, kind: int, body: bytes, prepared: dict[int, str]) -> bytes:
        if kind == _PRELOGIN:
            # Version and "no encryption".
            head = b"\x00" + struct.pack(">HH", 11, 6) + b"\x01" + struct.pack(">HH", 17, 1)
            return head + b"\xff" + b"\x10\x00\x00\x00\x00\x00" + b"\x02"
        if kind == _LOGIN:
            refused = self.refusal(_database_of(body))
            return refused + done(flags=2) if refused else _signed_in()
        if kind == _ATTENTION:
            return done(flags=0x20)
        if kind == _BATCH:
            (skipped,) = struct.unpack_from("<I", body)
            return self._said(body[skipped:].decode("utf-16-le"), token=0xFD)
        return self._called(body, prepared)

    def _called(self, body: bytes, prepared: dict[int, str]) -> bytes:
        (skipped,) = struct.unpack_from("<I", body)
        _, procedure = struct.unpack_from("<HH", body, skipped)
        if procedure == _PREPARE:
            # The text stands among numbers, at a place that may be odd.
            halves = (body.decode("utf-16-le", "ignore"), body[1:].decode("utf-16-le", "ignore"))
            prepared[len(prepared) + 1] = "\n".join(halves)
            value = bytes([_INTN, 4, 4]) + struct.pack("<i", len(prepared))
            returned = struct.pack("<H", 0) + _short("") + b"\x01" + struct.pack("<IH", 0, 0)
            return b"\xac" + returned + value + done(token=0xFE)
        if procedure == _EXECUTE:
            return self._said(prepared[len(prepared)], token=0xFE)
        return done(token=0xFE)

    def _said(self, text: str, *, token: int) -> bytes:
        self.batches.append(text)
        try:
            return self.answer(text) + done(token=token)
        except Silence:
            return b""


@contextlib.asynccontextmanager
async def running(stand_in: TdsStandIn) -> AsyncIterator[TdsStandIn]:
    """Listen on a port of this machine while the block runs."""
    server = await asyncio.start_server(stand_in.accept, "127.0.0.1", 0)
    stand_in.port = server.sockets[0].getsockname()[1]
    try:
        yield stand_in
    finally:
        server.close()
        await stand_in.aclose()


async def _received(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    body = b""
    while True:
        kind, status, length = struct.unpack(">BBH4x", await reader.readexactly(8))
        body += await reader.readexactly(length - 8)
        if status & _LAST:
            return kind, body


def _packets(body: bytes) -> bytes:
    if not body:
        return b""
    parts = [body[i : i + _PACKET_BYTES] for i in range(0, len(body), _PACKET_BYTES)]
    return b"".join(
        struct.pack(">BBHHBB", _RESPONSE, _LAST if part is parts[-1] else 0, len(part) + 8, 0, 1, 0)
        + part
        for part in parts
    )


def _signed_in() -> bytes:
    acknowledged = b"\x01\x74\x00\x00\x04" + _short("Microsoft SQL Server") + b"\x10\x00\x00\x00"
    changes = (b"\x01" + _short("db") + _short("master"), b"\x07\x05" + _COLLATION + b"\x00")
    out = b"".join(b"\xe3" + struct.pack("<H", len(c)) + c for c in changes)
    return out + b"\xad" + struct.pack("<H", len(acknowledged)) + acknowledged + done()


def _database_of(login: bytes) -> str:
    """Read which database a sign-in is for."""
    offset, length = struct.unpack_from("<HH", login, 68)
    return login[offset : offset + 2 * length].decode("utf-16-le")


def _value(value: str | int | None) -> bytes:
    if isinstance(value, int):
        return b"\x08" + struct.pack("<q", value)
    if value is None:
        return b"\xff\xff"
    encoded = value.encode("utf-16-le")
    return struct.pack("<H", len(encoded)) + encoded


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")


def _long(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("utf-16-le")
