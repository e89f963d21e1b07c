"""The apply stage between a real bus and a real database, with a clock and faults on request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from storemirror.apply.decode import EventDecoder
from storemirror.apply.drain import DrainStats, drain_realtime_mirror_queue
from storemirror.apply.port import BatchReport, Reread, StepHook, WriterSettings
from storemirror.apply.writer import SqlWriterProcessor, create_sql_writer_processor
from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import (
    SUBSCRIPTION_SQL_WRITER,
    TOPIC,
    BusAdmin,
    Consumer,
    DeadLetter,
    Message,
    Publisher,
    SubscriptionSpec,
    SubscriptionStats,
    TopicSpec,
)
from storemirror.bus.postgres import PostgresBusAdmin, PostgresConsumer, PostgresPublisher
from storemirror.bus.servicebus import ServiceBus, ServiceBusAddress
from storemirror.clock import Clock, SystemClock, datetime_from_us
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.event.envelope import CONTENT_TYPE, by_reference, encode_change, source_of
from storemirror.event.value import encode_fields
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.sql.port import SqlMirror
from storemirror.sql.postgres.connection import BUS, Database
from storemirror.sql.postgres.types import LIMITS
from tests.standins.servicebus import StandIn, running_standin
from tests.support.databases import Databases
from tests.support.mirrors import PROJECT, STORE, MirrorUnderTest, assert_equal, new_mirror
from tests.support.reference import Reference

SOURCE = source_of(PROJECT, STORE)
#: 2026-01-01, in microseconds; commit times count from here.
START_US = 1_767_225_600_000_000
#: Waits are short, so that tests that meet trouble do not last.
SETTINGS = WriterSettings(
    is_mirror_on=True,
    receive_wait_s=0.05,
    retry_first_s=0.001,
    retry_max_s=0.01,
    retry_within_s=0.2,
    shutdown_timeout_s=5.0,
)
HOUR_S = 3_600.0
#: A commit time that lies ahead of any database's clock: the procedures refuse such an event.
FUTURE_US = START_US + 100 * 365 * 86_400 * 1_000_000


def a_change(
    path: str,
    document: Mapping[str, Any] | None,
    at_us: int,
    *,
    origin: Origin = Origin.TRIGGER,
    observed_at_us: int | None = None,
) -> Change:
    """A document as it was after a write at `at_us`; None for its deletion."""
    fields = None if document is None else encode_fields(document)
    return Change(
        path=path,
        version=version_of(at_us, is_deleted=fields is None),
        origin=origin,
        observed_at_us=at_us if observed_at_us is None else observed_at_us,
        fields=fields,
        digest=digest_of(fields),
    )


def a_chat_message(
    number: int, *, conversation: str = "c1", at_us: int | None = None, body: str = "hi"
) -> Change:
    """A message; each number has a document and a commit time of its own."""
    moment_us = START_US + number if at_us is None else at_us
    document = {"senderId": "u1", "body": body, "sentAt": moment(START_US + number)}
    return a_change(f"conversations/{conversation}/messages/m{number}", document, moment_us)


def moment(time_us: int) -> datetime:
    return datetime_from_us(time_us)


def a_follow(number: int) -> Change:
    """A follow edge of its own for each number."""
    document = {"createdAt": moment(START_US)}
    return a_change(f"users/u{number}/following/v", document, START_US + number)


def message_of(change: Change, *, run: str = "") -> Message:
    suffix = f".{run}" if run else ""
    return Message(
        message_id=f"{change.event_id}{suffix}",
        body=encode_change(change, source=SOURCE),
        content_type=CONTENT_TYPE,
    )


def referring_to(change: Change) -> Message:
    """Give what a bus carries of a change that is too large for it."""
    message = message_of(change)
    referring = by_reference(message.body)
    assert referring is not None
    return replace(message, body=referring[0])


class NoReread:
    """For tests in which nothing expires."""

    async def reread(self, path: str, *, run: str) -> Message:
        raise AssertionError(f"{path} was read again, and nothing had expired")


@dataclass
class Pipe:
    """What a test needs: publish, run, look."""

    model: Model
    under_test: MirrorUnderTest
    publisher: Publisher
    admin: BusAdmin
    new_consumer: Callable[[], Consumer]
    clock: Clock
    #: Lets every lock run out, as if its time had passed.
    expire_locks: Callable[[], Awaitable[None]]
    #: What stands in for Service Bus, where it is the bus.
    standin: StandIn | None = None
    reports: list[BatchReport] = field(default_factory=list)

    async def publish(self, changes: Sequence[Change]) -> None:
        await self.publisher.publish([message_of(change) for change in changes])

    async def publish_again(self, changes: Sequence[Change], run: str) -> None:
        """Let the bus deliver the same events once more, past its duplicate detection."""
        await self.publisher.publish([message_of(change, run=run) for change in changes])

    def processor(
        self,
        *,
        mirror: SqlMirror | None = None,
        consumer: Consumer | None = None,
        reread: Reread | None = None,
        hooks: StepHook | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> SqlWriterProcessor:
        return create_sql_writer_processor(
            consumer=consumer or self.new_consumer(),
            publisher=self.publisher,
            mirror=mirror or self.under_test.mirror,
            model=self.model,
            source=SOURCE,
            clock=clock or self.clock,
            reread=reread or NoReread(),
            settings=replace(SETTINGS, **settings),
            hooks=hooks,
            on_batch=self.reports.append,
        )

    async def drain(
        self,
        *,
        consumer: Consumer,
        reread: Reread,
        max_duration_s: float,
        clock: Clock | None = None,
    ) -> DrainStats:
        """Drain as the scheduled job does."""
        return await drain_realtime_mirror_queue(
            consumer=consumer,
            publisher=self.publisher,
            admin=self.admin,
            mirror=self.under_test.mirror,
            model=self.model,
            source=SOURCE,
            clock=clock or self.clock,
            reread=reread,
            settings=SETTINGS,
            max_duration_s=max_duration_s,
        )

    async def run_until_empty(self, processor: SqlWriterProcessor) -> None:
        """Run until nothing waits and nothing is locked."""
        stop = asyncio.Event()
        await processor.run(stop, on_idle=self.stop_when_empty(stop))

    def stop_when_empty(self, stop: asyncio.Event) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            if (await self.stats()).depth == 0:
                stop.set()

        return look

    async def stats(self) -> SubscriptionStats:
        return await self.admin.stats(SUBSCRIPTION_SQL_WRITER)

    async def locked_count(self) -> int:
        """Count what is locked; Service Bus does not tell, what stands in for it does."""
        if self.standin is None:
            locked_count = (await self.stats()).locked_count
            assert locked_count is not None
            return locked_count
        queue = self.standin.topics[TOPIC].subscriptions[SUBSCRIPTION_SQL_WRITER]
        return self.standin.call(lambda: len(queue.locked))

    async def dead_letters(self) -> list[DeadLetter]:
        return await self.admin.peek_dead_letters(SUBSCRIPTION_SQL_WRITER, limit=1_000)

    async def set_purge_horizon(self, day: str) -> None:
        """Make as if tombstones of messages applied until this day had been purged."""
        await self.under_test.execute(
            "INSERT INTO storemirror.purge_horizon (entity, horizon_at)"
            " VALUES ('DmMessage', %s::timestamptz)",
            (day,),
        )

    async def assert_mirrors(self, changes: Sequence[Change]) -> None:
        """See that the tables hold what these changes, in any order, come to."""
        decoder = EventDecoder(model=self.model, limits=LIMITS, source=SOURCE)
        reference = Reference(self.model)
        reference.apply([decoder.decode(message_of(change)) for change in changes])
        await assert_equal(self.under_test, reference)


class ShiftedClock(SystemClock):
    """The machine's clock, put forward on request."""

    def __init__(self) -> None:
        self.shift_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.shift_us


class UntilTold(SystemClock):
    """A clock by which an hour is over when a test says so."""

    def __init__(self, is_over: asyncio.Event) -> None:
        self._is_over = is_over

    async def sleep(self, duration_s: float) -> None:
        if duration_s == HOUR_S:
            await self._is_over.wait()
        else:
            await super().sleep(duration_s)


@dataclass(frozen=True)
class BusUnderTest:
    """One bus, whichever it is."""

    publisher: Publisher
    admin: BusAdmin
    new_consumer: Callable[[], Consumer]
    expire_locks: Callable[[], Awaitable[None]]
    #: What stands in for the service, where one does.
    standin: StandIn | None = None


@contextlib.asynccontextmanager
async def memory_bus() -> AsyncIterator[BusUnderTest]:
    clock = ShiftedClock()
    bus = MemoryBus(clock)

    async def expire_locks() -> None:
        clock.shift_us += 3_600_000_000

    yield BusUnderTest(
        bus.publisher(), bus.admin(), lambda: bus.consumer(SUBSCRIPTION_SQL_WRITER), expire_locks
    )


@contextlib.asynccontextmanager
async def postgres_bus(dsn: str) -> AsyncIterator[BusUnderTest]:
    clock = SystemClock()
    database = Database(dsn, BUS, max_size=8)
    await database.open()
    consumers: list[PostgresConsumer] = []

    def new_consumer() -> Consumer:
        consumer = PostgresConsumer(database, clock, subscription=SUBSCRIPTION_SQL_WRITER)
        consumers.append(consumer)
        return consumer

    async def expire_locks() -> None:
        async with database.connection() as conn:
            await conn.execute("UPDATE bus.queue SET locked_until_us = least(locked_until_us, 1)")

    publisher = PostgresPublisher(database, clock)
    yield BusUnderTest(publisher, PostgresBusAdmin(database), new_consumer, expire_locks)
    for consumer in consumers:
        await consumer.aclose()
    await publisher.aclose()
    await database.aclose()


@contextlib.asynccontextmanager
async def servicebus_bus() -> AsyncIterator[BusUnderTest]:
    with running_standin() as standin:
        address = ServiceBusAddress(
            connection_string=standin.connection_string(),
            emulator_management=standin.management_endpoint,
        )
        bus, clock = ServiceBus(address), SystemClock()
        publisher = bus.publisher(clock, topic=TOPIC)
        admin = bus.admin(clock, topic=TOPIC)
        consumers: list[Consumer] = []

        def new_consumer() -> Consumer:
            consumer = bus.consumer(clock, subscription=SUBSCRIPTION_SQL_WRITER, topic=TOPIC)
            consumers.append(consumer)
            return consumer

        async def expire_locks() -> None:
            standin.call(standin.lose_locks)

        yield BusUnderTest(publisher, admin, new_consumer, expire_locks, standin)
        made: list[Consumer | Publisher | BusAdmin] = [*consumers, publisher, admin]
        await asyncio.gather(*(part.aclose() for part in made))
        await bus.aclose()


@contextlib.asynccontextmanager
async def open_pipe(
    new_database: Databases,
    *,
    bus: str,
    mirrored: MirrorUnderTest | None = None,
) -> AsyncIterator[Pipe]:
    """
    Lend a pipe from a bus to a mirror.

    Args:
        new_database: gives the address of an empty database.
        bus: "memory", "postgres" or "servicebus".
        mirrored: one that is installed already; by default it has a database of its own.
    """
    model = load_model()
    opening = {"memory": memory_bus, "servicebus": servicebus_bus}.get(bus)
    opened = postgres_bus(await new_database()) if opening is None else opening()
    async with opened as parts, contextlib.AsyncExitStack() as stack:
        if mirrored is None:
            mirrored = await stack.enter_async_context(new_mirror(model, new_database))
        spec = SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER)
        await parts.admin.provision(TopicSpec(subscriptions=(spec,)))
        yield Pipe(
            model,
            mirrored,
            parts.publisher,
            parts.admin,
            parts.new_consumer,
            SystemClock(),
            parts.expire_locks,
            parts.standin,
        )
