"""
Gates inside the procedures: a writer waits there, its transaction open, until a test opens them.

Triggers on the mirror's tables make them, so that procedures and adapter stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from storemirror.clock import SystemClock
from storemirror.sql.postgres.connection import Database, sql

#: The writer with this application name waits; nobody else does.
GATED: Final = "gated-writer"
#: Application name of the writer beside it.
OTHER: Final = "other-writer"
_LOCK: Final = 4_711
_WAIT_S: Final = 60.0
_POLL_S: Final = 0.001
_Look = Callable[[], Awaitable[bool]]

#: Where it may wait: before rows are written, after that, before the roll-up, before the commit.
POINTS: Final = ("write", "written", "rollup", "commit")

_ROUTINE = """
CREATE SCHEMA IF NOT EXISTS gates;
CREATE TABLE gates.closed (point text NOT NULL);
CREATE FUNCTION gates.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'gated-writer' THEN
        -- A stub is made in a transaction of its own, which is not the one to be held.
        IF TG_LEVEL = 'ROW' AND to_jsonb(NEW) ->> 'row_state' = 'stub' THEN
            RETURN NULL;
        END IF;
        IF EXISTS (SELECT FROM gates.closed WHERE point = TG_ARGV[0]) THEN
            PERFORM pg_advisory_xact_lock_shared(4711);
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
"""
_TABLES = ("dm_conversation", "dm_message", "dm_message_audit", "follow_edge", "user_block")


async def install_gates(database: Database, schema: str = "storemirror") -> None:
    """Put gates into an installed mirror; all are open."""
    async with database.transaction() as conn:
        await conn.execute(_ROUTINE)
        for table in _TABLES:
            name = sql.Identifier(schema, table)
            await conn.execute(
                sql.SQL(
                    "CREATE CONSTRAINT TRIGGER gate_commit AFTER INSERT OR UPDATE ON {table}"
                    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
                    " EXECUTE FUNCTION gates.wait('commit')"
                ).format(table=name)
            )
            if table in ("dm_message", "follow_edge", "user_block"):
                await conn.execute(
                    sql.SQL(
                        "CREATE TRIGGER gate_write BEFORE INSERT ON {table}"
                        " EXECUTE FUNCTION gates.wait('write');"
                        "CREATE TRIGGER gate_written AFTER INSERT ON {table}"
                        " EXECUTE FUNCTION gates.wait('written')"
                    ).format(table=name)
                )
        await conn.execute(
            sql.SQL(
                "CREATE TRIGGER gate_rollup BEFORE UPDATE ON {}"
                " EXECUTE FUNCTION gates.wait('rollup')"
            ).format(sql.Identifier(schema, "dm_conversation"))
        )


async def until(task: asyncio.Task[Any], holds: _Look) -> bool:
    """Wait until a condition holds or a task is done; tells the former."""
    clock = SystemClock()
    async with asyncio.timeout(_WAIT_S):
        while not task.done():
            if await holds():
                return True
            await clock.sleep(_POLL_S)
    return False


class PostgresGates:
    """Closes and opens the gates, and sees who waits; see `tests.exhaustive.database.Gates`."""

    def __init__(self, database: Database) -> None:
        """Name the database, past the writers."""
        self._database = database

    @contextlib.asynccontextmanager
    async def closed(self, point: str) -> AsyncIterator[None]:
        """Close one gate; open it at the end."""
        async with self._database.connection() as conn:
            await conn.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            try:
                await conn.execute("INSERT INTO gates.closed VALUES (%s)", (point,))
                yield
            finally:
                await conn.execute("DELETE FROM gates.closed")
                await conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    async def wait_for_gated(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the gated writer stands at the gate, or is done; tells whether it stands."""
        return await until(task, self._is_at_gate)

    async def wait_for_blocked(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the gated writer waits for anybody's lock, or is done; tells the former."""
        return await until(task, self._is_blocked)

    async def wait_for_other(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the other writer is held up by the gated one, or is done; tells the former."""
        return await until(task, self._is_held_up)

    async def kill_gated(self) -> None:
        """Cut the gated writer's connection, and wait until its transaction is gone."""
        await self._database.fetch(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            (GATED,),
        )

    async def _is_at_gate(self) -> bool:
        found = await self._database.fetch(
            "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            " AND application_name = %s AND datname = current_database()",
            (_LOCK, GATED),
        )
        return bool(found)

    async def _is_blocked(self) -> bool:
        found = await self._database.fetch(
            "SELECT FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0",
            (GATED,),
        )
        return bool(found)

    async def _is_held_up(self) -> bool:
        found = await self._database.fetch(
            "SELECT FROM pg_stat_activity AS o, pg_stat_activity AS g"
            " WHERE o.application_name = %s AND o.datname = current_database()"
            " AND g.application_name = %s AND g.datname = current_database()"
            " AND g.pid = ANY (pg_blocking_pids(o.pid))",
            (OTHER, GATED),
        )
        return bool(found)
