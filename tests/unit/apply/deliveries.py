"""Deliveries and events for the tests of the apply stage's pure parts."""

from __future__ import annotations

import itertools
from functools import cache

from storemirror.apply.port import Taken
from storemirror.bus.port import Delivery, Message
from storemirror.clock import SECOND_US
from storemirror.event.change import Origin
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from tests.support.events import deleted, written

_NUMBERS = itertools.count(1)


@cache
def social_model() -> Model:
    """The built-in entities, read once."""
    return load_model()


def a_delivery(*, count: int = 1, body: bytes = b"{}") -> Delivery:
    number = next(_NUMBERS)
    return Delivery(
        message=Message(message_id=f"m{number}", body=body, content_type="application/json"),
        lock_token=f"lock-{number}",
        sequence_number=number,
        delivery_count=count,
        enqueued_at_us=0,
        locked_until_us=60 * SECOND_US,
    )


def a_message(
    conversation: str = "c1",
    message: str = "m1",
    *,
    at_us: int = 10,
    origin: Origin = Origin.TRIGGER,
) -> RowEvent:
    key = (conversation, message)
    return written(
        social_model(), "DmMessage", key, at_us, origin=origin, senderId="u1", sentAt=at_us
    )


def a_conversation(conversation: str = "c1") -> RowEvent:
    return written(social_model(), "DmConversation", (conversation,), 10, createdAt=10)


def a_follow(follower: str, followee: str) -> RowEvent:
    return written(social_model(), "FollowEdge", (follower, followee), 10)


def a_deletion(conversation: str = "c1", message: str = "m1") -> RowEvent:
    return deleted(social_model(), "DmMessage", (conversation, message), 10)


def taken(event: RowEvent, *, count: int = 1, body: bytes = b"{}") -> Taken:
    return Taken(a_delivery(count=count, body=body), event)
