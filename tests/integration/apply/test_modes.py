"""How an event arrives does not matter: its mode, and what it says of where it was seen."""

from __future__ import annotations

import msgspec
import pytest

from storemirror.bus.port import Message
from storemirror.event.change import Origin
from tests.integration.apply.pipe import START_US, Pipe, a_change, a_chat_message, message_of

pytestmark = pytest.mark.postgres


def as_binary(message: Message, **changed: str) -> Message:
    """Put an event's attributes beside its data, as a relay on Service Bus may."""
    event = msgspec.json.decode(message.body) | changed
    data = msgspec.json.encode(event.pop("data"))
    content_type = event.pop("datacontenttype")
    properties = {f"cloudEvents:{name}": text for name, text in event.items()}
    return Message(
        message_id=message.message_id, body=data, content_type=content_type, properties=properties
    )


async def test_events_in_both_modes_become_rows(pipe: Pipe) -> None:
    """One of each, and one in binary mode of a later form, which a person must see."""
    structured, binary, later = (a_chat_message(n) for n in range(3))
    await pipe.publisher.publish(
        [
            message_of(structured),
            as_binary(message_of(binary)),
            as_binary(message_of(later), dataschema="urn:storemirror:event-data:v2"),
        ]
    )
    await pipe.run_until_empty(pipe.processor())
    await pipe.assert_mirrors([structured, binary])
    (letter,) = await pipe.dead_letters()
    assert letter.reason == "EnvelopeInvalid"
    assert "event-data:v2' are not known" in letter.description
    assert later.path in letter.description


async def test_a_row_knows_where_its_event_was_seen(pipe: Pipe) -> None:
    """A row that StoreMirror wrote by itself can be told from one that the app caused."""
    changes = [
        a_change(f"users/{origin.value}/following/v", {}, START_US + n, origin=origin)
        for n, origin in enumerate(Origin)
    ]
    await pipe.publish(changes)
    await pipe.run_until_empty(pipe.processor())
    rows = await pipe.under_test.database.fetch(
        "SELECT follower_id, last_event_origin FROM storemirror.follow_edge"
    )
    assert sorted(rows) == sorted((origin.value, origin.value) for origin in Origin)
