"""The connections that users' reads have to themselves, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.model.load import load_model
from storemirror.sql.postgres.connection import Database
from storemirror.sql.postgres.reads import PostgresReads, reading_database
from tests.contract.sql.documents import Documents
from tests.support.databases import Databases
from tests.support.mirrors import MirrorUnderTest, new_mirror

pytestmark = pytest.mark.postgres

#: Reads that wait for a lock.
WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'storemirror reads'"
    " AND datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
)


@pytest.fixture
async def under_test(
    new_database: Databases,
) -> AsyncIterator[MirrorUnderTest]:
    """A mirror with a conversation and a message."""
    async with new_mirror(load_model(), new_database) as made:
        docs = Documents(made.model, SystemClock().now_us() - 3_600_000_000)
        await made.mirror.apply(
            [docs.conversation("c", 1, participants={"me": None}), docs.message("c", "m", 2)]
        )
        yield made


@pytest.fixture
async def database(under_test: MirrorUnderTest) -> AsyncIterator[Database]:
    """A connection to read from."""
    made = reading_database(under_test.dsn, max_size=1)
    await made.open()
    yield made
    await made.aclose()


async def test_users_read_on_while_nothing_can_be_written(
    under_test: MirrorUnderTest, database: Database
) -> None:
    """A standby that takes over, or a disk that is full, stops writers alone."""
    await under_test.take_writes(are_taken=False)
    with pytest.raises(SqlUnavailable):
        await under_test.mirror.probe()
    reads = PostgresReads(database, under_test.rendering)
    assert len((await reads.inbox("me", older_than=None, limit=5)).rows) == 1
    await under_test.take_writes(are_taken=True)


async def test_users_do_not_wait_for_a_writer(
    under_test: MirrorUnderTest, database: Database
) -> None:
    """They see what was committed before."""
    reads = PostgresReads(database, under_test.rendering)
    async with under_test.database.transaction() as conn:
        await conn.execute("UPDATE storemirror.dm_conversation SET title = 'later'")
        await conn.execute("UPDATE storemirror.dm_message SET body = 'later'")
        [row] = (await reads.inbox("me", older_than=None, limit=5)).rows
        page = await reads.messages("me", "c", limit=5)
    assert row.title == "title"
    assert page is not None
    assert [message.body for message in page.rows] == ["hello"]


async def test_users_read_on_while_a_column_gets_another_type(
    under_test: MirrorUnderTest, database: Database
) -> None:
    """`schema apply` may widen one; statements that were prepared before are refused for ever."""
    reads = PostgresReads(database, under_test.rendering)
    table = "ALTER TABLE storemirror.dm_conversation ALTER COLUMN title TYPE"
    await under_test.execute(f"{table} varchar(500)")
    assert len((await reads.inbox("me", older_than=None, limit=5)).rows) == 1
    [(first,)] = await database.fetch("SELECT pg_backend_pid()")
    await under_test.execute(f"{table} text")
    assert len((await reads.inbox("me", older_than=None, limit=5)).rows) == 1
    # With what was prepared on it, the connection is gone.
    assert len((await reads.inbox("me", older_than=None, limit=5)).rows) == 1
    [(second,)] = await database.fetch("SELECT pg_backend_pid()")
    assert first != second


async def test_who_gives_up_leaves_the_connection_to_the_next(
    under_test: MirrorUnderTest, database: Database
) -> None:
    """A deadline that passes while SQL is stuck must not cost a connection each time."""
    reads, clock = PostgresReads(database, under_test.rendering), SystemClock()
    async with under_test.database.transaction() as conn:
        await conn.execute("LOCK TABLE storemirror.dm_conversation IN ACCESS EXCLUSIVE MODE")
        for _ in range(3):
            reading = asyncio.create_task(reads.inbox("me", older_than=None, limit=5))
            async with asyncio.timeout(30):
                while not await under_test.database.fetch(WAITING):
                    await clock.sleep(0.005)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
    assert len((await reads.inbox("me", older_than=None, limit=5)).rows) == 1


async def test_a_connection_for_reads_writes_nothing(database: Database) -> None:
    """Whatever is sent on it."""
    with pytest.raises(SqlUnavailable, match="read-only"):
        await database.fetch("DELETE FROM storemirror.dm_message RETURNING 1")


async def test_the_server_gives_a_read_up_by_itself(database: Database) -> None:
    """A caller that is gone leaves nothing running."""
    assert await database.fetch("SHOW statement_timeout") == [("10s",)]
