"""One message as a queue keeps it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.standins.servicebus.codec import (
    Described,
    Int,
    Symbol,
    Timestamp,
    UInt,
    decode,
    encode,
    sections,
)

HEADER: Final = 0x70
DELIVERY_ANNOTATIONS: Final = 0x71
ANNOTATIONS: Final = 0x72
PROPERTIES: Final = 0x73
APPLICATION_PROPERTIES: Final = 0x74
DATA: Final = 0x75
VALUE: Final = 0x77


class AmqpError(Exception):
    """What the service says no with."""

    def __init__(self, condition: str, text: str = "", status: int = 410) -> None:
        super().__init__(f"{condition}: {text}")
        self.condition = condition
        self.text = text
        self.status = status

    def described(self) -> Described:
        """Give the error as it stands in a frame."""
        return Described(0x1D, [Symbol(self.condition), self.text, {}])


@dataclass(slots=True, kw_only=True)
class StoredMessage:
    """Header values and annotations apart; the rest as it came."""

    header: list[Any] = field(default_factory=list)
    annotations: dict[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    properties: bytes = b""
    application: bytes = b""
    body: bytes = b""
    sequence_number: int = 0
    #: Deliveries that failed.
    delivery_count: int = 0
    enqueued_at_s: float = 0.0
    expires_at_s: float | None = None
    token: uuid.UUID | None = None
    locked_until_s: float = 0.0
    #: The link that it was delivered on; None when that is gone.
    owner: Any = None

    def copy(self) -> StoredMessage:
        """Give a copy for another subscription."""
        return replace(self, annotations=dict(self.annotations))

    def application_properties(self) -> dict[str, Any]:
        """Read the application properties."""
        if not self.application:
            return {}
        described, _ = decode(self.application)
        properties: dict[str, Any] = described.value
        return properties

    def add_application_properties(self, **more: str) -> None:
        """Write further application properties."""
        merged = {**self.application_properties(), **more}
        self.application = encode(Described(APPLICATION_PROPERTIES, merged))

    def wire(self) -> bytes:
        """Give the message as it is delivered."""
        header = (self.header + [None] * 5)[:4]
        annotations: dict[Any, Any] = {
            **self.annotations,
            Symbol("x-opt-enqueued-time"): Timestamp(int(self.enqueued_at_s * 1000)),
            Symbol("x-opt-sequence-number"): self.sequence_number,
            Symbol("x-opt-message-state"): Int(0),
        }
        if self.token is not None:
            until_ms = Timestamp(round(self.locked_until_s * 1000))
            annotations[Symbol("x-opt-locked-until")] = until_ms
        return b"".join(
            (
                encode(Described(HEADER, [*header, UInt(self.delivery_count)])),
                encode(Described(ANNOTATIONS, annotations)),
                self.properties,
                self.application,
                self.body,
            )
        )


def parsed(raw: bytes) -> StoredMessage:
    """Take a message apart."""
    message = StoredMessage()
    body: list[bytes] = []
    for code, start, value_place, end in sections(raw):
        if code == HEADER:
            message.header = decode(raw, value_place)[0]
        elif code == ANNOTATIONS:
            message.annotations = decode(raw, value_place)[0]
        elif code == PROPERTIES:
            fields = decode(raw, value_place)[0]
            message.message_id = fields[0] if fields else None
            message.properties = raw[start:end]
        elif code == APPLICATION_PROPERTIES:
            message.application = raw[start:end]
        elif code != DELIVERY_ANNOTATIONS:
            body.append(raw[start:end])
    message.body = b"".join(body)
    return message


def unbatched(raw: bytes) -> list[StoredMessage]:
    """Take a batch apart: each of its data sections is a message."""
    return [
        parsed(decode(raw, value_place)[0])
        for code, _, value_place, _ in sections(raw)
        if code == DATA
    ]
