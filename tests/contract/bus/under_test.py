"""What the contract suite needs of a bus beyond its ports: to make them, and to let time pass.

Service Bus has a file of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import (
    BusAdmin,
    Consumer,
    Delivery,
    ExpiryAction,
    Message,
    Publisher,
    PublishResult,
    SubscriptionSpec,
    TopicSpec,
)
from storemirror.bus.postgres import PostgresBusAdmin, PostgresConsumer, PostgresPublisher
from storemirror.clock import Clock
from storemirror.sql.postgres.connection import Database, sql
from tests.contract.bus.clocks import ManualClock, ShiftedClock

WRITER = "sql-writer"
MONITORING = "monitoring"
LOCK_S = 60.0
MAX_DELIVERY_COUNT = 3
TTL_S = 600.0
WINDOW_S = 300.0
#: Where the bus's clock stands still between two calls, and where it runs on while a busy machine
#: takes its time over them.
STANDING_MARGIN_S = 1.0
RUNNING_MARGIN_S = 25.0

TOPIC_SPEC = TopicSpec(
    duplicate_window_s=WINDOW_S,
    subscriptions=(
        SubscriptionSpec(
            name=WRITER,
            lock_duration_s=LOCK_S,
            max_delivery_count=MAX_DELIVERY_COUNT,
            time_to_live_s=10 * TTL_S,
        ),
        SubscriptionSpec(
            name=MONITORING,
            lock_duration_s=LOCK_S,
            time_to_live_s=TTL_S,
            on_expiry=ExpiryAction.DROP,
        ),
    ),
)


class BusUnderTest(Protocol):
    """One provisioned bus."""

    admin: BusAdmin
    #: Whether it tells which ids were duplicates, and how many messages are locked or completed.
    tells_all: bool
    #: How much earlier than the end of a time a test must look that it is not over.
    margin_s: float

    def publisher(self, *, topic: str = ...) -> Publisher:
        """Make a publisher."""
        ...

    def consumer(self, subscription: str = ..., *, topic: str = ...) -> Consumer:
        """Make a consumer."""
        ...

    async def let_pass(self, duration_s: float) -> None:
        """Let time pass on the bus's clock."""
        ...

    async def aclose(self) -> None:
        """Close what was made."""
        ...


class MemoryUnderTest:
    """The memory bus, on a clock that stands still."""

    tells_all = True
    margin_s = STANDING_MARGIN_S

    def __init__(self) -> None:
        """Make an empty bus."""
        self._clock = ManualClock()
        self._bus = MemoryBus(self._clock)
        self.admin: BusAdmin = self._bus.admin()

    def publisher(self, *, topic: str = TOPIC_SPEC.name) -> Publisher:
        """See `BusUnderTest.publisher`."""
        return self._bus.publisher(topic=topic)

    def consumer(self, subscription: str = WRITER, *, topic: str = TOPIC_SPEC.name) -> Consumer:
        """See `BusUnderTest.consumer`."""
        return self._bus.consumer(subscription, topic=topic)

    async def let_pass(self, duration_s: float) -> None:
        """See `BusUnderTest.let_pass`."""
        self._clock.advance(duration_s)

    async def aclose(self) -> None:
        """Nothing is open."""


class PostgresUnderTest:
    """The PostgreSQL bus; time passes by moving what is stored into the past."""

    tells_all = True
    margin_s = RUNNING_MARGIN_S

    def __init__(self, dsn: str, database: Database) -> None:
        """Name the database; `database` is open and of kind `BUS`."""
        self.dsn = dsn
        self.database = database
        self.clock = ShiftedClock()
        self.admin: BusAdmin = PostgresBusAdmin(database)
        self._made: list[Publisher | Consumer] = []

    def publisher(
        self, *, topic: str = TOPIC_SPEC.name, clock: Clock | None = None
    ) -> PostgresPublisher:
        """See `BusUnderTest.publisher`."""
        publisher = PostgresPublisher(self.database, clock or self.clock, topic=topic)
        self._made.append(publisher)
        return publisher

    def consumer(
        self,
        subscription: str = WRITER,
        *,
        topic: str = TOPIC_SPEC.name,
        clock: Clock | None = None,
    ) -> PostgresConsumer:
        """See `BusUnderTest.consumer`."""
        consumer = PostgresConsumer(
            self.database, clock or self.clock, subscription=subscription, topic=topic
        )
        self._made.append(consumer)
        return consumer

    async def let_pass(self, duration_s: float) -> None:
        """See `BusUnderTest.let_pass`."""
        shift_us = round(duration_s * 1_000_000)
        async with self.database.transaction() as conn:
            await conn.execute(
                "UPDATE bus.queue SET enqueued_at_us = enqueued_at_us - %s, "
                "locked_until_us = locked_until_us - %s",
                (shift_us, shift_us),
            )
            await conn.execute(
                "UPDATE bus.seen SET accepted_at_us = accepted_at_us - %s", (shift_us,)
            )
        self.clock.advance(duration_s)

    async def count(self, table: str) -> int:
        """Count the rows of a table of the bus."""
        ((count,),) = await self.database.fetch(
            sql.SQL("SELECT count(*) FROM bus.{}").format(sql.Identifier(table))
        )
        return int(count)

    async def mark(self, subscription: str = WRITER) -> int:
        """Give a subscription's low-water mark."""
        ((mark,),) = await self.database.fetch(
            "SELECT mark FROM bus.subscribed WHERE subscription = %s", (subscription,)
        )
        return int(mark)

    async def run_upkeep(self, rounds: int = 3) -> None:
        """Do what upkeep does; a mark needs two rounds and a finished transaction in between."""
        for _ in range(rounds):
            await self.database.fetch("SELECT bus.sweep(%s, 1000)", (TOPIC_SPEC.name,))
            await self.database.fetch("SELECT bus.advance_low_water(%s)", (TOPIC_SPEC.name,))

    async def aclose(self) -> None:
        """Close what was made."""
        for made in self._made:
            await made.aclose()


def a_message(message_id: str, body: bytes = b"{}", **properties: str) -> Message:
    """Make a message."""
    return Message(
        message_id=message_id,
        body=body,
        content_type="application/cloudevents+json; charset=utf-8",
        properties=properties,
    )


def messages(count: int, prefix: str = "e") -> list[Message]:
    """Make `count` messages with ids of their own, in rising order."""
    return [a_message(f"{prefix}{number:05}", b"%d" % number) for number in range(count)]


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Give the message ids of deliveries, in their order."""
    return [delivery.message.message_id for delivery in deliveries]


async def receive_now(consumer: Consumer, max_count: int = 1_000) -> list[Delivery]:
    """Receive what is there, without waiting."""
    return await consumer.receive(max_count, max_wait_s=0.0)


def told(bus: BusUnderTest, *results: PublishResult, accepted: int, duplicate: int) -> bool:
    """Tell whether publications came to this; a bus that does not tell knows only the sum."""
    accepted_count = sum(result.accepted_count for result in results)
    duplicate_count = sum(result.duplicate_count for result in results)
    if bus.tells_all:
        return (accepted_count, duplicate_count) == (accepted, duplicate)
    return accepted_count + duplicate_count == accepted + duplicate


def counted(bus: BusUnderTest, count: int) -> int | None:
    """Give what a bus says of a count: nothing, if it does not tell."""
    return count if bus.tells_all else None
