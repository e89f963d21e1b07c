"""What every bus holds messages and topics to.  Pure: no I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from storemirror.bus.port import (
    FIRST_ENQUEUED,
    RESUBMITTED_FROM,
    DeadLetter,
    Message,
    TopicSpec,
    first_enqueued_us,
)
from storemirror.errors import BusRefused, MessageRefused

#: Most characters of a message id; Service Bus takes no more.
MAX_MESSAGE_ID_LENGTH: Final = 128
#: Most characters of a reason or description; Service Bus takes no more.
MAX_REASON_LENGTH: Final = 4096
SECOND_US: Final = 1_000_000


def refuse_bad_messages(messages: Sequence[Message]) -> None:
    """
    See that messages can be published on any bus.

    Raises:
        MessageRefused: an id is empty or too long, or a text cannot be stored as UTF-8.
    """
    for message in messages:
        problem = _problem_of(message)
        if problem is not None:
            name = repr(message.message_id[:160])
            raise MessageRefused(f"message {name}: {problem}; nothing published")


def _problem_of(message: Message) -> str | None:
    """Say why a message cannot be published; None when it can."""
    if not 0 < len(message.message_id) <= MAX_MESSAGE_ID_LENGTH:
        return f"an id has 1 to {MAX_MESSAGE_ID_LENGTH} characters, not {len(message.message_id)}"
    texts = (message.message_id, message.content_type)
    properties = (*message.properties.keys(), *message.properties.values())
    if any(not is_storable(text) for text in (*texts, *properties)):
        return "id, content type and properties may hold no NUL and no half of a surrogate pair"
    return None


def is_storable(text: str) -> bool:
    r"""
    Tell whether a text can be stored as UTF-8 everywhere.

    >>> [is_storable(text) for text in ("ä", "\0", "\ud800")]
    [True, False, False]
    """
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def storable(text: str) -> str:
    r"""
    Write a reason or description so that it can be stored: odd characters escaped, not too long.

    A dead letter must never fail for the words that explain it.

    >>> storable("a\0b\ud800")
    'a\\x00b\\ud800'
    """
    escaped = text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return escaped[:MAX_REASON_LENGTH]


def refuse_second_acknowledgement(letter: DeadLetter) -> None:
    """
    See that nobody has acknowledged a dead letter yet.

    Raises:
        BusRefused: somebody has; the reason that was given stays.
    """
    if letter.acknowledged_reason is not None:
        raise BusRefused(
            f"dead letter {letter.sequence_number} was acknowledged before; nothing was changed"
        )


def refuse_bad_topic(topic: TopicSpec) -> None:
    """
    See that a topic can be provisioned.

    Raises:
        BusRefused: a name is empty or used twice, or a number is not positive.
    """
    names = [subscription.name for subscription in topic.subscriptions]
    if not topic.name or not all(names) or len(set(names)) < len(names):
        raise BusRefused(f"topic {topic.name!r}: names must be given, each once, not {names}")
    if topic.duplicate_window_s < 0:
        raise BusRefused(f"topic {topic.name!r}: the duplicate window must not be negative")
    for subscription in topic.subscriptions:
        durations_s = (subscription.lock_duration_s, subscription.time_to_live_s)
        if (
            any(s is not None and s <= 0 for s in durations_s)
            or subscription.max_delivery_count < 1
        ):
            raise BusRefused(
                f"subscription {subscription.name!r}: lock duration, time to live and maximum "
                "delivery count must be above 0"
            )


def duration_us(duration_s: float) -> int:
    """Give a duration in whole microseconds."""
    return round(duration_s * SECOND_US)


def replacement_of(letter: DeadLetter, *, run: str) -> Message:
    """
    Give the message that replaces a dead letter's.

    Raises:
        MessageRefused: the new id would be no id; nothing was changed.
    """
    told = {**letter.message.properties, RESUBMITTED_FROM: letter.message.message_id}
    message = dataclasses.replace(letter.message, properties=told)
    replacement = same_event_anew(message, run=run, enqueued_at_us=letter.enqueued_at_us)
    refuse_bad_messages((replacement,))
    return replacement


def same_event_anew(message: Message, *, run: str, enqueued_at_us: int) -> Message:
    """
    Give the message that stands for another one from here on: the same event, under a new id.

    Args:
        message: what it replaces.
        run: ends the new id, or duplicate detection would swallow it.
        enqueued_at_us: of `message`, microseconds since the Unix epoch; told on as
            `FIRST_ENQUEUED`, unless the message tells of a first one already.
    """
    first_us = first_enqueued_us(message, enqueued_at_us=enqueued_at_us)
    return dataclasses.replace(
        message,
        message_id=f"{message.message_id.partition('.')[0]}.{run}",
        properties={**message.properties, FIRST_ENQUEUED: str(first_us)},
    )
