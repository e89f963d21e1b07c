"""Receiving under a lock, and settling."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.bus.port import MAX_DELIVERY_REASON, Consumer, Publisher, Rejection
from tests.contract.bus.under_test import (
    LOCK_S,
    MAX_DELIVERY_COUNT,
    WRITER,
    BusUnderTest,
    a_message,
    counted,
    ids,
    messages,
    receive_now,
)


async def test_a_delivery_in_hand_is_given_to_nobody_else(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Two workers on one event at a time would waste each other's work."""
    await publisher.publish([a_message("e1")])
    (delivery,) = await receive_now(consumer)
    assert delivery.delivery_count == 1
    assert delivery.locked_until_us - delivery.enqueued_at_us >= LOCK_S * 1_000_000
    assert await receive_now(bus.consumer()) == []


async def test_at_most_so_many_are_given_as_were_asked_for(
    publisher: Publisher, consumer: Consumer
) -> None:
    """A writer asks for what it can hold in memory."""
    await publisher.publish(messages(5))
    assert ids(await receive_now(consumer, 2)) == ["e00000", "e00001"]
    assert ids(await receive_now(consumer, 9)) == ["e00002", "e00003", "e00004"]


async def test_after_a_flood_no_more_is_given_than_was_asked_for(
    publisher: Publisher, consumer: Consumer
) -> None:
    """A hand that is nearly full asks for the one that it has room for (issue 5)."""
    await publisher.publish(messages(30))
    assert len(await receive_now(consumer, 10)) == 10
    for max_count in (2, 1, 1):
        assert len(await receive_now(consumer, max_count)) <= max_count


async def test_a_consumer_cannot_ask_for_nothing(consumer: Consumer) -> None:
    """A caller that has no room has a bug if it asks all the same."""
    with pytest.raises(ValueError, match="max_count"):
        await consumer.receive(0, max_wait_s=0.0)


async def test_consumers_get_deliveries_of_their_own(
    bus: BusUnderTest, publisher: Publisher
) -> None:
    """Several workers share a subscription; together they get everything, once."""
    await publisher.publish(messages(300))
    consumers = [bus.consumer() for _ in range(3)]
    shares = await asyncio.gather(*(receive_now(one, 40) for one in consumers for _ in range(3)))
    received = [message_id for share in shares for message_id in ids(share)]
    rest = ids(await receive_now(consumers[0]))
    assert len(set(received)) == len(received)
    assert sorted(received + rest) == [message.message_id for message in messages(300)]


async def test_a_completed_delivery_never_comes_again(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Settled is settled, and counted once."""
    await publisher.publish(messages(2))
    deliveries = await receive_now(consumer)
    assert await consumer.complete(deliveries) == []
    assert await consumer.complete(deliveries) == deliveries
    await bus.let_pass(LOCK_S + 1)
    assert await receive_now(consumer) == []
    assert (await bus.admin.stats(WRITER)).completed_count == counted(bus, 2)


async def test_a_lock_that_ran_out_gives_the_delivery_to_the_next(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A worker that died must not take its events with it."""
    await publisher.publish([a_message("e1")])
    await receive_now(consumer)
    await bus.let_pass(LOCK_S - bus.margin_s)
    assert await receive_now(bus.consumer()) == []
    await bus.let_pass(bus.margin_s + 1)
    (again,) = await receive_now(bus.consumer())
    assert (again.message.message_id, again.delivery_count) == ("e1", 2)


async def test_a_lost_lock_settles_nothing(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A slow worker must not settle, renew or spoil the delivery that another one has now."""
    await publisher.publish(messages(2))
    late = await receive_now(consumer)
    await bus.let_pass(LOCK_S + 1)
    other = bus.consumer()
    (first,) = await receive_now(other, 1)
    rejections = [Rejection(delivery=one, reason="Late", description="") for one in late]
    assert await consumer.complete(late) == late
    assert await consumer.abandon(late) == late
    assert await consumer.dead_letter(rejections) == late
    assert await consumer.renew(late) == []
    assert await other.complete([first]) == []
    stats = await bus.admin.stats(WRITER)
    assert (stats.depth, stats.dead_letter_count) == (1, 0)
    assert stats.completed_count == counted(bus, 1)


async def test_an_old_lock_beside_newer_ones_settles_only_its_own(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """One call may hold deliveries of several receptions; number and lock belong together."""
    await publisher.publish(messages(2))
    old = await receive_now(consumer)
    await bus.let_pass(LOCK_S + 1)
    new = await receive_now(consumer)
    assert await consumer.complete([old[0], new[1]]) == [old[0]]
    assert await consumer.complete([new[0]]) == []


async def test_a_renewed_lock_lasts_a_whole_duration_longer(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A database that is away for a minute must not cost a delivery."""
    await publisher.publish(messages(2))
    deliveries = await receive_now(consumer)
    await bus.let_pass(LOCK_S - bus.margin_s)
    renewed = await consumer.renew(deliveries[:1])
    assert ids(renewed) == ["e00000"]
    await bus.let_pass(LOCK_S - bus.margin_s)
    assert ids(await receive_now(bus.consumer())) == ["e00001"]
    assert await consumer.complete(renewed) == []


async def test_renewals_and_settlements_do_not_disturb_each_other(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Locks are renewed by the clock, while lanes settle what is done (issue 5)."""
    await publisher.publish(messages(60))
    deliveries = await receive_now(consumer)
    while len(deliveries) < 60:
        deliveries += await receive_now(consumer)
    shares = [deliveries[start : start + 6] for start in range(0, 60, 6)]
    renewals = asyncio.gather(*(consumer.renew(deliveries) for _ in range(4)))
    lost = [await consumer.complete(share) for share in shares]
    for renewed in await renewals:
        assert set(ids(renewed)) <= set(ids(deliveries))
    assert lost == [[]] * len(shares)
    assert (await bus.admin.stats(WRITER)).depth == 0


async def test_a_renewal_says_until_when_it_lasts(publisher: Publisher, consumer: Consumer) -> None:
    """The writer plans its next renewal by it."""
    await publisher.publish([a_message("e1")])
    (delivery,) = await receive_now(consumer)
    (renewed,) = await consumer.renew([delivery])
    assert renewed.locked_until_us >= delivery.locked_until_us
    assert renewed.lock_token == delivery.lock_token


async def test_an_abandoned_delivery_is_there_at_once_and_counted(
    publisher: Publisher, consumer: Consumer
) -> None:
    """Abandoning is for trouble that may be over the next moment."""
    await publisher.publish(messages(3))
    deliveries = await receive_now(consumer)
    assert await consumer.abandon(deliveries[1:]) == []
    again = await receive_now(consumer)
    assert ids(again) == ["e00001", "e00002"]
    assert [delivery.delivery_count for delivery in again] == [2, 2]
    assert await consumer.complete(deliveries[1:]) == deliveries[1:]


async def test_what_came_back_is_given_before_what_is_newer(
    publisher: Publisher, consumer: Consumer
) -> None:
    """Else a delivery that came back could wait behind a backlog for ever."""
    await publisher.publish(messages(2))
    deliveries = await receive_now(consumer)
    await publisher.publish([a_message("newer")])
    await consumer.abandon(deliveries)
    assert ids(await receive_now(consumer, 2)) == ["e00000", "e00001"]


async def test_one_abandoned_too_often_is_dead_lettered_by_the_bus(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A message that kills every worker must not do so for ever."""
    await publisher.publish([a_message("e1", b"body", path="a/b")])
    for count in range(1, MAX_DELIVERY_COUNT + 1):
        (delivery,) = await receive_now(consumer)
        assert delivery.delivery_count == count
        await consumer.abandon([delivery])
    assert await receive_now(consumer) == []
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert letter.reason == MAX_DELIVERY_REASON
    assert str(MAX_DELIVERY_COUNT) in letter.description
    assert letter.delivery_count == MAX_DELIVERY_COUNT
    assert letter.message == a_message("e1", b"body", path="a/b")


async def test_one_whose_lock_ran_out_too_often_is_dead_lettered_and_others_still_come(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A worker that is killed abandons nothing; what is behind must not wait for the bad one."""
    await publisher.publish([a_message("bad")])
    for _ in range(MAX_DELIVERY_COUNT):
        assert ids(await receive_now(consumer)) == ["bad"]
        await bus.let_pass(LOCK_S + 1)
    await publisher.publish([a_message("good")])
    assert ids(await receive_now(consumer, 1)) == ["good"]
    (letter,) = await bus.admin.peek_dead_letters(WRITER, limit=10)
    assert (letter.message.message_id, letter.reason) == ("bad", MAX_DELIVERY_REASON)


async def test_an_exhausted_message_is_dead_lettered_though_nobody_receives(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Dead letters block the rollout: they must be seen when the writer is stopped as well."""
    await publisher.publish([a_message("bad")])
    for _ in range(MAX_DELIVERY_COUNT):
        await receive_now(consumer)
        await bus.let_pass(LOCK_S + 1)
    stats = await bus.admin.stats(WRITER)
    assert (stats.depth, stats.dead_letter_count) == (0, 1)


async def test_a_waiting_consumer_is_woken_by_a_message(
    publisher: Publisher, consumer: Consumer
) -> None:
    """Real time: a consumer waits for events, it does not ask for them now and then."""
    waiting = asyncio.create_task(consumer.receive(10, max_wait_s=60.0))
    await publisher.publish([a_message("e1")])
    assert ids(await waiting) == ["e1"]


async def test_every_waiting_consumer_is_woken(bus: BusUnderTest, publisher: Publisher) -> None:
    """With one consumer woken, the messages it leaves behind would wait for the next poll."""
    waiting = [asyncio.create_task(bus.consumer().receive(1, max_wait_s=60.0)) for _ in range(3)]
    await publisher.publish(messages(3))
    received = [ids(deliveries) for deliveries in await asyncio.gather(*waiting)]
    assert sorted(received) == [["e00000"], ["e00001"], ["e00002"]]


async def test_a_waiting_consumer_gets_what_another_abandons(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A worker that stops hands its batch over."""
    await publisher.publish([a_message("e1")])
    deliveries = await receive_now(consumer)
    waiting = asyncio.create_task(bus.consumer().receive(10, max_wait_s=60.0))
    await consumer.abandon(deliveries)
    assert ids(await waiting) == ["e1"]


async def test_a_waiting_consumer_gets_what_a_dead_one_held(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Nothing is published when a lock runs out; the consumer notices by itself."""
    await publisher.publish([a_message("e1")])
    await receive_now(consumer)
    waiting = asyncio.create_task(bus.consumer().receive(10, max_wait_s=LOCK_S * 10))
    await bus.let_pass(LOCK_S + 1)
    assert ids(await waiting) == ["e1"]


async def test_settling_nothing_is_no_mistake(consumer: Consumer) -> None:
    """A batch may hold only poison, or none."""
    assert await consumer.complete([]) == []
    assert await consumer.abandon([]) == []
    assert await consumer.dead_letter([]) == []
    assert await consumer.renew([]) == []
