"""The fault wrapper: it repeats, reorders and drops, and loses nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from storemirror.bus.faults import FaultCounts, Faults, FaultyConsumer, FaultyPublisher
from storemirror.bus.port import Consumer, Delivery, Publisher
from storemirror.clock import SystemClock
from storemirror.errors import BusUnavailable
from tests.contract.bus.under_test import (
    LOCK_S,
    WRITER,
    BusUnderTest,
    a_message,
    counted,
    ids,
    messages,
    receive_now,
)


def faulty(inner: Consumer, faults: Faults, seed: int = 1) -> FaultyConsumer:
    """Wrap a consumer."""
    return FaultyConsumer(inner, faults, random.Random(seed), SystemClock())


async def drained(consumer: Consumer, max_count: int = 20) -> list[Delivery]:
    """Receive and complete until nothing comes any more; gives every delivery in its order."""
    seen: list[Delivery] = []
    while deliveries := await consumer.receive(max_count, max_wait_s=0.0):
        assert await consumer.complete(deliveries) == []
        seen += deliveries
    return seen


@pytest.mark.parametrize("seed", range(5))
async def test_every_message_is_seen_and_settled_in_the_end(
    seed: int, bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The demo's proof that the mirror stands repeats and disorder rests on it."""
    faults = Faults(repeat=0.2, reorder=0.2, drop=0.2)
    faulty_publisher = FaultyPublisher(publisher, faults, random.Random(seed))
    faulty_consumer = faulty(consumer, faults, seed)
    seen: list[Delivery] = []
    for page in range(10):
        result = await faulty_publisher.publish(messages(30, f"p{page}-"))
        assert (result.accepted_count, result.duplicate_count) == (30, 0)
        seen += await drained(faulty_consumer)
    await faulty_publisher.flush()
    seen += await drained(faulty_consumer)

    repeated = faulty_publisher.counts.repeated
    dropped, reordered = faulty_consumer.counts.dropped, faulty_consumer.counts.reordered
    assert min(repeated, dropped, reordered) > 10
    bodies = Counter(delivery.message.message_id.partition(".")[0] for delivery in seen)
    assert len(bodies) == 300
    assert bodies.total() == 300 + repeated + dropped
    numbers = [delivery.sequence_number for delivery in seen]
    assert numbers != sorted(numbers)
    stats = await bus.admin.stats(WRITER)
    assert (stats.depth, stats.dead_letter_count) == (0, 0)
    assert stats.completed_count == counted(bus, 300 + repeated)


async def test_a_completion_that_is_repeated_calls_nothing_lost_that_was_completed(
    publisher: Publisher, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo counts what was settled, and must not miss what never comes again (issue 5)."""
    await publisher.publish(messages(30))
    faulty_consumer = faulty(consumer, Faults(drop=0.3))
    deliveries = await receive_now(consumer, 30)
    while len(deliveries) < 30:
        deliveries += await receive_now(consumer, 30)

    async def away(_: Sequence[Delivery]) -> list[Delivery]:
        raise BusUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(consumer, "abandon", away)
        with pytest.raises(BusUnavailable):
            await faulty_consumer.complete(deliveries)
    assert await faulty_consumer.complete(deliveries) == []


async def test_without_faults_everything_passes_as_it_is(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The wrapper itself must change nothing."""
    faulty_consumer = faulty(consumer, Faults())
    await FaultyPublisher(publisher, Faults(), random.Random(1)).publish(messages(30))
    seen = await drained(faulty_consumer, max_count=100)
    assert sorted(ids(seen)) == [message.message_id for message in messages(30)]
    assert faulty_consumer.counts == FaultCounts()
    assert (await bus.admin.stats(WRITER)).completed_count == counted(bus, 30)


async def test_a_delivery_held_back_keeps_its_lock(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Held back without renewal it would come twice, and its first settlement would be lost."""
    faulty_consumer = faulty(consumer, Faults(reorder=1.0, max_calls_held=1))
    await publisher.publish([a_message("e1")])
    (held,) = await receive_now(faulty_consumer)
    assert faulty_consumer.counts.reordered == 1
    await bus.let_pass(LOCK_S - bus.margin_s)
    assert await faulty_consumer.renew([held]) != []
    await bus.let_pass(LOCK_S - bus.margin_s)
    assert await faulty_consumer.complete([held]) == []


async def test_what_is_held_back_is_given_out_after_what_came_later(
    publisher: Publisher, consumer: Consumer
) -> None:
    """Disorder within one batch would not be enough: the writer sorts a batch."""
    later_first = 0
    faulty_consumer = faulty(consumer, Faults(reorder=0.5))
    newest = 0
    for page in range(20):
        await publisher.publish(messages(5, f"p{page:02}-"))
        batch = await receive_now(faulty_consumer, 5)
        later_first += sum(delivery.sequence_number < newest for delivery in batch)
        newest = max([newest, *(delivery.sequence_number for delivery in batch)])
        await faulty_consumer.complete(batch)
    assert later_first > 10


async def test_closing_gives_back_what_is_held(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The next worker must not wait for locks that nobody needs."""
    faulty_consumer = faulty(consumer, Faults(reorder=0.5, max_calls_held=100))
    await publisher.publish(messages(20))
    batch = await receive_now(faulty_consumer)
    await faulty_consumer.complete(batch)
    assert 0 < len(batch) < 20
    await faulty_consumer.aclose()
    rest = await receive_now(bus.consumer())
    assert sorted(ids(batch) + ids(rest)) == [message.message_id for message in messages(20)]


async def test_a_dropped_completion_makes_the_delivery_come_again(
    publisher: Publisher, consumer: Consumer
) -> None:
    """The consumer believes that it settled, as after a crash between commit and settlement."""
    faulty_consumer = faulty(consumer, Faults(drop=1.0))
    await publisher.publish([a_message("e1")])
    counts = []
    while deliveries := await receive_now(faulty_consumer):
        assert await faulty_consumer.complete(deliveries) == []
        counts += [delivery.delivery_count for delivery in deliveries]
    assert counts == [1, 2, 3]
    assert faulty_consumer.counts.dropped == 2


async def test_a_lost_lock_is_reported_through_the_wrapper(
    bus: BusUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A writer must be able to tell that what it settled comes again."""
    faulty_consumer = faulty(consumer, Faults(drop=0.5))
    await publisher.publish(messages(10))
    batch = await receive_now(faulty_consumer)
    await bus.let_pass(LOCK_S + 1)
    lost = await faulty_consumer.complete(batch)
    assert sorted(ids(lost)) == sorted(ids(batch))
    assert faulty_consumer.counts.dropped == 0
