"""What waits for the document store, and what goes back for want of room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from storemirror.apply.hand import Hand
from storemirror.apply.port import WriterSettings
from storemirror.apply.retry import Retry, cancel
from storemirror.apply.settler import Settler
from storemirror.apply.stats import WriterStats
from storemirror.apply.waiting import Line, WaitingRoom, put_back_message
from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import (
    SUBSCRIPTION_SQL_WRITER,
    Delivery,
    Message,
    PublishResult,
    Rejection,
    SubscriptionSpec,
    TopicSpec,
)
from storemirror.errors import BusUnavailable
from tests.unit.apply.test_hand import HandSetClock

#: A hand that holds two: one waits, one goes back.
SETTINGS = WriterSettings(is_mirror_on=True, lane_count=1, batch_max_events=1, retry_within_s=0)


class NothingToMark:
    """Nothing is set aside here."""

    async def mark(self, rejections: Sequence[Rejection]) -> None:
        assert not rejections

    def note_refusal(self, error: Exception) -> None:
        raise AssertionError from error


class Bench:
    """A room over an in-memory bus, whose publisher can be watched."""

    def __init__(self) -> None:
        self.clock = HandSetClock()
        self.bus = MemoryBus(self.clock)
        self.published: list[str] = []
        #: Awaited before each publication.
        self.before_publish: Callable[[], Awaitable[None]] | None = None
        self.consumer = self.bus.consumer(SUBSCRIPTION_SQL_WRITER)
        #: Set once the hand holds less.
        self.let_go = asyncio.Event()
        stats = WriterStats()
        self.hand = Hand(
            consumer=self.consumer,
            clock=self.clock,
            stats=stats,
            settings=SETTINGS,
            on_shrink=self.let_go.set,
        )
        retry = Retry(
            clock=self.clock, settings=SETTINGS, halt=asyncio.Event(), on_calm=lambda: None
        )
        settler = Settler(
            consumer=self.consumer,
            hand=self.hand,
            retry=retry,
            stats=stats,
            marker=NothingToMark(),
        )
        self.room = WaitingRoom(self, self.clock, settler, SETTINGS)
        self.line: Line[str] = self.room.new_line()

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        if self.before_publish is not None:
            await self.before_publish()
        self.published += [message.message_id for message in messages]
        return await self.bus.publisher().publish(messages)

    async def aclose(self) -> None:
        """See `Publisher.aclose`."""

    async def two_wait(self) -> list[Delivery]:
        """Let one wait, and one go back."""
        spec = SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER, lock_duration_s=1e9)
        await self.bus.admin().provision(TopicSpec(subscriptions=(spec,)))
        await self.bus.publisher().publish(
            [Message(message_id=f"m{n}", body=b"", content_type="x") for n in range(2)]
        )
        deliveries = await self.consumer.receive(2, max_wait_s=0.0)
        self.hand.take(deliveries)
        for delivery in deliveries:
            self.line.put(delivery, "what")
        return deliveries


async def test_what_the_bus_does_not_take_back_is_offered_again() -> None:
    """Until then it stays under lock: settled without a replacement it would be lost."""
    bench, refusals = Bench(), [BusUnavailable("silent")]
    _, excess = await bench.two_wait()

    async def refuse_once() -> None:
        if refusals:
            raise refusals.pop()

    bench.before_publish = refuse_once
    returning = asyncio.create_task(bench.room.keep_returning())
    await bench.let_go.wait()
    await cancel([returning])
    assert not refusals
    assert bench.published == [put_back_message(excess).message_id]
    assert bench.clock.sleep_count == 2, "a pause before each try"
    assert not bench.hand.holds(excess)
    assert not bench.room.keeps(excess)


async def test_what_came_again_while_it_went_back_waits_anew() -> None:
    """It was delivered under another lock, and is this writer's to look after."""
    bench = Bench()
    _, excess = await bench.two_wait()
    again = msgspec.structs.replace(excess, lock_token="another")

    async def comes_again() -> None:
        if not bench.published:
            bench.hand.lose([excess])
            bench.hand.take([again])
            bench.line.put(again, "what")
            bench.room.is_ended = True

    bench.before_publish = comes_again
    await bench.room.keep_returning()
    assert bench.room.keeps(again)
    assert not bench.room.keeps(excess)


async def test_one_that_came_again_while_it_was_tried_waits_anew() -> None:
    """What became of the try is about the delivery that was lost."""
    bench = Bench()
    first, _ = await bench.two_wait()
    tried = bench.line.first
    assert tried is not None
    again = msgspec.structs.replace(first, lock_token="another")
    bench.line.put(again, "what")
    bench.line.drop(tried)
    assert bench.room.keeps(again)


async def test_a_room_that_is_left_keeps_nothing() -> None:
    """The next writer finds every event on the bus, none of them twice delivered."""
    bench = Bench()
    deliveries = await bench.two_wait()
    assert not bench.room.is_empty
    await bench.room.put_back()
    assert bench.room.is_empty
    assert len(bench.hand) == 0
    again = await bench.consumer.receive(10, max_wait_s=0.0)
    assert [d.message.message_id for d in again] == [
        put_back_message(delivery).message_id for delivery in deliveries
    ]
    assert {delivery.delivery_count for delivery in again} == {1}
