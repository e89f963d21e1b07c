"""Dead letters: set aside, looked at, sent again, accepted; and what expires."""

from __future__ import annotations

import pytest

from storemirror.bus.port import (
    EXPIRED_REASON,
    FIRST_ENQUEUED,
    RESUBMITTED_FROM,
    Consumer,
    Message,
    Publisher,
    Rejection,
)
from storemirror.errors import BusRefused, DeadLetterUnknown
from tests.contract.bus.under_test import (
    LOCK_S,
    MONITORING,
    TTL_S,
    WRITER,
    BusUnderTest,
    a_message,
    ids,
    messages,
    receive_now,
)


async def set_aside(
    publisher: Publisher, consumer: Consumer, *sent: Message, description: str = "No such column."
) -> list[int]:
    """Publish and dead-letter messages; gives their sequence numbers."""
    await publisher.publish(sent)
    deliveries = await receive_now(consumer)
    await consumer.dead_letter(
        [Rejection(delivery=d, reason="MappingFailed", description=description) for d in deliveries]
    )
    return [delivery.sequence_number for delivery in deliveries]


async def test_a_dead_letter_keeps_the_message_and_says_why(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """An operator must see what it was and what to mend."""
    sent = a_message("e1", b"body", path="a/b")
    (number,) = await set_aside(publisher, consumer, sent)
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert letter.message == sent
    assert letter.sequence_number == number
    assert (letter.reason, letter.description) == ("MappingFailed", "No such column.")
    assert letter.delivery_count == 1
    set_aside_at_us = letter.dead_lettered_at_us
    assert (set_aside_at_us is not None) == bus.tells_all
    assert set_aside_at_us is None or set_aside_at_us >= letter.enqueued_at_us
    assert letter.acknowledged_reason is None
    assert await receive_now(consumer) == []


async def test_a_dead_letter_never_fails_for_the_words_that_explain_it(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A description may quote a path; a writer that cannot set aside would stop for good."""
    await set_aside(
        publisher, consumer, a_message("e1"), description="odd \0 \ud800 " + "x" * 9_000
    )
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert letter.description.startswith("odd \\x00 \\ud800 xxx")
    assert len(letter.description) == 4_096


async def test_each_dead_letter_has_its_own_reason(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Many are set aside in one call."""
    await publisher.publish(messages(3))
    deliveries = await receive_now(consumer)
    rejections = [
        Rejection(delivery=delivery, reason=f"Reason{place}", description=f"Text {place}.")
        for place, delivery in enumerate(deliveries)
    ]
    await consumer.dead_letter(rejections[::-1])
    letters = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert [(one.message.message_id, one.reason, one.description) for one in letters] == [
        (f"e0000{place}", f"Reason{place}", f"Text {place}.") for place in range(3)
    ]


async def test_dead_letters_are_read_page_by_page(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """There may be more than a screen shows."""
    numbers = await set_aside(publisher, consumer, *messages(5))
    first = await bus.admin.peek_dead_letters(WRITER, limit=2)
    rest = await bus.admin.peek_dead_letters(
        WRITER, limit=9, after_sequence_number=first[-1].sequence_number
    )
    assert [letter.sequence_number for letter in first + rest] == numbers


async def test_what_was_acknowledged_need_not_be_looked_at(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """On Service Bus it is elsewhere, and all of it is read for each look.  Refs #5."""
    numbers = await set_aside(publisher, consumer, *messages(4))
    await bus.admin.acknowledge(WRITER, numbers[1], reason="test data")
    letters = await bus.admin.peek_dead_letters(WRITER, limit=2, with_acknowledged=False)
    assert [letter.sequence_number for letter in letters] == [numbers[0], numbers[2]]


async def test_a_resubmitted_message_comes_again_under_a_new_id(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Under its old id duplicate detection would swallow it without a word."""
    (number,) = await set_aside(publisher, consumer, a_message("e1", b"body", path="a/b"))
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert await bus.admin.resubmit(WRITER, number, run="r1") == "e1.r1"
    (delivery,) = await receive_now(consumer)
    assert delivery.message.message_id == "e1.r1"
    assert delivery.message.body == b"body"
    assert delivery.message.properties == {
        "path": "a/b",
        RESUBMITTED_FROM: "e1",
        FIRST_ENQUEUED: str(letter.enqueued_at_us),
    }
    assert delivery.delivery_count == 1
    assert delivery.sequence_number > number
    assert await bus.admin.peek_dead_letters(WRITER, limit=10) == []


async def test_a_message_is_resubmitted_to_its_own_subscription_only(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The monitor has had it."""
    (number,) = await set_aside(publisher, consumer, a_message("e1"))
    await bus.admin.resubmit(WRITER, number, run="r1")
    assert ids(await receive_now(bus.consumer(MONITORING))) == ["e1"]


async def test_a_replacement_that_fails_again_gets_a_fresh_run(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Runs are replaced, not piled up: an id has 128 characters."""
    (number,) = await set_aside(publisher, consumer, a_message("e1.r1"))
    assert await bus.admin.resubmit(WRITER, number, run="r2") == "e1.r2"


async def test_a_replacement_whose_id_was_seen_is_refused_and_the_dead_letter_stays(
    telling_bus: BusUnderTest,
) -> None:
    """Swallowed as a duplicate, the message would be gone without a trace."""
    bus, publisher, consumer = telling_bus, telling_bus.publisher(), telling_bus.consumer()
    (number,) = await set_aside(publisher, consumer, a_message("e1"))
    await publisher.publish([a_message("e1.r1")])
    with pytest.raises(BusRefused, match="another run"):
        await bus.admin.resubmit(WRITER, number, run="r1")
    assert (await bus.admin.stats(WRITER)).dead_letter_count == 1
    assert await bus.admin.resubmit(WRITER, number, run="r2") == "e1.r2"


async def test_a_run_that_makes_no_id_is_refused(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The dead letter stays when its replacement cannot be."""
    (number,) = await set_aside(publisher, consumer, a_message("e1"))
    with pytest.raises(BusRefused, match="128"):
        await bus.admin.resubmit(WRITER, number, run="r" * 128)
    assert (await bus.admin.stats(WRITER)).dead_letter_count == 1


async def test_an_acknowledged_dead_letter_stays_and_is_counted_apart(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A person may accept a loss; the rollout is blocked by the others."""
    first, _ = await set_aside(publisher, consumer, *messages(2))
    await bus.admin.acknowledge(WRITER, first, reason="test data")
    stats = await bus.admin.stats(WRITER)
    assert (stats.dead_letter_count, stats.acknowledged_count) == (1, 1)
    letters = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert [letter.acknowledged_reason for letter in letters] == ["test data", None]


async def test_a_dead_letter_is_acknowledged_once(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The first reason is evidence: of two people who look at once, the second one is told."""
    (number,) = await set_aside(publisher, consumer, a_message("e1"))
    await bus.admin.acknowledge(WRITER, number, reason="test data")
    with pytest.raises(BusRefused, match=f"dead letter {number} was acknowledged before"):
        await bus.admin.acknowledge(WRITER, number, reason="another one")
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert letter.acknowledged_reason == "test data"
    stats = await bus.admin.stats(WRITER)
    assert (stats.dead_letter_count, stats.acknowledged_count) == (0, 1)


async def test_dead_letters_are_removed_and_no_others(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """What somebody else disposed of meanwhile is told apart, and is no error."""
    numbers = await set_aside(publisher, consumer, *messages(3))
    await bus.admin.resubmit(WRITER, numbers[0], run="r1")
    assert await bus.admin.remove_dead_letters(WRITER, [*numbers[:2], 10**9]) == numbers[1:2]
    (left,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert left.sequence_number == numbers[2]
    stats = await bus.admin.stats(WRITER)
    assert (stats.dead_letter_count, stats.depth) == (1, 1)


async def test_a_waiting_message_is_not_removed_as_a_dead_letter(
    bus: BusUnderTest, publisher: Publisher
) -> None:
    """A purge with a wrong number must not touch what is still to be applied."""
    await publisher.publish(messages(2))
    assert await bus.admin.remove_dead_letters(WRITER, range(1, 100)) == []
    assert (await bus.admin.stats(WRITER)).depth == 2


async def test_a_dead_letter_never_expires(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Whatever the time to live of the message was: it is there until a person disposes of it."""
    numbers = await set_aside(publisher, consumer, a_message("e1"))
    await bus.let_pass(100 * TTL_S)
    await publisher.publish([a_message("e2")])
    await bus.admin.stats(WRITER)
    letters = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert [letter.sequence_number for letter in letters] == numbers


async def test_an_unknown_dead_letter_is_said_to_be_unknown(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Numbers are typed by hand; another letter must not be touched."""
    (number,) = await set_aside(publisher, consumer, a_message("e1"))
    with pytest.raises(DeadLetterUnknown):
        await bus.admin.resubmit(WRITER, number - 1, run="r1")
    with pytest.raises(DeadLetterUnknown):
        await bus.admin.acknowledge(WRITER, number + 1, reason="no")
    assert (await bus.admin.stats(WRITER)).dead_letter_count == 1


async def test_monitoring_drops_what_nobody_reads(bus: BusUnderTest, publisher: Publisher) -> None:
    """Nobody need read it: it must neither grow without bound nor make dead letters."""
    await publisher.publish(messages(3))
    await bus.let_pass(TTL_S - 1)
    await publisher.publish([a_message("young")])
    await bus.let_pass(2)
    stats = await bus.admin.stats(MONITORING)
    assert (stats.depth, stats.dead_letter_count) == (1, 0)
    assert ids(await receive_now(bus.consumer(MONITORING))) == ["young"]


async def test_the_writer_s_subscription_dead_letters_what_nobody_takes(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Nothing is lost quietly."""
    await publisher.publish([a_message("e1")])
    await bus.let_pass(10 * TTL_S + 1)
    assert await receive_now(consumer) == []
    assert (await bus.admin.stats(WRITER)).depth == 0
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert letter.reason == EXPIRED_REASON


async def test_a_delivery_in_hand_does_not_expire(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Who received it in time may settle it."""
    await publisher.publish([a_message("e1")])
    await bus.let_pass(10 * TTL_S - LOCK_S / 2)
    deliveries = await receive_now(consumer)
    await bus.let_pass(LOCK_S - bus.margin_s)
    assert (await bus.admin.stats(WRITER)).depth == 1
    assert await consumer.complete(deliveries) == []
