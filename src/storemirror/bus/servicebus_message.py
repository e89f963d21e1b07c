"""Our messages as Service Bus carries them, and back.  No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage

from storemirror.bus.port import DeadLetter, Delivery, Message
from storemirror.bus.rules import MAX_MESSAGE_ID_LENGTH
from storemirror.clock import us_from_datetime
from storemirror.event.envelope import by_reference

#: Properties of our own, which no reader above the bus sees.  Without dashes: filters name them.
_OWN: Final = "storemirror_"
#: Our message id, where the wire's is another one.
MESSAGE_ID: Final = _OWN + "message_id"
#: The one subscription that takes the message; without it all do.
ONLY_FOR: Final = _OWN + "only_for"
#: What the service adds to a dead letter.
_SERVICES_OWN: Final = ("DeadLetterReason", "DeadLetterErrorDescription")


def wire_id_of(message_id: str) -> str:
    """
    Give the MessageId for one of our ids: itself, or where Service Bus takes none so long a hash.

    Its limit counts UTF-16 units, ours characters.

    >>> wire_id_of("e1.r1")
    'e1.r1'
    >>> len(wire_id_of("😀" * 128))
    71
    """
    if len(message_id.encode("utf-16-le")) // 2 <= MAX_MESSAGE_ID_LENGTH:
        return message_id
    return "sha256-" + hashlib.sha256(message_id.encode()).hexdigest()


def outgoing(
    message: Message, *, wire_id: str | None = None, only_for: str | None = None, **own: str
) -> ServiceBusMessage:
    """
    Write a message for the wire.

    Args:
        message: storable.
        wire_id: the MessageId that duplicate detection goes by; by default from the message's id.
        only_for: the one subscription that is to take it.
        own: further properties of our own, without their prefix.
    """
    used_id = wire_id_of(message.message_id) if wire_id is None else wire_id
    properties: dict[str | bytes, Any] = {}
    properties.update(message.properties.items())
    properties.update((_OWN + name, value) for name, value in own.items())
    if used_id != message.message_id:
        properties[MESSAGE_ID] = message.message_id
    if only_for is not None:
        properties[ONLY_FOR] = only_for
    return ServiceBusMessage(
        message.body,
        message_id=used_id,
        content_type=message.content_type,
        application_properties=properties,
    )


def without_contents(message: Message) -> Message | None:
    """
    Give the same event as path and version alone; None when it has no contents to leave out.

    The consumer reads the document and applies what it finds.
    """
    referring = by_reference(message.body)
    if referring is None:
        return None
    body, event_type = referring
    return replace(message, body=body, properties={**message.properties, "type": event_type.value})


def own_property(received: ServiceBusReceivedMessage, name: str) -> str | None:
    """Give a property of our own, without its prefix in `name`."""
    return _texts(received.application_properties or {}).get(_OWN + name)


def message_of(received: ServiceBusReceivedMessage) -> Message:
    """Read a message as it was handed to us for publication."""
    properties = _texts(received.application_properties or {})
    message_id = properties.get(MESSAGE_ID, received.message_id or "")
    return Message(
        message_id=message_id,
        body=b"".join(received.body),
        content_type=received.content_type or "",
        properties={
            name: value
            for name, value in properties.items()
            if not name.startswith(_OWN) and name not in _SERVICES_OWN
        },
    )


def delivery_of(received: ServiceBusReceivedMessage) -> Delivery:
    """Read a message that was received under a lock."""
    return Delivery(
        message=message_of(received),
        lock_token=str(received.lock_token),
        sequence_number=received.sequence_number or 0,
        # The wire counts the deliveries that failed.
        delivery_count=(received.delivery_count or 0) + 1,
        enqueued_at_us=enqueued_at_us(received),
        locked_until_us=(
            0 if received.locked_until_utc is None else us_from_datetime(received.locked_until_utc)
        ),
    )


def enqueued_at_us(received: ServiceBusReceivedMessage) -> int:
    """Give when the service took the message in, microseconds since the Unix epoch."""
    moment = received.enqueued_time_utc
    return 0 if moment is None else us_from_datetime(moment)


def dead_letter_of(browsed: ServiceBusReceivedMessage) -> DeadLetter:
    """Read a message that was browsed among the dead letters."""
    return DeadLetter(
        message=message_of(browsed),
        sequence_number=browsed.sequence_number or 0,
        reason=browsed.dead_letter_reason or "",
        description=browsed.dead_letter_error_description or "",
        delivery_count=browsed.delivery_count or 0,
        enqueued_at_us=enqueued_at_us(browsed),
        dead_lettered_at_us=None,
    )


def _texts(properties: Mapping[Any, Any]) -> dict[str, str]:
    """Read application properties: the SDK gives received keys, and texts, as bytes."""
    return {_text(name): _text(value) for name, value in properties.items()}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
