"""One AMQP link of a client: to a topic, from a subscription, to `$cbs` or `$management`."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Any, Final

from tests.standins.servicebus.codec import Described, UByte, UInt, ULong
from tests.standins.servicebus.message import AmqpError, StoredMessage, parsed, unbatched
from tests.standins.servicebus.store import Queue, Topic

if TYPE_CHECKING:
    from tests.standins.servicebus.connection import Connection

ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH = 0x12, 0x13, 0x14, 0x15, 0x16
ACCEPTED, REJECTED, RELEASED, MODIFIED = 0x24, 0x25, 0x26, 0x27
#: Message format of a batch.
BATCH: Final = 0x80013700
_SENDER_CREDIT: Final = 1000


def padded(fields: list[Any], count: int) -> list[Any]:
    """Fill up fields that were left out at the end."""
    return fields + [None] * (count - len(fields))


class Link:
    """One link, seen from the service."""

    def __init__(self, conn: Connection, channel: int, fields: list[Any]) -> None:
        self.conn = conn
        self.channel = channel
        attach = padded(fields, 14)
        self.name, self.handle = attach[0], attach[1]
        self.client_receives = attach[2] is True
        self._settles_second = attach[4] == 1
        self._source, self._target = attach[5], attach[6]
        terminus = self._source if self.client_receives else self._target
        self.address: str = terminus.value[0]
        self.credit = 0
        self.delivery_count = 0
        self.is_attached = False
        self._entity: Topic | Queue | None = None
        self._buffer = b""
        self._first: list[Any] | None = None
        self._taken_since_grant = 0
        self._unsettled: dict[int, uuid.UUID] = {}

    # Coming and going

    def attach(self) -> None:
        """Answer the client's attach, or refuse it."""
        self.conn.links[(self.channel, self.handle)] = self
        try:
            if not self._is_request():
                self.conn.require("Listen" if self.client_receives else "Send")
                self._entity = self.conn.standin.find(self.address)
                if self.client_receives and isinstance(self._entity, Topic):
                    raise AmqpError("amqp:not-allowed", "cannot receive from a topic")
        except AmqpError as error:
            self.detach(error)
            return
        self._answer_attach()

    def _is_request(self) -> bool:
        return self.address == "$cbs" or self.address.endswith("$management")

    def _answer_attach(self) -> None:
        self.is_attached = True
        self.conn.send(
            self.channel,
            ATTACH,
            [
                self.name,
                self.handle,
                not self.client_receives,
                UByte(0 if self.client_receives else 2),
                UByte(1 if self._settles_second else 0),
                self._source,
                self._target,
                None,
                None,
                UInt(0) if self.client_receives else None,
                ULong(self.conn.standin.max_message_bytes),
            ],
        )
        if not self.client_receives:
            self._grant()
        elif isinstance(self._entity, Queue):
            self._entity.links.append(self)

    def _grant(self) -> None:
        self._taken_since_grant = 0
        self._send_flow(_SENDER_CREDIT)

    def _send_flow(self, credit: int, *, is_drained: bool = False) -> None:
        window = self.conn.windows[self.channel]
        self.conn.send(
            self.channel,
            FLOW,
            [
                UInt(window.received),
                UInt(65536),
                UInt(window.sent),
                UInt(65536),
                self.handle,
                UInt(self.delivery_count),
                UInt(credit),
                None,
                is_drained,
            ],
        )

    def detach(self, error: AmqpError | None) -> None:
        """End the link from this side; without an error as the service sometimes does."""
        if not self.is_attached:
            # A refused link is answered with a terminus that is null.
            source = None if self.client_receives else self._source
            target = self._target if self.client_receives else None
            answer = [self.name, self.handle, not self.client_receives, UByte(0), UByte(0)]
            count = UInt(0) if self.client_receives else None
            self.conn.send(self.channel, ATTACH, [*answer, source, target, None, None, count])
        described = None if error is None else error.described()
        self.conn.send(self.channel, DETACH, [self.handle, True, described])
        self.forget()

    def forget(self) -> None:
        """Drop the link.  Locks stay until they run out, as with the service."""
        self.conn.links.pop((self.channel, self.handle), None)
        self.is_attached = False
        if isinstance(self._entity, Queue) and self in self._entity.links:
            self._entity.links.remove(self)

    # Service to client

    def deliver(self, message: StoredMessage) -> None:
        """Send a locked message."""
        assert message.token is not None
        self.credit -= 1
        self.delivery_count += 1
        delivery_id = self.conn.transfer(self, message.wire(), message.token.bytes_le)
        self._unsettled[delivery_id] = message.token

    def on_flow(self, fields: list[Any]) -> None:
        """Take note of the client's credit; drain and answer when it asks to."""
        if not self.client_receives or self.conn.standin.faults.ignores_flow:
            return
        flow = padded(fields, 11)
        self.credit = max(0, (flow[5] or 0) + (flow[6] or 0) - self.delivery_count)
        if isinstance(self._entity, Queue):
            self._entity.sweep()
        if flow[8]:
            self.delivery_count += self.credit
            self.credit = 0
            self._send_flow(0, is_drained=True)

    def on_outcome(self, delivery_id: int, state: Described | None, is_settled: bool) -> None:
        """Settle one delivery, and say what came of it."""
        token = self._unsettled.pop(delivery_id, None)
        if token is None or not isinstance(self._entity, Queue):
            return
        reply = state
        try:
            self.conn.standin.faults.strike_settlement()
            reply = self._settle(self._entity, token, state)
        except AmqpError as error:
            reply = Described(REJECTED, [error.described()])
        if not is_settled:
            number = UInt(delivery_id)
            self.conn.send(self.channel, DISPOSITION, [False, number, number, True, reply])

    @staticmethod
    def _settle(queue: Queue, token: uuid.UUID, state: Described | None) -> Described | None:
        code = RELEASED if state is None else state.code
        if code == ACCEPTED:
            queue.complete(token)
        elif code == MODIFIED:
            queue.abandon(token)
        elif code == REJECTED and state is not None:
            error = state.value[0].value if state.value and state.value[0] else []
            info = {str(key): value for key, value in (padded(error, 3)[2] or {}).items()}
            queue.dead_letter(
                token,
                info.get("DeadLetterReason") or "",
                info.get("DeadLetterErrorDescription") or "",
            )
            return Described(REJECTED, [])
        else:
            queue.release(token)
        return state

    # Client to service

    def on_transfer(self, fields: list[Any], payload: bytes) -> None:
        """Take in a part of a message, and the whole when it is complete."""
        transfer = padded(fields, 11)
        if self._first is None:
            self._first = transfer
        self._buffer += payload
        if transfer[5]:
            return
        first, raw = self._first, self._buffer
        self._first, self._buffer = None, b""
        self.delivery_count += 1
        self._taken_since_grant += 1
        state = Described(ACCEPTED, [])
        try:
            self._take(raw, is_batch=first[3] == BATCH)
        except AmqpError as error:
            state = Described(REJECTED, [error.described()])
        if not first[4]:
            self.conn.send(self.channel, DISPOSITION, [True, first[1], first[1], True, state])
        if self._taken_since_grant >= _SENDER_CREDIT // 2:
            self._grant()

    def _take(self, raw: bytes, *, is_batch: bool) -> None:
        if self._is_request():
            self.conn.answer(self, raw)
            return
        self.conn.standin.faults.strike_send()
        if len(raw) > self.conn.standin.max_message_bytes:
            raise AmqpError("amqp:link:message-size-exceeded", "too large")
        assert isinstance(self._entity, Topic)
        self._entity.put(unbatched(raw) if is_batch else [parsed(raw)])

    def reply(self, message: bytes) -> None:
        """Send the answer to a request on the link beside."""
        self.conn.transfer(self, message, struct.pack(">I", self.delivery_count), is_settled=True)
        self.delivery_count += 1
