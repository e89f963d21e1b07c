"""Connections that were cut while they lay in the pool cost nobody a call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storemirror.errors import SqlUnavailable
from storemirror.sql.postgres.connection import MIRROR, Connection, Database, Pool, has_news

pytestmark = pytest.mark.postgres

SIZE = 3


@pytest.fixture
async def dsn(new_database: Callable[[], Awaitable[str]]) -> str:
    return await new_database()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool in which connections lie."""
    made = Database(dsn, MIRROR, max_size=SIZE, application_name="pooled")
    await made.open()
    await pids(made)
    yield made
    await made.aclose()


async def pids(database: Database) -> set[int]:
    """Use every connection at the same time; gives which there are."""
    async with contextlib.AsyncExitStack() as lent:
        conns = [await lent.enter_async_context(database.connection()) for _ in range(SIZE)]
        return {conn.info.backend_pid for conn in conns}


async def cut(dsn: str) -> None:
    """End the pool's connections, as a server does that stops; they are gone at the end."""
    other = Database(dsn, MIRROR, max_size=1)
    await other.open()
    await other.fetch(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE application_name = 'pooled' AND datname = current_database()"
    )
    await other.aclose()


async def test_no_call_fails_once_the_database_is_back(database: Database, dsn: str) -> None:
    """Each connection that lay in the pool cost a caller an error (issue 7)."""
    before = await pids(database)
    await cut(dsn)
    for _ in range(SIZE):
        assert await database.fetch("SELECT 1") == [(1,)]
    await cut(dsn)
    calls = (database.fetch_prepared(b"SELECT 1", {}) for _ in range(2 * SIZE))
    assert await asyncio.gather(*calls) == [[(1,)]] * 2 * SIZE
    assert not before & await pids(database)


async def test_a_connection_that_is_well_is_not_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would cost every call a round trip."""

    async def asked(_: Connection) -> None:
        raise AssertionError("a connection was asked")

    monkeypatch.setattr(Pool, "check_connection", staticmethod(asked))
    before = await pids(database)
    for _ in range(2 * SIZE):
        await database.fetch("SELECT 1")
    assert await pids(database) == before


async def test_a_connection_with_something_to_say_is_kept(dsn: str) -> None:
    """Its server notified it of something, and is there."""
    made = Database(dsn, MIRROR, max_size=1)
    await made.open()
    other = Database(dsn, MIRROR, max_size=1)
    await other.open()
    loop, is_notified = asyncio.get_running_loop(), asyncio.Event()
    async with made.connection() as conn:
        await conn.execute("LISTEN news")
        pid = conn.info.backend_pid
        loop.add_reader(conn.fileno(), is_notified.set)
        await other.fetch("SELECT pg_notify('news', 'something')")
        await is_notified.wait()
        loop.remove_reader(conn.fileno())
        assert has_news(conn)
    assert await made.fetch("SELECT pg_backend_pid()") == [(pid,)]
    await other.aclose()
    await made.aclose()


async def test_a_call_that_is_cut_in_its_midst_fails(database: Database, dsn: str) -> None:
    """Whether it was done is unknown: it is its caller's to repeat it."""

    async def is_cut() -> None:
        async with database.connection() as conn:
            await cut(dsn)
            await conn.execute("SELECT 1")

    with pytest.raises(SqlUnavailable):
        await is_cut()
    assert await database.fetch("SELECT 1") == [(1,)]
