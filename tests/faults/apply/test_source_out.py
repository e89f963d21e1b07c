"""The document store is out: what expired waits, the rest goes on, and nothing is dead-lettered."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

import pytest

from storemirror.apply.port import Step
from storemirror.apply.writer import SqlWriterProcessor
from storemirror.bus.port import Delivery, Message, Publisher, PublishResult, SubscriptionSpec
from storemirror.clock import SystemClock
from storemirror.errors import (
    BusRefused,
    BusUnavailable,
    EventRefused,
    MessageRefused,
    SourceRefused,
    SourceUnavailable,
    SqlUnavailable,
    StoreMirrorError,
)
from storemirror.event.change import Change, Origin, Outcome, RowState
from storemirror.sql.port import RowEvent
from tests.integration.apply.faulty import FaultyConsumer, FaultyMirror
from tests.integration.apply.pipe import (
    HOUR_S,
    SETTINGS,
    START_US,
    Pipe,
    UntilTold,
    a_change,
    a_chat_message,
    a_follow,
    message_of,
    referring_to,
)

pytestmark = pytest.mark.postgres
BUSES = ("memory", "postgres", "servicebus")

#: The subscription's, by default.
MAX_DELIVERIES = SubscriptionSpec(name="any").max_delivery_count
NOW_US = START_US + 3 * 86_400_000_000
LATE = [a_chat_message(number) for number in range(5)]
#: With its contents, which makes it expire, or without them.
SENT = pytest.mark.parametrize("sent", [message_of, referring_to], ids=["expired", "references"])


class Source:
    """A document store whose documents are gone, and that is out as long as it is told."""

    def __init__(self, error: StoreMirrorError) -> None:
        self.error = error
        self.try_count = self.answer_count = 0
        #: Asked at each try whether it answers; gets the number of the try.
        self.answers: Callable[[int], Awaitable[bool]] = self._never

    async def _never(self, _: int) -> bool:
        return False

    async def reread(self, path: str, *, run: str) -> Message:
        self.try_count += 1
        if not await self.answers(self.try_count):
            raise self.error
        self.answer_count += 1
        return message_of(a_change(path, None, NOW_US, origin=Origin.REREAD), run=run)


class RefusingPublisher:
    """Refuses what it is told to, one a call."""

    def __init__(self, publisher: Publisher, *errors: StoreMirrorError) -> None:
        self._publisher = publisher
        self.errors = list(errors)

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        if self.errors:
            raise self.errors.pop(0)
        return await self._publisher.publish(messages)

    async def aclose(self) -> None:
        await self._publisher.aclose()


async def assert_all_reread(pipe: Pipe, count: int = len(LATE)) -> None:
    """See that every late message has become the tombstone that its document is."""
    assert await pipe.dead_letters() == []
    for number in range(count):
        row = await pipe.under_test.mirror.row(pipe.model["DmMessage"], ("c1", f"m{number}"))
        assert row is not None
        assert row.state is RowState.TOMBSTONE


@pytest.mark.parametrize("error", [SourceUnavailable("silent"), SourceRefused("no rights")])
async def test_an_outage_of_any_length_costs_no_delivery_and_holds_up_nothing_else(
    pipe: Pipe, error: StoreMirrorError
) -> None:
    """A delivery a try would make a dead letter of every late event within minutes."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish([*LATE, *(a_follow(number) for number in range(20))])
    source = Source(error)

    async def is_back(try_count: int) -> bool:
        row = await pipe.under_test.mirror.row(pipe.model["FollowEdge"], ("u19", "v"))
        return row is not None and try_count > 3 * MAX_DELIVERIES

    source.answers = is_back
    consumer = FaultyConsumer(pipe.new_consumer())
    writer = pipe.processor(consumer=consumer, reread=source)
    await pipe.run_until_empty(writer)
    assert source.try_count > 3 * MAX_DELIVERIES
    assert {d.delivery_count for d in consumer.received} == {1}
    assert (writer.stats.abandoned, writer.stats.dead_lettered) == (0, 0)
    assert writer.stats.expired == len(LATE)
    await assert_all_reread(pipe)


async def test_only_one_event_is_tried_while_the_source_is_out(pipe: Pipe) -> None:
    """Each try may take seconds, and costs a read where it is answered at last."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish(LATE)
    tried: list[str] = []
    source = Source(SourceUnavailable("silent"))
    reread = source.reread

    async def noted(path: str, *, run: str) -> Message:
        tried.append(path)
        return await reread(path, run=run)

    source.reread = noted  # type: ignore[method-assign]

    async def is_back(try_count: int) -> bool:
        return try_count > 10

    source.answers = is_back
    await pipe.run_until_empty(pipe.processor(reread=source))
    assert len(set(tried[:11])) == 1
    await assert_all_reread(pipe)


def stop_at_second_try(source: Source, stop: asyncio.Event) -> None:
    """Let the source be out, and the writer end once it has noticed."""
    first = source.try_count

    async def is_back(try_count: int) -> bool:
        if try_count > first + 1:
            stop.set()
        return False

    source.answers = is_back


@SENT
async def test_writers_that_end_meanwhile_cost_no_delivery_either(
    pipe: Pipe, sent: Callable[[Change], Message]
) -> None:
    """Deployments during an outage of the source must not add up to dead letters."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publisher.publish([sent(change) for change in LATE])
    source = Source(SourceUnavailable("silent"))
    for _ in range(MAX_DELIVERIES + 1):
        stop = asyncio.Event()
        stop_at_second_try(source, stop)
        consumer = FaultyConsumer(pipe.new_consumer())
        writer = pipe.processor(consumer=consumer, reread=source)
        await writer.run(stop)
        await consumer.aclose()
        assert len(consumer.received) == len(LATE)
        assert {d.delivery_count for d in consumer.received} == {1}
        assert writer.in_hand_count == 0
        assert (await pipe.stats()).depth == len(LATE)

    async def is_back(_: int) -> bool:
        return True

    source.answers = is_back
    await pipe.run_until_empty(pipe.processor(reread=source))
    await assert_all_reread(pipe)


async def test_a_bus_that_is_out_too_at_the_end_costs_one_delivery(pipe: Pipe) -> None:
    """Nothing is completed that has no replacement."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish(LATE)
    source, stop = Source(SourceUnavailable("silent")), asyncio.Event()
    stop_at_second_try(source, stop)
    publisher = RefusingPublisher(pipe.publisher, *[BusUnavailable("silent")] * 9)
    cut = dataclasses.replace(pipe, publisher=publisher)
    writer = cut.processor(reread=source)
    await writer.run(stop)
    assert writer.stats.abandoned == len(LATE)
    assert (await pipe.stats()).depth == len(LATE)


async def test_what_the_bus_refuses_while_it_waits_is_set_aside(pipe: Pipe) -> None:
    """A document too large for the bus must not hold up those behind it."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish(LATE)
    source = Source(SourceUnavailable("silent"))

    async def is_back(try_count: int) -> bool:
        return try_count > 3

    source.answers = is_back
    publisher = RefusingPublisher(pipe.publisher, MessageRefused("too large"))
    cut = dataclasses.replace(pipe, publisher=publisher)
    await pipe.run_until_empty(cut.processor(reread=source))
    (letter,) = await pipe.dead_letters()
    assert letter.reason == "MessageRefused"
    assert letter.message.message_id in {change.event_id for change in LATE}


async def test_a_bus_that_says_no_to_everything_is_waited_for(pipe: Pipe) -> None:
    """A writer without the right to send must not set aside every expired event.  Refs #4."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish(LATE)
    refusals = [BusRefused("no right to send") for _ in range(3)]
    publisher = RefusingPublisher(pipe.publisher, *refusals)
    source = Source(SourceUnavailable("silent"))

    async def always(_: int) -> bool:
        return True

    source.answers = always
    cut = dataclasses.replace(pipe, publisher=publisher)
    await pipe.run_until_empty(cut.processor(reread=source))
    assert not publisher.errors
    await assert_all_reread(pipe)


@SENT
async def test_what_lost_its_lock_while_it_waited_comes_again(
    pipe: Pipe, sent: Callable[[Change], Message]
) -> None:
    """It is another writer's by then; to settle it here would settle the other's."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publisher.publish([sent(change) for change in LATE])
    source = Source(SourceUnavailable("silent"))
    writers: list[SqlWriterProcessor] = []

    async def loses_locks(try_count: int) -> bool:
        if try_count == 3:
            # Before they can come again, or those would be lost as well.
            writers[0]._hand.lose(writers[0]._hand.held())
            await pipe.expire_locks()
        return try_count > 5

    source.answers = loses_locks
    writers.append(pipe.processor(reread=source))
    await pipe.run_until_empty(writers[0])
    assert writers[0].stats.lost_locks == len(LATE)
    await assert_all_reread(pipe)


class CountingClock(SystemClock):
    """Counts the longest pauses; those between two tries are drawn, and shorter."""

    def __init__(self) -> None:
        self.pause_count = 0

    async def sleep(self, duration_s: float) -> None:
        await super().sleep(duration_s)
        self.pause_count += duration_s == SETTINGS.retry_max_s


@pytest.mark.parametrize("expired_count", [20, 10, 0], ids=["expired", "both", "references"])
async def test_more_than_the_hand_holds_keeps_nothing_else_waiting(
    pipe: Pipe, expired_count: int
) -> None:
    """What waits once took all the room there is, and nothing was received any more (#3, #5).

    What goes back for want of room comes straight back: it goes once a pause, or it would spin.
    What expired and what came without its contents share the room.
    """
    late = [a_chat_message(number) for number in range(20)]
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish(late[:expired_count])
    await pipe.publisher.publish([referring_to(change) for change in late[expired_count:]])
    await pipe.publish([a_follow(number) for number in range(20)])
    source, clock = Source(SourceUnavailable("silent")), CountingClock()
    consumer = FaultyConsumer(pipe.new_consumer())
    received_by_pause: list[tuple[int, int]] = []
    most_held = 0

    async def is_back(_: int) -> bool:
        if not received_by_pause:
            row = await pipe.under_test.mirror.row(pipe.model["FollowEdge"], ("u19", "v"))
            if row is None or clock.pause_count < 30:
                return False
            received_by_pause.append((len(consumer.received), clock.pause_count))
        return True

    async def look(_: Step, __: Sequence[Delivery]) -> None:
        nonlocal most_held
        most_held = max(most_held, writer.in_hand_count)

    source.answers = is_back
    # Its hand holds four: two wait, and two may be under way.
    writer = pipe.processor(
        consumer=consumer,
        reread=source,
        hooks=look,
        clock=clock,
        lane_count=1,
        batch_max_events=2,
        receive_max_count=2,
    )
    await pipe.run_until_empty(writer)
    received_count, pause_count = received_by_pause[0]
    assert received_count <= 20 + 4 + 2 * pause_count
    assert most_held == 4
    assert {d.delivery_count for d in consumer.received} == {1}
    assert (writer.stats.abandoned, writer.stats.dead_lettered) == (0, 0)
    await assert_all_reread(pipe, len(late))


async def test_writers_that_end_put_back_what_was_too_much_too(pipe: Pipe) -> None:
    """It is held until its pause is over, and an end must not cost it a delivery."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish(LATE)
    source, stop = Source(SourceUnavailable("silent")), asyncio.Event()
    consumer = FaultyConsumer(pipe.new_consumer())

    async def watch(_: int) -> bool:
        if writer.stats.expired == 4:
            stop.set()
        return False

    source.answers = watch
    writer = pipe.processor(
        consumer=consumer,
        reread=source,
        clock=UntilTold(asyncio.Event()),
        retry_max_s=HOUR_S,
        lane_count=1,
        batch_max_events=2,
        receive_max_count=2,
    )
    await writer.run(stop)
    assert len(consumer.received) == 4
    assert (writer.stats.abandoned, writer.stats.settled, writer.in_hand_count) == (0, 4, 0)
    assert (await pipe.stats()).depth == len(LATE)


class HalfOut(FaultyMirror):
    """Refuses what is not all of one kind, as for a bad event; then takes no follow edge."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(pipe)
        self.is_out = False
        self.was_out = False

    async def apply(
        self, events: Sequence[RowEvent], *, timeout_s: float | None = None
    ) -> list[Outcome]:
        entities = {event.entity.name for event in events}
        if len(entities) > 1:
            raise EventRefused("bad", event_id="", path="")
        if entities == {"FollowEdge"} and not self.was_out:
            self.is_out = True
        if entities == {"FollowEdge"} and self.is_out:
            raise SqlUnavailable("silent")
        return await super().apply(events, timeout_s=timeout_s)


@pytest.mark.parametrize("ends_meanwhile", [False, True])
async def test_what_waits_is_not_given_back_for_an_outage_of_the_database(
    pipe: Pipe, *, ends_meanwhile: bool
) -> None:
    """A batch is cut: one part waits for the source, the next meets the outage (#3)."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish([*LATE[:2], a_follow(1), a_follow(2)])
    mirror, source, stop = HalfOut(pipe), Source(SourceUnavailable("silent")), asyncio.Event()

    async def comes_back() -> None:
        if mirror.is_out and ends_meanwhile:
            stop.set()
            raise SqlUnavailable("silent")
        mirror.was_out, mirror.is_out = mirror.was_out or mirror.is_out, False

    async def is_back(_: int) -> bool:
        row = await pipe.under_test.mirror.row(pipe.model["FollowEdge"], ("u2", "v"))
        return row is not None

    mirror.before_probe, source.answers = comes_back, is_back
    consumer = FaultyConsumer(pipe.new_consumer())
    writer = pipe.processor(
        mirror=mirror, consumer=consumer, reread=source, lane_count=1, receive_max_count=4
    )
    await writer.run(stop, on_idle=pipe.stop_when_empty(stop))
    late_ids = {change.event_id for change in LATE[:2]}
    late = [d for d in consumer.received if d.message.message_id in late_ids]
    assert [d.delivery_count for d in late] == [1, 1]
    assert writer.stats.expired == len(late)
    assert writer.stats.abandoned == (2 if ends_meanwhile else 1)
    assert (await pipe.stats()).depth == (4 if ends_meanwhile else 0)
    assert await pipe.dead_letters() == []


async def test_drains_during_an_outage_cost_no_delivery(pipe: Pipe) -> None:
    """It runs every minute: ten of them would be the end of each late event."""
    await pipe.set_purge_horizon("2026-01-02")
    await pipe.publish([*LATE, a_follow(1)])
    for applied in (1, 0, 0):
        is_over = asyncio.Event()
        source = Source(SourceUnavailable("silent"))

        async def watch(try_count: int, is_over: asyncio.Event = is_over) -> bool:
            """Let the hour be over once the source was asked again, and the rest is applied."""
            if try_count > 2 and (await pipe.stats()).depth == len(LATE):
                is_over.set()
            return False

        source.answers = watch
        consumer = FaultyConsumer(pipe.new_consumer())
        drained = await pipe.drain(
            consumer=consumer, reread=source, max_duration_s=HOUR_S, clock=UntilTold(is_over)
        )
        await consumer.aclose()
        assert {d.delivery_count for d in consumer.received} == {1}
        assert (drained.applied, drained.expired) == (applied, len(LATE))
        assert (drained.depth, drained.abandoned, drained.dead_lettered) == (len(LATE), 0, 0)
        assert not drained.is_drained
