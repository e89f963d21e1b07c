"""What only the PostgreSQL bus can get wrong: the low-water mark, growth, wake-up, deployment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import LiteralString

import pytest

from storemirror.bus.port import Consumer, Publisher
from storemirror.bus.postgres import PostgresBusAdmin, PostgresConsumer, PostgresPublisher
from storemirror.errors import BusRefused, BusUnavailable
from storemirror.sql.postgres.connection import BUS, Connection, Database
from tests.contract.bus.clocks import ClockThatNeverPolls
from tests.contract.bus.under_test import (
    MONITORING,
    TOPIC_SPEC,
    TTL_S,
    WINDOW_S,
    WRITER,
    PostgresUnderTest,
    a_message,
    ids,
    messages,
    receive_now,
)

pytestmark = pytest.mark.postgres

PUBLISH_ONE = (
    "SELECT bus.publish(%s, ARRAY[%s]::text[], ARRAY['\\x7b7d'::bytea], ARRAY['text/plain'], "
    "ARRAY['{}'])"
)


@pytest.fixture
def bus(postgres_bus: PostgresUnderTest) -> PostgresUnderTest:
    """Give the PostgreSQL bus alone."""
    return postgres_bus


@asynccontextmanager
async def uncommitted(bus: PostgresUnderTest, message_id: str) -> AsyncIterator[Connection]:
    """Publish a message in a transaction that commits at the end of the block."""
    async with bus.database.transaction() as conn:
        await conn.execute(PUBLISH_ONE, (TOPIC_SPEC.name, message_id))
        yield conn


async def test_a_message_committed_after_a_higher_number_was_consumed_is_received(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Numbers are drawn before the commit: a mark at the highest number seen loses this message."""
    async with uncommitted(bus, "low"):
        await publisher.publish([a_message("high")])
        (high,) = await receive_now(consumer)
        await consumer.complete([high])
        await bus.run_upkeep(rounds=4)
        assert ids(await receive_now(consumer)) == []
    naively_visible = await bus.database.fetch(
        "SELECT FROM bus.queue q JOIN bus.subscribed s USING (subscription_id) "
        "WHERE s.subscription = %s AND q.sequence_number > %s",
        (WRITER, high.sequence_number),
    )
    assert naively_visible == []
    assert ids(await receive_now(consumer)) == ["low"]


async def test_a_mark_past_an_uncommitted_number_loses_its_message(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """The mistake planted: it is the wait for older transactions that keeps the message."""
    ((routine,),) = await bus.database.fetch(
        "SELECT pg_get_functiondef('bus.advance_low_water'::regproc)"
    )
    waits = "v_water.candidate_xid < pg_snapshot_xmin(pg_current_snapshot())"
    assert waits in routine
    async with bus.database.connection() as conn:
        await conn.execute(routine.replace(waits, "true").encode())
    async with uncommitted(bus, "low"):
        await publisher.publish([a_message("high")])
        await consumer.complete(await receive_now(consumer))
        await bus.run_upkeep(rounds=4)
    assert ids(await receive_now(consumer)) == []
    assert (await bus.admin.stats(WRITER)).depth == 0


async def test_the_mark_waits_for_every_publisher_in_flight_and_then_moves_on(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A mark that never moved would be safe as well, and useless."""
    await publisher.publish(messages(10))
    await consumer.complete(await receive_now(consumer))
    await bus.run_upkeep()
    before = await bus.mark()
    assert before > 0
    async with uncommitted(bus, "low"):
        await publisher.publish(messages(10, "f"))
        await consumer.complete(await receive_now(consumer))
        await bus.run_upkeep(rounds=4)
        (low,) = await bus.database.fetch("SELECT last_value - 20 FROM bus.sequence_number")
        assert await bus.mark() < low[0]
    await consumer.complete(await receive_now(consumer))
    await bus.run_upkeep()
    assert await bus.mark() == await last_number(bus)


async def last_number(bus: PostgresUnderTest) -> int:
    """Give the last sequence number drawn."""
    ((number,),) = await bus.database.fetch("SELECT last_value FROM bus.sequence_number")
    return int(number)


async def crash_between(bus: PostgresUnderTest, publisher: Publisher) -> None:
    """Publish "lost", then "kept" by another publisher, and crash before the commit of "lost"."""
    async with uncommitted(bus, "lost") as conn:
        await publisher.publish([a_message("kept")])
        await bus.database.fetch("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))


async def test_a_publisher_that_crashes_in_between_leaves_nothing_and_blocks_nothing(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """Its numbers are never used; waiting for them would stop the mark for good."""
    with pytest.raises(BusUnavailable):
        await crash_between(bus, publisher)
    deliveries = await receive_now(consumer)
    assert ids(deliveries) == ["kept"]
    await consumer.complete(deliveries)
    await bus.run_upkeep()
    assert await bus.mark() == await last_number(bus)
    assert (await publisher.publish([a_message("lost")])).accepted_count == 1


async def test_the_mark_stays_below_every_message_that_exists(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A locked message may come back; it must be found without a look below the mark."""
    await publisher.publish(messages(10))
    deliveries = await receive_now(consumer)
    await consumer.complete(deliveries[:3] + deliveries[4:])
    await bus.run_upkeep()
    assert await bus.mark() == deliveries[3].sequence_number - 1
    await receive_now(consumer)
    await consumer.abandon(deliveries[3:4])
    assert ids(await receive_now(consumer)) == ["e00003"]


_OTHER_WRITERS = (
    "SELECT pid FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
)


async def test_a_held_snapshot_does_not_hold_the_mark(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A backup holds one for an hour: VACUUM removes nothing, and looks must skip the dead."""
    async with bus.database.transaction() as reader:
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await reader.execute("SELECT count(*) FROM bus.queue")
        await publisher.publish(messages(500))
        await consumer.complete(await receive_now(consumer))
        # Whatever else writes on the server just then holds the mark, and rightly.
        while await bus.database.fetch(_OTHER_WRITERS):
            pass
        await bus.run_upkeep()
        assert await bus.mark() == await last_number(bus)


async def test_the_mark_may_not_be_moved_inside_another_transaction(
    bus: PostgresUnderTest,
) -> None:
    """A transaction id taken before the sequence was read proves nothing; it fails loudly."""
    with pytest.raises(BusRefused, match="transaction of its own"):
        await bus.database.fetch(
            "SELECT pg_current_xact_id(), bus.advance_low_water(%s)", (TOPIC_SPEC.name,)
        )


async def test_no_message_is_lost_between_publishers_consumers_and_a_moving_mark(
    bus: PostgresUnderTest,
) -> None:
    """Everything at once: open transactions, abandons, and a mark that moves all the time."""
    randomness = random.Random(7)
    count = 400
    received: set[str] = set()
    done = asyncio.Event()

    async def publish(first: int) -> None:
        for number in range(first, count, 4):
            async with bus.database.transaction() as conn:
                await conn.execute(PUBLISH_ONE, (TOPIC_SPEC.name, f"e{number}"))
                for _ in range(randomness.randrange(4)):
                    await conn.execute("SELECT 1")

    async def consume() -> None:
        consumer = bus.consumer()
        while len(received) < count:
            deliveries = await consumer.receive(7, max_wait_s=1.0)
            kept = [d for d in deliveries if d.delivery_count > 1 or randomness.random() < 0.8]
            await consumer.abandon([d for d in deliveries if d not in kept])
            assert await consumer.complete(kept) == []
            received.update(ids(kept))
        done.set()

    async def move_the_mark() -> None:
        while not done.is_set():
            await bus.run_upkeep(rounds=1)

    await asyncio.gather(*(publish(n) for n in range(4)), consume(), consume(), move_the_mark())
    assert received == {f"e{number}" for number in range(count)}
    stats = await bus.admin.stats(WRITER)
    assert (stats.depth, stats.completed_count, stats.dead_letter_count) == (0, count, 0)


async def test_once_all_is_settled_and_old_the_tables_are_empty(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """No growth without bound: messages, ids and counts all go."""
    await publisher.publish(messages(300))
    for delivery in await receive_now(consumer):
        await consumer.complete([delivery])
    await bus.let_pass(max(TTL_S, WINDOW_S) + 1)
    await bus.run_upkeep()
    assert await bus.count("queue") == 0
    assert await bus.count("seen") == 0
    assert await bus.count("dead_letter") == 0
    assert await bus.count("completed") == 1
    assert (await bus.admin.stats(WRITER)).completed_count == 300


async def test_a_publisher_alone_keeps_a_subscription_without_reader_small(
    bus: PostgresUnderTest,
) -> None:
    """Nobody reads monitoring, and no admin need be running."""
    publisher = bus.publisher()
    await publisher.publish(messages(50))
    await bus.let_pass(TTL_S + 1)
    await publisher.publish([a_message("late")])
    await publisher.aclose()
    rows = await bus.database.fetch(
        "SELECT count(*) FROM bus.queue q JOIN bus.subscribed s USING (subscription_id) "
        "WHERE s.subscription = %s",
        (MONITORING,),
    )
    assert rows == [(1,)]


async def test_upkeep_has_no_end_of_backlog_left_behind(
    bus: PostgresUnderTest, publisher: Publisher
) -> None:
    """A round goes on while pages are full: it must keep up with what is published."""
    for page in range(10):
        await publisher.publish(messages(1_000, f"p{page}-"))
    await bus.let_pass(TTL_S + 1)
    assert (await bus.admin.stats(MONITORING)).depth == 0


async def test_a_message_wakes_a_consumer_that_does_not_poll(bus: PostgresUnderTest) -> None:
    """Latency rests on the wake-up; polling alone would cost a quarter of a second."""
    consumer = bus.consumer(clock=ClockThatNeverPolls())
    waiting = asyncio.create_task(consumer.receive(10, max_wait_s=60.0))
    publisher = bus.publisher()
    await publisher.publish([a_message("e1")])
    assert ids(await waiting) == ["e1"]
    await consumer.complete(await receive_now(consumer))
    waiting = asyncio.create_task(consumer.receive(10, max_wait_s=60.0))
    await publisher.publish([a_message("e2")])
    assert ids(await waiting) == ["e2"]


async def test_a_lost_wake_up_costs_a_poll_and_no_message(
    bus: PostgresUnderTest, consumer: Consumer
) -> None:
    """A publisher may die between commit and wake-up."""
    waiting = asyncio.create_task(consumer.receive(10, max_wait_s=60.0))
    await bus.database.fetch(PUBLISH_ONE, (TOPIC_SPEC.name, "e1"))
    assert ids(await waiting) == ["e1"]


async def test_a_listener_whose_connection_breaks_does_not_stop_the_consumer(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A server restart must not need a restart of the worker."""
    await publisher.publish([a_message("e1")])
    assert ids(await consumer.receive(10, max_wait_s=60.0)) == ["e1"]
    await bus.database.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE %s",
        ("LISTEN%",),
    )
    await publisher.publish([a_message("e2")])
    assert ids(await consumer.receive(10, max_wait_s=60.0)) == ["e2"]


async def test_several_processes_may_provision_at_once(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Every worker of a deployment does, at the same moment."""
    database = Database(await new_database(), BUS)
    await asyncio.gather(*(PostgresBusAdmin(database).provision(TOPIC_SPEC) for _ in range(4)))
    assert (await PostgresBusAdmin(database).stats(WRITER)).depth == 0
    await database.aclose()


async def test_a_database_without_a_bus_says_that_it_must_be_provisioned(
    new_database: Callable[[], Awaitable[str]], bus: PostgresUnderTest
) -> None:
    """The wrong database, or a fresh one: PostgreSQL's own words would not help."""
    database = Database(await new_database(), BUS)
    publisher = PostgresPublisher(database, bus.clock)
    consumer = PostgresConsumer(database, bus.clock, subscription=WRITER)
    with pytest.raises(BusRefused, match="storemirror bus provision"):
        await publisher.publish([a_message("e1")])
    with pytest.raises(BusRefused, match="storemirror bus provision"):
        await receive_now(consumer)
    with pytest.raises(BusRefused, match="storemirror bus provision"):
        await PostgresBusAdmin(database).stats(WRITER)
    await consumer.aclose()
    await publisher.aclose()
    await database.aclose()


async def test_a_server_that_is_away_is_unavailable_not_refused(bus: PostgresUnderTest) -> None:
    """The writer retries one and stops at the other."""
    away = Database("postgresql://nobody@127.0.0.1:1/nowhere", BUS)
    publisher = PostgresPublisher(away, bus.clock)
    with pytest.raises(BusUnavailable):
        await publisher.publish([a_message("e1")])
    await publisher.aclose()
    await away.aclose()


async def test_topics_do_not_share_messages_or_ids(bus: PostgresUnderTest) -> None:
    """Two mirrors may live in one bus database."""
    other = TOPIC_SPEC.__class__(name="other", subscriptions=TOPIC_SPEC.subscriptions)
    await PostgresBusAdmin(bus.database, topic="other").provision(other)
    await bus.publisher().publish([a_message("e1")])
    result = await bus.publisher(topic="other").publish([a_message("e1"), a_message("e2")])
    assert result.accepted_count == 2
    assert ids(await receive_now(bus.consumer())) == ["e1"]
    assert ids(await receive_now(bus.consumer(topic="other"))) == ["e1", "e2"]


async def test_a_reception_holds_as_many_bytes_as_a_worker_can_bear(
    publisher: Publisher, consumer: Consumer
) -> None:
    """A thousand documents of 1 MiB at once would take the worker's memory, and then the worker."""
    large = [replace(a_message(f"m{n}"), body=b"x" * 1_048_576) for n in range(20)]
    await publisher.publish(large)
    first = await consumer.receive(1_000, max_wait_s=0.0)
    rest = await consumer.receive(1_000, max_wait_s=0.0)
    assert (len(first), len(rest)) == (16, 4)


async def test_a_message_larger_than_the_limit_is_received_alone(
    publisher: Publisher, consumer: Consumer
) -> None:
    """A limit must not make a message that nobody can have."""
    await publisher.publish(
        [replace(a_message("large"), body=b"x" * 17_000_000), a_message("small")]
    )
    assert ids(await consumer.receive(10, max_wait_s=0.0)) == ["large"]
    assert ids(await consumer.receive(10, max_wait_s=0.0)) == ["small"]


PUBLISH = (PUBLISH_ONE, (TOPIC_SPEC.name, "in flight"))
RECEIVE = (
    "SELECT FROM bus.receive(%s, %s, 10, gen_random_uuid(), false)",
    (TOPIC_SPEC.name, WRITER),
)
SWEEP = ("SELECT bus.sweep(%s, 100)", (TOPIC_SPEC.name,))


@asynccontextmanager
async def impatient_admin(bus: PostgresUnderTest) -> AsyncIterator[PostgresBusAdmin]:
    """Give an admin whose wait for a lock is an error."""
    database = Database(bus.dsn, BUS, max_size=1, options="-c lock_timeout=3s")
    yield PostgresBusAdmin(database)
    await database.aclose()


async def test_provisioning_what_is_there_waits_for_nobody(
    bus: PostgresUnderTest, publisher: Publisher
) -> None:
    """It runs at every deployment, beside publishers and consumers that hold locks."""
    await publisher.publish(messages(3))
    async with bus.database.transaction() as conn, impatient_admin(bus) as admin:
        for statement, parameters in (PUBLISH, RECEIVE, SWEEP):
            await conn.execute(statement, parameters)
        await admin.provision(TOPIC_SPEC)


@pytest.mark.parametrize("second", [PUBLISH, RECEIVE, SWEEP], ids=["publish", "receive", "sweep"])
@pytest.mark.parametrize("first", [PUBLISH, RECEIVE, SWEEP], ids=["publish", "receive", "sweep"])
async def test_an_upgrade_of_a_bus_in_use_waits_for_nobody_in_a_circle(
    first: tuple[LiteralString, tuple[str, ...]],
    second: tuple[LiteralString, tuple[str, ...]],
    bus: PostgresUnderTest,
    publisher: Publisher,
) -> None:
    """CREATE INDEX locked a table that the sweeper needed, which held the view: a deadlock."""
    await publisher.publish(messages(3))
    await bus.database.fetch("UPDATE bus.installation SET script_digest = 'old' RETURNING 1")
    async with bus.database.transaction() as conn:
        await conn.execute(*first)
        upgrade = asyncio.create_task(bus.admin.provision(TOPIC_SPEC))
        # Each look is a round trip, in which the upgrade goes on.
        while not upgrade.done() and not await is_anyone_waiting(bus):
            pass
        await conn.execute(*second)
    await upgrade
    assert (await bus.admin.stats(WRITER)).depth >= 3


async def is_anyone_waiting(bus: PostgresUnderTest) -> bool:
    """Tell whether a statement in the bus's database waits for a lock."""
    rows = await bus.database.fetch(
        "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
        "WHERE NOT l.granted AND d.datname = current_database()"
    )
    return bool(rows)


async def test_a_purge_leaves_what_came_after_it_began(
    bus: PostgresUnderTest, publisher: Publisher, consumer: Consumer
) -> None:
    """A purge that was held up must not take events that nobody will tell again."""
    await publisher.publish(messages(3))
    ((began_us,),) = await bus.database.fetch("SELECT bus.now_us()")
    await publisher.publish([a_message("later")])
    purge_page = ("SELECT bus.purge(%s, %s, 100, %s)", (TOPIC_SPEC.name, WRITER, began_us))
    assert await bus.database.fetch(*purge_page) == [(3,)]
    assert ids(await receive_now(consumer)) == ["later"]
