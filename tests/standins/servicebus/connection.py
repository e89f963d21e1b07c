"""One AMQP connection: framing, sessions, links, rights."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from tests.standins.servicebus.codec import Array, Symbol, UByte, UInt, UShort, decode, frame
from tests.standins.servicebus.link import (
    ATTACH,
    DETACH,
    DISPOSITION,
    FLOW,
    TRANSFER,
    Link,
    padded,
)
from tests.standins.servicebus.management import answer
from tests.standins.servicebus.message import AmqpError

if TYPE_CHECKING:
    from tests.standins.servicebus.standin import StandIn

OPEN, BEGIN, END, CLOSE = 0x10, 0x11, 0x17, 0x18
_SASL_MECHANISMS, _SASL_OUTCOME = 0x40, 0x44
_MAX_FRAME: Final = 65536
_SASL: Final = 3


@dataclass(slots=True)
class Window:
    """What passed in a session."""

    received: int = 0
    sent: int = 0
    next_delivery_id: int = 0


class Connection(asyncio.Protocol):
    """Reads frames, and sends what was gathered in one turn of the loop together."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin
        self.links: dict[tuple[int, int], Link] = {}
        self.windows: dict[int, Window] = {}
        self.rights: frozenset[str] = frozenset()
        self.is_frozen = False
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._output: list[bytes] = []
        self._max_frame = _MAX_FRAME

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # Of no class of asyncio's on libuv's loop, with the same methods.
        self._transport = cast("asyncio.Transport", transport)
        self.standin.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.standin.connections.discard(self)
        for link in list(self.links.values()):
            link.forget()

    def require(self, right: str) -> None:
        """See that the token that was put allows something."""
        if right not in self.rights:
            raise AmqpError(
                "amqp:unauthorized-access",
                f"Unauthorized access. '{right}' claim(s) are required to perform this operation.",
            )

    def abort(self) -> None:
        """Break the connection, as a network does."""
        if self._transport is not None:
            self._transport.abort()

    def freeze(self, is_frozen: bool) -> None:
        """Stop reading and writing, or go on."""
        self.is_frozen = is_frozen
        if not is_frozen:
            self.data_received(b"")
            self._flush()

    # Out

    def send(
        self,
        channel: int,
        code: int,
        fields: list[Any],
        payload: bytes = b"",
        frame_type: int = 0,
    ) -> None:
        """Send one frame with the others of this turn."""
        if not self._output:
            asyncio.get_running_loop().call_soon(self._flush)
        self._output.append(frame(channel, code, fields, payload, frame_type))

    def _flush(self) -> None:
        if self.is_frozen or self._transport is None or self._transport.is_closing():
            return
        output, self._output = self._output, []
        self._transport.write(b"".join(output))

    def transfer(self, link: Link, raw: bytes, tag: bytes, is_settled: bool = False) -> int:
        """Send a message in as many frames as it needs; gives the delivery's id."""
        window = self.windows[link.channel]
        delivery_id = window.next_delivery_id
        window.next_delivery_id += 1
        room = self._max_frame - 64
        for start in range(0, len(raw), room):
            has_more = start + room < len(raw)
            window.sent += 1
            head = [UInt(delivery_id), tag, UInt(0), is_settled] if start == 0 else [None] * 4
            part = raw[start : start + room]
            self.send(link.channel, TRANSFER, [link.handle, *head, has_more], part)
        return delivery_id

    # In

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._input += data
        while not self.is_frozen and len(self._input) >= 8:
            if self._input[:4] == b"AMQP":
                self._on_protocol_header()
                continue
            size, offset, frame_type, channel = struct.unpack_from(">IBBH", self._input)
            if len(self._input) < size:
                return
            body = bytes(self._input[offset * 4 : size])
            del self._input[:size]
            if body:
                described, place = decode(body)
                if frame_type == 1:
                    self.send(0, _SASL_OUTCOME, [UByte(0)], frame_type=1)
                else:
                    self._on_frame(channel, described.code, described.value, body[place:])

    def _on_protocol_header(self) -> None:
        header = bytes(self._input[:8])
        del self._input[:8]
        assert self._transport is not None
        self._transport.write(header)
        if header[4] == _SASL:
            mechanisms = Array(Symbol, ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"))
            self.send(0, _SASL_MECHANISMS, [mechanisms], frame_type=1)

    def _on_frame(self, channel: int, code: int, fields: list[Any], payload: bytes) -> None:
        if code == TRANSFER:
            self.windows[channel].received += 1
            link = self.links.get((channel, fields[0]))
            if link is not None:
                link.on_transfer(fields, payload)
        elif code == DISPOSITION:
            self._on_disposition(channel, padded(fields, 6))
        elif code == FLOW:
            handle = padded(fields, 11)[4]
            link = self.links.get((channel, handle)) if handle is not None else None
            if link is not None:
                link.on_flow(fields)
        elif code == ATTACH:
            Link(self, channel, fields).attach()
        elif code == DETACH:
            link = self.links.get((channel, fields[0]))
            if link is not None:
                link.forget()
                self.send(channel, DETACH, [fields[0], True])
        else:
            self._on_session_frame(channel, code, fields)

    def _on_session_frame(self, channel: int, code: int, fields: list[Any]) -> None:
        if code == OPEN:
            self._max_frame = min(_MAX_FRAME, padded(fields, 3)[2] or _MAX_FRAME)
            self.send(0, OPEN, ["standin", None, UInt(_MAX_FRAME), UShort(5000), UInt(240_000)])
        elif code == BEGIN:
            self.windows[channel] = Window(received=fields[1])
            window = [UInt(0), UInt(65536), UInt(65536), UInt(255)]
            self.send(channel, BEGIN, [UShort(channel), *window])
        elif code == END:
            self.send(channel, END, [])
        elif code == CLOSE:
            self.send(0, CLOSE, [])
            self._flush()
            if self._transport is not None:
                self._transport.close()

    def _on_disposition(self, channel: int, fields: list[Any]) -> None:
        if fields[0] is not True:
            return
        first = fields[1]
        last = first if fields[2] is None else fields[2]
        for link in list(self.links.values()):
            if link.channel == channel and link.client_receives:
                for delivery_id in range(first, last + 1):
                    link.on_outcome(delivery_id, fields[4], bool(fields[3]))

    def answer(self, link: Link, raw: bytes) -> None:
        """Answer a request on the client's receiving link of the same address."""
        beside = next(
            (
                other
                for other in self.links.values()
                if other.channel == link.channel
                and other.client_receives
                and other.address == link.address
            ),
            None,
        )
        reply = answer(self, link.address, raw)
        if beside is not None:
            beside.reply(reply)
