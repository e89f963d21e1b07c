"""Publishing: fan-out, all or nothing, duplicate detection."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.bus.port import Consumer, Message, Publisher
from storemirror.errors import BusRefused, MessageRefused
from tests.contract.bus.under_test import (
    MONITORING,
    WINDOW_S,
    WRITER,
    BusUnderTest,
    a_message,
    ids,
    messages,
    receive_now,
    told,
)


async def test_every_subscription_gets_its_own_copy(
    bus: BusUnderTest, publisher: Publisher
) -> None:
    """The writer must not take the monitor's messages away, nor the other way round."""
    await publisher.publish(messages(3))
    writer, monitor = bus.consumer(WRITER), bus.consumer(MONITORING)
    assert await writer.complete(await receive_now(writer)) == []
    assert ids(await receive_now(monitor)) == ["e00000", "e00001", "e00002"]


async def test_a_message_arrives_as_it_was_sent(publisher: Publisher, consumer: Consumer) -> None:
    """Bodies are bytes, and paths in properties hold any character."""
    sent = a_message("e1", bytes(range(256)), path='users/é "x" \\ 😀', origin="trigger")
    await publisher.publish([sent])
    (delivery,) = await receive_now(consumer)
    assert delivery.message == sent


async def test_messages_come_in_the_order_of_their_publication(
    publisher: Publisher, consumer: Consumer
) -> None:
    """Order is no promise of a bus, but a bus that turns it around makes every event stale."""
    await publisher.publish([a_message("b"), a_message("a")])
    await publisher.publish([a_message("c")])
    deliveries = await receive_now(consumer)
    assert ids(deliveries) == ["b", "a", "c"]
    numbers = [delivery.sequence_number for delivery in deliveries]
    assert numbers == sorted(numbers)


async def test_publishing_nothing_is_no_mistake(publisher: Publisher) -> None:
    """A relay may find its outbox empty."""
    result = await publisher.publish([])
    assert (result.accepted_count, result.duplicate_count) == (0, 0)


async def test_an_id_is_accepted_once_in_one_call(publisher: Publisher, consumer: Consumer) -> None:
    """One commit may be seen twice by the time a relay publishes its page; the first counts."""
    result = await publisher.publish([a_message("e1", b"first"), a_message("e1", b"second")])
    assert (result.accepted_count, result.duplicate_count) == (1, 1)
    assert [delivery.message.body for delivery in await receive_now(consumer)] == [b"first"]


async def test_an_id_is_accepted_once_across_calls(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A publisher that does not know whether it published publishes again, from anywhere."""
    await publisher.publish([a_message("e1")])
    await consumer.complete(await receive_now(consumer))
    result = await bus.publisher().publish([a_message("e2"), a_message("e1")])
    assert told(bus, result, accepted=1, duplicate=1)
    assert ids(await receive_now(consumer)) == ["e2"]


async def test_an_id_is_accepted_again_after_the_duplicate_window(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Ids are forgotten, else they would grow without bound."""
    await publisher.publish([a_message("e1")])
    await consumer.complete(await receive_now(consumer))
    await bus.let_pass(WINDOW_S - bus.margin_s)
    assert told(bus, await publisher.publish([a_message("e1")]), accepted=0, duplicate=1)
    await bus.let_pass(bus.margin_s + 1)
    assert told(bus, await publisher.publish([a_message("e1")]), accepted=1, duplicate=0)
    assert told(bus, await publisher.publish([a_message("e1")]), accepted=0, duplicate=1)
    assert ids(await receive_now(consumer)) == ["e1"]


@pytest.mark.parametrize(
    "bad",
    [
        a_message("x" * 129),
        a_message(""),
        a_message("nul\0"),
        a_message("surrogate\ud800"),
        a_message("e9", path="nul\0"),
        Message(message_id="e9", body=b"", content_type="\udfff"),
    ],
    ids=["long", "empty", "nul", "surrogate", "property", "content-type"],
)
async def test_with_one_bad_message_nothing_is_published(
    bad: Message, publisher: Publisher, consumer: Consumer
) -> None:
    """All or nothing: half a page published would be published twice by the relay's retry."""
    with pytest.raises(MessageRefused):
        await publisher.publish([a_message("e1"), bad, a_message("e2")])
    assert await receive_now(consumer) == []
    assert (await publisher.publish([a_message("e1")])).accepted_count == 1


async def test_the_longest_id_is_128_characters(publisher: Publisher, consumer: Consumer) -> None:
    """Service Bus takes no more, and an event id with its run must fit."""
    await publisher.publish([a_message("é" * 128)])
    assert ids(await receive_now(consumer)) == ["é" * 128]


async def test_publishers_of_the_same_ids_do_not_block_each_other_for_ever(
    bus: BusUnderTest, consumer: Consumer
) -> None:
    """Claiming ids in different orders would deadlock; each is accepted exactly once."""
    page = messages(50)
    results = await asyncio.gather(
        *(bus.publisher().publish(page[::step]) for step in (1, -1, 1, -1))
    )
    assert told(bus, *results, accepted=50, duplicate=150)
    assert sorted(ids(await receive_now(consumer))) == ids_of(page)


def ids_of(page: list[Message]) -> list[str]:
    """Give the ids of messages."""
    return [message.message_id for message in page]


async def test_an_unknown_topic_says_that_it_must_be_provisioned(bus: BusUnderTest) -> None:
    """The first thing a newcomer runs into."""
    with pytest.raises(BusRefused, match="provision"):
        await bus.publisher(topic="nowhere").publish([a_message("e1")])


async def test_an_unknown_subscription_says_that_it_must_be_provisioned(bus: BusUnderTest) -> None:
    """Neither reading nor counting invents a subscription."""
    with pytest.raises(BusRefused, match="provision"):
        await receive_now(bus.consumer("nowhere"))
    with pytest.raises(BusRefused, match="provision"):
        await bus.admin.stats("nowhere")
