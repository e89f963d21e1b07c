"""
Every routine that locks rows does so in key order, whatever the order of its input.

Of batches it is seen in each dialect; of PostgreSQL's routines one by one, with two writers that
deadlock, where the server shows who waits for whom.

Seen step by step: one transaction holds the middle one of three rows; the routine, in a second,
then has locked the first row and not the last.  That this order is what prevents deadlocks is seen
by planting the other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from storemirror.sql.postgres.connection import Connection, sql, translated_errors
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed, Server
from tests.support.databases import Databases
from tests.support.mirrors import SCHEMA, MirrorUnderTest, new_mirror
from tests.support.planted import plant

FIRST, MIDDLE, LAST = "a", "b", "c"
#: Out of order, so that a routine which takes the input as it comes is found out.
ROWS = [
    {"conversation_id": name, "message_id": "m", "follower_id": name, "followee_id": "x"}
    for name in (LAST, FIRST, MIDDLE)
]
ALONE = json.dumps(ROWS)
CONVERSATIONS = json.dumps({"dm_conversation": ROWS})
EDGES = json.dumps({"follow_edge": ROWS})
KEY = {"dm_conversation": "conversation_id", "follow_edge": "follower_id"}

#: What is applied in one batch -> the entity whose rows are looked at.  Of one entity a procedure
#: locks by itself; of two one locks for all.
BATCHES = {
    ("DmMessage",): "DmConversation",
    ("DmConversation",): "DmConversation",
    ("FollowEdge",): "FollowEdge",
    ("DmMessage", "FollowEdge"): "DmConversation",
    ("FollowEdge", "UserBlock"): "FollowEdge",
}
#: Dialect -> the order in which parents are locked, and the other way round.
BACKWARDS = {
    "postgres": ('ORDER BY p."conversation_id"\n', 'ORDER BY p."conversation_id" DESC\n'),
    "sqlserver": (
        "ORDER BY w.[ConversationId]\n        OPTION",
        "ORDER BY w.[ConversationId] DESC\n        OPTION",
    ),
}


def key_of(entity: str, name: str) -> tuple[str, ...]:
    """Give the key of a row by which of the three it is."""
    return (name,) if entity == "DmConversation" else (name, "x")


def events_of(docs: Documents, entity: str, at: int) -> list[RowEvent]:
    """Write three documents, in an order that is none."""
    makers: Mapping[str, Callable[[str], RowEvent]] = {
        "DmMessage": lambda name: docs.message(name, "x", at),
        "DmConversation": lambda name: docs.conversation(name, at),
        "FollowEdge": lambda name: docs.follow(name, "x", at),
        "UserBlock": lambda name: docs.block(name, "x", at),
    }
    return [makers[entity](name) for name in (LAST, FIRST, MIDDLE)]


async def first_held(installed: Installed, entities: tuple[str, ...], looked_at: str) -> set[str]:
    """Apply a batch while the middle row is held; gives which other rows it has locked then."""
    docs = Documents(installed.model, SystemClock().now_us() - 3_600_000_000)
    entity, clock = installed.model[looked_at], SystemClock()
    await installed.mirror.apply([e for name in entities for e in events_of(docs, name, 1)])
    others = (FIRST, LAST)

    async def held() -> set[str]:
        return {n for n in others if await installed.is_held(entity, key_of(looked_at, n))}

    async with installed.beside() as writer:
        async with installed.holding(entity, key_of(looked_at, MIDDLE)):
            batch = [e for name in entities for e in events_of(docs, name, 2)]
            applying = asyncio.create_task(writer.mirror.apply(batch))
            async with asyncio.timeout(60):
                while not await held():
                    assert not applying.done()
                    await clock.sleep(0.005)
            found = await held()
        await applying
    return found


@pytest.mark.parametrize("entities", BATCHES, ids=" and ".join)
async def test_a_batch_locks_rows_in_key_order(entities: tuple[str, ...], server: Server) -> None:
    """Two writers that lock in the same order never wait for each other in a circle."""
    installed = await server.installed(load_model())
    if not installed.honours_locks:
        pytest.skip("needs SQL Server: this server passes over lock hints, and so has no order")
    assert await first_held(installed, entities, BATCHES[entities]) == {FIRST}


async def test_a_batch_that_locks_backwards_is_seen(server: Server, dialect: str) -> None:
    """Else the order above would be nobody's merit."""
    installed = await server.installed(load_model())
    if not installed.honours_locks:
        pytest.skip("needs SQL Server: this server passes over lock hints, and so has no order")
    await installed.plant(BACKWARDS[dialect])
    assert await first_held(installed, ("DmMessage",), "DmConversation") == {LAST}


@pytest.fixture
async def under_test(
    new_database: Databases,
) -> AsyncIterator[MirrorUnderTest]:
    """An installed mirror without rows."""
    async with new_mirror(load_model(), new_database) as one:
        yield one


async def make_rows(under_test: MirrorUnderTest) -> None:
    """Make three conversations and three edges."""
    for name in (FIRST, MIDDLE, LAST):
        await under_test.execute(
            "INSERT INTO storemirror.dm_conversation (conversation_id, row_state)"
            " VALUES (%s, 'stub')",
            (name,),
        )
        await under_test.execute(
            "INSERT INTO storemirror.follow_edge (follower_id, followee_id, row_state)"
            " VALUES (%s, 'x', 'stub')",
            (name,),
        )


@contextlib.asynccontextmanager
async def holding_the_middle(under_test: MirrorUnderTest, table: str) -> AsyncIterator[None]:
    """Hold the lock of the middle row."""
    async with under_test.database.transaction() as conn:
        query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s FOR UPDATE").format(
            sql.Identifier(SCHEMA, table), sql.Identifier(KEY[table])
        )
        await conn.execute(query, (MIDDLE,))
        yield


async def call(conn: Connection, routine: str, argument: str) -> None:
    """Call a locking routine."""
    query = sql.SQL("SELECT {}(%s::jsonb)").format(sql.Identifier(SCHEMA, routine))
    await conn.execute(query, (argument,))


async def waits(under_test: MirrorUnderTest, conn: Connection) -> None:
    """Return once a connection waits for a lock that another one holds."""
    clock = SystemClock()
    async with asyncio.timeout(30):
        while not (
            await under_test.database.fetch(
                "SELECT pg_blocking_pids(%s) <> '{}'", (conn.info.backend_pid,)
            )
        )[0][0]:
            await clock.sleep(0.005)


async def free_rows(under_test: MirrorUnderTest, table: str) -> set[str]:
    """Give the rows that nobody has locked."""
    key = sql.Identifier(KEY[table])
    query = sql.SQL("SELECT {} FROM {} FOR UPDATE SKIP LOCKED").format(
        key, sql.Identifier(SCHEMA, table)
    )
    return {row[0] for row in await under_test.database.fetch(query)}


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("routine", "table", "argument"),
    [
        ("lock_rows_of_dm_message", "dm_conversation", ALONE),
        ("lock_rows_of_dm_conversation", "dm_conversation", ALONE),
        ("lock_rows_of_follow_edge", "follow_edge", ALONE),
        ("lock_rows", "dm_conversation", CONVERSATIONS),
        ("lock_rows", "follow_edge", EDGES),
    ],
)
async def test_rows_are_locked_in_key_order(
    routine: str, table: str, argument: str, under_test: MirrorUnderTest
) -> None:
    """Two writers that lock in the same order never wait for each other in a circle."""
    await make_rows(under_test)
    async with under_test.database.connection() as conn:
        async with holding_the_middle(under_test, table):
            running = asyncio.create_task(locked(conn, routine, argument))
            await waits(under_test, conn)
            assert await free_rows(under_test, table) == {LAST}
        await running


async def locked(conn: Connection, routine: str, argument: str) -> None:
    """Lock in a transaction of its own."""
    async with conn.transaction():
        await call(conn, routine, argument)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("routine", "table", "argument"),
    [
        ("lock_rows_of_dm_conversation", "dm_conversation", ALONE),
        ("lock_rows_of_follow_edge", "follow_edge", ALONE),
        ("lock_rows", "follow_edge", EDGES),
        ("ensure_parents", "dm_conversation", CONVERSATIONS),
    ],
)
async def test_absent_rows_are_made_in_key_order(
    routine: str, table: str, argument: str, under_test: MirrorUnderTest
) -> None:
    """Making a row that another transaction is making waits for it, as a lock does."""
    async with under_test.database.connection() as conn:
        await call(conn, routine, argument)
    query = sql.SQL("SELECT {} FROM {} ORDER BY ctid").format(
        sql.Identifier(KEY[table]), sql.Identifier(SCHEMA, table)
    )
    made = [row[0] for row in await under_test.database.fetch(query)]
    assert made == [FIRST, MIDDLE, LAST]


async def two_writers(
    under_test: MirrorUnderTest, *, second_is_faulty: bool
) -> list[BaseException | None]:
    """Let two transactions lock three rows that a third one has made wait; gives their errors."""
    await make_rows(under_test)
    async with under_test.database.connection() as one, under_test.database.connection() as two:
        for conn in (one, two):
            await conn.execute("SET deadlock_timeout = '50ms'")
        async with holding_the_middle(under_test, "dm_conversation"):
            first = asyncio.create_task(writing(under_test, one))
            await waits(under_test, one)
            if second_is_faulty:
                key = 'ORDER BY p."conversation_id"\n'
                await plant(under_test, (key, key.replace("\n", " DESC\n")))
            second = asyncio.create_task(writing(under_test, two))
            await waits(under_test, two)
        return list(await asyncio.gather(first, second, return_exceptions=True))


async def writing(under_test: MirrorUnderTest, conn: Connection) -> None:
    """Lock as a batch of messages does; errors are ours, as the adapter gives them."""
    with translated_errors(under_test.database.kind):
        await locked(conn, "lock_rows_of_dm_message", ALONE)


@pytest.mark.postgres
async def test_writers_in_key_order_wait_and_both_finish(under_test: MirrorUnderTest) -> None:
    """The second one waits for the first one's first row, and holds nothing meanwhile."""
    assert await two_writers(under_test, second_is_faulty=False) == [None, None]


@pytest.mark.postgres
async def test_a_writer_in_another_order_deadlocks(under_test: MirrorUnderTest) -> None:
    """The same steps with the order planted the other way round: it is the order that counts."""
    errors = [e for e in await two_writers(under_test, second_is_faulty=True) if e is not None]
    assert [type(error) for error in errors] == [SqlUnavailable]
    assert "deadlock detected" in str(errors[0])
