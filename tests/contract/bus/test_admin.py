"""Provisioning and counting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storemirror.bus.port import Consumer, Publisher, Rejection, SubscriptionSpec, TopicSpec
from storemirror.errors import BusRefused
from tests.contract.bus.under_test import (
    LOCK_S,
    MONITORING,
    TOPIC_SPEC,
    WRITER,
    BusUnderTest,
    a_message,
    counted,
    ids,
    messages,
    receive_now,
    told,
)


async def test_an_empty_subscription_counts_nothing(bus: BusUnderTest) -> None:
    """None is the age of nothing; 0 would be the age of something new."""
    stats = await bus.admin.stats(WRITER)
    assert stats.subscription == WRITER
    assert stats.depth == 0
    assert stats.locked_count == stats.completed_count == counted(bus, 0)
    assert (stats.oldest_age_s, stats.oldest_enqueued_at_us) == (None, None)


async def test_stats_tell_waiting_locked_and_completed_apart(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Depth is what an operator watches; it includes what is in hand."""
    await publisher.publish(messages(5))
    await consumer.complete(await receive_now(consumer, 1))
    held = await receive_now(consumer, 2)
    await bus.let_pass(10.0)
    stats = await bus.admin.stats(WRITER)
    assert stats.depth == 4
    assert (stats.locked_count, stats.completed_count) == (counted(bus, 2), counted(bus, 1))
    assert stats.oldest_age_s is not None
    assert 10.0 <= stats.oldest_age_s < 20.0
    await bus.let_pass(LOCK_S)
    stats = await bus.admin.stats(WRITER)
    assert (stats.depth, stats.locked_count) == (4, counted(bus, 0))
    assert stats.oldest_enqueued_at_us is not None
    assert stats.oldest_enqueued_at_us <= held[0].enqueued_at_us


async def test_the_oldest_age_is_that_of_the_counts(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Waiting or locked: whoever reads the mirror wants to know what it does not show yet."""
    assert await bus.admin.oldest_age_s(WRITER) is None
    await publisher.publish(messages(1))
    await bus.let_pass(10.0)
    await publisher.publish([a_message("e00001")])
    held = await receive_now(consumer, 1)
    age_s = await bus.admin.oldest_age_s(WRITER)
    assert age_s is not None
    assert 10.0 <= age_s < 20.0
    await consumer.complete(held)
    age_s = await bus.admin.oldest_age_s(WRITER)
    assert age_s is not None
    assert age_s < 10.0
    await consumer.complete(await receive_now(consumer))
    assert await bus.admin.oldest_age_s(WRITER) is None


async def test_every_completion_is_counted_exactly(telling_bus: BusUnderTest) -> None:
    """The demo's claim that everything was settled rests on this number."""
    consumer = telling_bus.consumer()
    await telling_bus.publisher().publish(messages(250))
    for delivery in await receive_now(consumer):
        await consumer.complete([delivery])
    assert (await telling_bus.admin.stats(WRITER)).completed_count == 250
    assert (await telling_bus.admin.stats(WRITER)).completed_count == 250


async def test_provisioning_again_keeps_every_message(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """It runs at every deployment."""
    await publisher.publish(messages(3))
    held = await receive_now(consumer, 1)
    await bus.admin.provision(TOPIC_SPEC)
    assert await consumer.complete(held) == []
    assert ids(await receive_now(consumer)) == ["e00001", "e00002"]
    assert told(bus, await publisher.publish(messages(3)), accepted=0, duplicate=3)
    assert await receive_now(consumer) == []


async def test_provisioning_brings_a_subscription_to_new_settings(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """An operator who shortens the lock expects it to be short."""
    writer, monitoring = TOPIC_SPEC.subscriptions
    shorter = replace(writer, lock_duration_s=5.0)
    await bus.admin.provision(replace(TOPIC_SPEC, subscriptions=(shorter, monitoring)))
    await publisher.publish([a_message("e1")])
    await receive_now(consumer)
    await bus.let_pass(6.0)
    assert ids(await receive_now(consumer)) == ["e1"]


async def test_a_new_subscription_gets_what_is_published_from_then_on(
    bus: BusUnderTest, publisher: Publisher
) -> None:
    """As on Service Bus; what was before is for a backfill."""
    await publisher.publish([a_message("before")])
    later = SubscriptionSpec(name="audit")
    await bus.admin.provision(replace(TOPIC_SPEC, subscriptions=(*TOPIC_SPEC.subscriptions, later)))
    await publisher.publish([a_message("after")])
    assert ids(await receive_now(bus.consumer("audit"))) == ["after"]


@pytest.mark.parametrize(
    "bad",
    [
        replace(TOPIC_SPEC, name="another"),
        replace(TOPIC_SPEC, duplicate_window_s=-1.0),
        replace(TOPIC_SPEC, subscriptions=(SubscriptionSpec(name=""),)),
        replace(TOPIC_SPEC, subscriptions=(SubscriptionSpec(name="a"),) * 2),
        replace(TOPIC_SPEC, subscriptions=(SubscriptionSpec(name="a", lock_duration_s=0.0),)),
        replace(TOPIC_SPEC, subscriptions=(SubscriptionSpec(name="a", max_delivery_count=0),)),
        replace(TOPIC_SPEC, subscriptions=(SubscriptionSpec(name="a", time_to_live_s=-1.0),)),
    ],
    ids=["other topic", "window", "no name", "twice", "lock", "count", "ttl"],
)
async def test_settings_that_make_no_sense_are_refused(bad: TopicSpec, bus: BusUnderTest) -> None:
    """A lock of no duration would hand every event to every worker."""
    with pytest.raises(BusRefused):
        await bus.admin.provision(bad)


async def test_a_purge_removes_what_waits_and_nothing_else(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """What is held is its holder's, a dead letter is a person's, another subscription another's."""
    await publisher.publish(messages(10))
    set_aside, held = await receive_now(consumer, 2)
    await consumer.dead_letter([Rejection(delivery=set_aside, reason="Odd", description="odd")])
    await consumer.abandon(await receive_now(consumer, 1))
    assert await bus.admin.purge(WRITER) == 8
    stats = await bus.admin.stats(WRITER)
    assert (stats.depth, stats.dead_letter_count) == (1, 1)
    assert (stats.locked_count, stats.completed_count) == (counted(bus, 1), counted(bus, 0))
    assert (await bus.admin.stats(MONITORING)).depth == 10
    assert await consumer.complete([held]) == []
    assert await bus.admin.purge(WRITER) == 0
    await publisher.publish([a_message("later")])
    assert ids(await receive_now(consumer)) == ["later"]


async def test_a_purge_takes_what_a_dead_consumer_held(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Its locks have run out; nobody will settle these."""
    await publisher.publish(messages(3))
    await receive_now(consumer)
    await bus.let_pass(LOCK_S + 1.0)
    assert await bus.admin.purge(WRITER) == 3


async def test_a_purge_of_more_than_a_page_ends(bus: BusUnderTest, publisher: Publisher) -> None:
    """A backlog of an outage is many pages long."""
    for start in range(0, 5_000, 500):
        await publisher.publish([a_message(f"e{n}") for n in range(start, start + 500)])
    assert await bus.admin.purge(WRITER) == 5_000
    assert (await bus.admin.stats(WRITER)).depth == 0


async def test_a_purge_of_an_unknown_subscription_is_refused(bus: BusUnderTest) -> None:
    """A misspelt name must not pass for an empty one."""
    with pytest.raises(BusRefused):
        await bus.admin.purge("no-such")
