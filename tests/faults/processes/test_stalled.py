"""A writer process that is stopped in the middle of something does not stop the others for long."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, SubscriptionSpec, TopicSpec
from storemirror.bus.postgres import PostgresBusAdmin, PostgresConsumer, PostgresPublisher
from storemirror.clock import SystemClock
from storemirror.sql.postgres.connection import (
    BUS,
    DOCUMENTS,
    MIRROR,
    STALL_TIMEOUT_S,
    Database,
    Kind,
)
from tests.contract.sql.side_door import Installed
from tests.faults.processes.child import BEFORE_COMMIT
from tests.faults.processes.world import SETTINGS, World, a_message, wait_for
from tests.support.mirrors import MirrorUnderTest

STALL_S = 1.0
#: In the order in which a writer locks them.
FIRST, LAST = "held-a", "held-b"
_SENDING = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"


async def test_row_locks_of_a_stopped_writer_are_taken_from_it(world: World) -> None:
    """It lives, and so do its connections: only the server can end what it has begun."""
    if not isinstance(world.mirrored, MirrorUnderTest):
        pytest.skip("needs SQL Server to stop within a batch, which it does not")
    await world.write(60)
    stopped = world.start_writer(
        strikes_at=BEFORE_COMMIT, passes=1, signal=signal.SIGSTOP, stall_timeout_s=STALL_S
    )
    await stopped.has_stopped()
    world.start_writer()
    await world.settled()
    await world.under_test.execute("SELECT 1 FROM storemirror.dm_conversation FOR UPDATE")
    stopped.send(signal.SIGCONT)
    await world.write(60)
    await world.settled()
    assert len(await world.stop_writers()) == 2, "the stopped one goes on as if nothing had been"
    assert "refused" not in stopped.log(), "its transaction was ended, and nothing of it refused"
    await world.account()


async def test_a_writer_stopped_while_it_waits_for_a_row_holds_up_nobody(
    world: World, sql: Installed
) -> None:
    """Its batch ends at the server, which waits for nobody to take the answer."""
    if not sql.honours_locks:
        pytest.skip("needs SQL Server: this server passes over lock hints, and so has no order")
    conversation = world.model["DmConversation"]
    await world.commit(a_message(FIRST, "m1"), a_message(LAST, "m1"))
    stopped = world.start_writer(settings=replace(SETTINGS, lane_count=1), stall_timeout_s=STALL_S)
    await world.settled()

    async def is_waiting() -> bool:
        return await sql.is_held(conversation, (FIRST,))

    async def is_free() -> bool:
        return not await is_waiting()

    async with sql.holding(conversation, (LAST,)):
        await world.commit(a_message(FIRST, "m2"), a_message(LAST, "m2"))
        await wait_for(is_waiting)
        stopped.send(signal.SIGSTOP)
        await stopped.has_stopped()
    await wait_for(is_free)
    world.start_writer()
    await world.settled()
    stopped.send(signal.SIGCONT)
    await world.write(60)
    await world.settled()
    assert len(await world.stop_writers()) == 2, "the stopped one goes on as if nothing had been"
    assert "refused" not in stopped.log()
    await world.account()


@pytest.mark.parametrize("step", ["received", "before_apply", "after_apply_before_complete"])
async def test_deliveries_of_a_stopped_writer_go_to_the_others(world: World, step: str) -> None:
    """Its locks on the bus run out; when it wakes up, what it does is a duplicate or lost."""
    await world.write(60)
    stopped = world.start_writer(strikes_at=step, signal=signal.SIGSTOP, stall_timeout_s=STALL_S)
    await stopped.has_stopped()
    world.start_writer()
    await world.settled()
    stopped.send(signal.SIGCONT)
    await world.write(20)
    await world.settled()
    await world.stop_writers()
    await world.account()


@pytest.mark.postgres
async def test_messages_on_their_way_to_a_stopped_writer_are_freed(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """The answer fills every buffer, and the server waits in the middle of the transaction."""
    dsn, clock = await new_database(), SystemClock()
    # The stall is looked at twice while it lasts.
    bus = Database(dsn, BUS, stall_timeout_s=3 * STALL_S)
    await bus.open()
    spec = SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER)
    await PostgresBusAdmin(bus).provision(TopicSpec(subscriptions=(spec,)))
    publisher = PostgresPublisher(bus, clock)
    consumer = PostgresConsumer(bus, clock, subscription=SUBSCRIPTION_SQL_WRITER)
    assert await consumer.receive(16, max_wait_s=0.0) == []
    body = bytes(1_000_000)
    await publisher.publish(
        [Message(message_id=f"m{n}", body=body, content_type="x") for n in range(16)]
    )
    async with bus.connection() as conn:
        # The client asks, and takes nothing of the answer: libpq is told to send, never to read.
        query = b"SELECT * FROM bus.receive('realtime-mirror', 'sql-writer', 16,"
        conn.pgconn.send_query(query + b" gen_random_uuid(), false)")
        conn.pgconn.flush()

        async def is_taken() -> bool:
            return (await bus.fetch(_SENDING, (conn.info.backend_pid,))) == [("ClientWrite",)]

        await wait_for(is_taken)
        assert await consumer.receive(16, max_wait_s=0.0) == []
        async with asyncio.timeout(60):
            received = await consumer.receive(16, max_wait_s=60.0)
        assert len(received) == 16
        assert {d.delivery_count for d in received} == {1}, "what was on its way never arrived"
        await conn.close()
    await consumer.aclose()
    await publisher.aclose()
    await bus.aclose()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("kind", "expected"), [(MIRROR, ("1min", "60000")), (BUS, ("1min", "60000")), (DOCUMENTS, None)]
)
async def test_the_bounds_are_those_that_are_stated(
    new_database: Callable[[], Awaitable[str]], kind: Kind, expected: tuple[str, str] | None
) -> None:
    """A pinned view may lie idle; a writer's transaction may not."""
    database = Database(await new_database(), kind)
    await database.open()
    found = await database.fetch(
        "SELECT current_setting('idle_in_transaction_session_timeout'),"
        " current_setting('tcp_user_timeout')"
    )
    await database.aclose()
    assert STALL_TIMEOUT_S == 60.0
    assert found == [expected or ("0", "0")]
