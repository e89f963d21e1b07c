"""The rules that every bus shares."""

from __future__ import annotations

import msgspec
import pytest

from storemirror.apply.waiting import put_back_message
from storemirror.bus.port import FIRST_ENQUEUED, RESUBMITTED_FROM, DeadLetter, Delivery, Message
from storemirror.bus.rules import MAX_REASON_LENGTH, refuse_bad_messages, replacement_of, storable
from storemirror.errors import MessageRefused


def test_a_refusal_names_the_message_and_not_its_body() -> None:
    """Logs are read by people who may not read documents."""
    bad = Message(message_id="x" * 129, body=b"secret", content_type="")
    with pytest.raises(MessageRefused, match="129") as refused:
        refuse_bad_messages([bad])
    assert "secret" not in str(refused.value)


def test_a_replacement_keeps_body_content_type_and_properties() -> None:
    """It is the same event; only its id is new."""
    dead = Message(message_id="e1", body=b"b", content_type="c", properties={"k": "v"})
    assert replacement_of(a_letter(dead, enqueued_at_us=7), run="r1") == Message(
        message_id="e1.r1",
        body=b"b",
        content_type="c",
        properties={"k": "v", RESUBMITTED_FROM: "e1", FIRST_ENQUEUED: "7"},
    )


def a_letter(message: Message, *, enqueued_at_us: int) -> DeadLetter:
    return DeadLetter(
        message=message,
        sequence_number=1,
        reason="MappingFailed",
        description="",
        delivery_count=1,
        enqueued_at_us=enqueued_at_us,
        dead_lettered_at_us=9,
    )


def test_an_event_is_first_seen_when_its_first_message_was() -> None:
    """Resubmitted and set aside again, it is no younger for that."""
    first = a_letter(Message(message_id="e1", body=b"", content_type=""), enqueued_at_us=7)
    again = a_letter(replacement_of(first, run="r1"), enqueued_at_us=8)
    last = a_letter(replacement_of(again, run="r2"), enqueued_at_us=9)
    assert [letter.first_enqueued_at_us for letter in (first, again, last)] == [7, 7, 7]


def test_an_event_that_was_put_back_is_no_younger_for_that() -> None:
    """A document store that was out for a day would else not be seen in it.  Refs #4."""
    message = Message(message_id="e1.r1", body=b"b", content_type="c", properties={"k": "v"})
    delivery = Delivery(
        message=message,
        lock_token="t",
        sequence_number=5,
        delivery_count=1,
        enqueued_at_us=7,
        locked_until_us=9,
    )
    once = put_back_message(delivery)
    assert once == Message(
        message_id="e1.waited-5",
        body=b"b",
        content_type="c",
        properties={"k": "v", FIRST_ENQUEUED: "7"},
    )
    later = msgspec.structs.replace(delivery, message=once, enqueued_at_us=8)
    assert put_back_message(later).properties[FIRST_ENQUEUED] == "7"
    assert a_letter(once, enqueued_at_us=8).first_enqueued_at_us == 7


@pytest.mark.parametrize("told", ["", "yesterday", "-1", "²", "9" * 18, "9" * 5_000])
def test_a_first_time_that_is_none_is_not_believed(told: str) -> None:
    """Anybody may publish with any properties.  Refs #4."""
    properties = {FIRST_ENQUEUED: told}
    message = Message(message_id="e1", body=b"", content_type="", properties=properties)
    assert a_letter(message, enqueued_at_us=7).first_enqueued_at_us == 7


def test_a_reason_is_cut_and_not_refused() -> None:
    """Words may get lost; a dead letter may not."""
    assert storable("x" * 10_000) == "x" * MAX_REASON_LENGTH
