"""
Gates for SQL Server: a writer waits there, its batch under way, until a test opens them.

They are calls planted in the procedures and in the adapter's batch: SQL Server has triggers
neither before a write nor at a commit.  Who stands at a gate is told by an application lock that
it holds; who waits for whom, by the server alone, to whom it lets see that.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from storemirror.clock import SystemClock
from storemirror.sql.sqlserver.connection import CALL_TIMEOUT_S, Database, Sql
from storemirror.sql.sqlserver.locks import released, taken_for_session, text
from storemirror.sql.sqlserver.mirror import SqlServerMirror
from storemirror.sql.sqlserver.rendering import Rendering
from tests.support.gates import until

#: Where a gate is, in the text of the procedures -> what stands there then; `{gate}` is the call.
_PLACES: Final = (
    (
        r"( +SELECT @Count = COUNT\(\*\) FROM #Row AS w WHERE w\._Winner IS NOT NULL)",
        r"            {gate} N'write';\n\1",
    ),
    (r"(WHERE w\._State IS NULL\n +ORDER BY [^;]*;)", r"\1\n            {gate} N'written';"),
    (r"( +UPDATE p SET\n)", r"        {gate} N'rollup';\n\1"),
)
#: The error with which a killed writer's batch ends, as one does whose lock was not granted.
_GATE: Final = """
CREATE PROCEDURE {gate} @Point NVARCHAR(16) AS
BEGIN
    SET NOCOUNT ON;
    DECLARE @Granted INT;
    IF NOT EXISTS (SELECT 1 FROM {gated} AS g WHERE g.Spid = @@SPID) RETURN;
    IF NOT EXISTS (SELECT 1 FROM {closed} AS c WHERE c.Point = @Point) RETURN;
    EXEC @Granted = sys.sp_getapplock @Resource = {here}, @LockMode = N'Exclusive',
        @LockOwner = N'Transaction', @LockTimeout = 60000;
    WHILE 1 = 1
    BEGIN
        EXEC @Granted = sys.sp_getapplock @Resource = {lock}, @LockMode = N'Shared',
            @LockOwner = N'Transaction', @LockTimeout = 20;
        IF @Granted >= 0 RETURN;
        IF EXISTS (SELECT 1 FROM {killed} AS k WHERE k.Spid = @@SPID)
            THROW 51008, N'SM008: killed at a gate', 1;
    END;
END;
"""
_MAY_SEE: Final = """
SELECT CASE WHEN CAST(SERVERPROPERTY('EngineEdition') AS INT) = 5
            THEN HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE')
            ELSE HAS_PERMS_BY_NAME(NULL, NULL, N'VIEW SERVER STATE') END;
"""
_IS_HELD_UP: Final = """
SELECT COUNT(*) FROM sys.dm_exec_requests AS r
WHERE r.session_id = ? AND r.blocking_session_id = ?;
"""
_POLL_S: Final = 0.005
_WAIT_S: Final = 60.0


def with_gates(text: str, rendering: Rendering) -> str:
    """Plant the gates in the procedures' text; each place must be there."""
    for place, gated in _PLACES:
        call = gated.replace("{gate}", f"EXEC {rendering.qualified('TestGate')}")
        text, count = re.subn(place, call, text)
        assert count > 0, f"the procedures have no {place}"
    return text


async def may_see_who_waits(database: Database) -> bool:
    """Tell whether the server lets this user see who waits for whom."""
    return await database.fetch(_MAY_SEE) == [(1,)]


def gate_batches(rendering: Rendering) -> Sequence[str]:
    """Give what makes the gates' tables and their procedure; all are open."""
    gated, closed, killed, gate = (
        rendering.qualified(name) for name in ("TestGated", "TestClosed", "TestKilled", "TestGate")
    )
    return (
        f"CREATE TABLE {gated} (Spid INT NOT NULL);",
        f"CREATE TABLE {killed} (Spid INT NOT NULL);",
        f"CREATE TABLE {closed} (Point NVARCHAR(16) NOT NULL);",
        _GATE.format(
            gate=gate,
            gated=gated,
            closed=closed,
            killed=killed,
            here=text(_here(rendering)),
            lock=text(_lock(rendering)),
        ),
    )


class GatedMirror(SqlServerMirror):
    """The adapter, with a gate before its commit."""

    def _transaction(self, calls: Sequence[Any], *, has_lock: bool) -> Sql:
        gate = f"EXEC {self._rendering.qualified('TestGate')} N'commit';"
        batch = super()._transaction(calls, has_lock=has_lock)
        assert batch.count("COMMIT TRANSACTION;") == 1
        return Sql(batch.replace("COMMIT TRANSACTION;", f"{gate}\nCOMMIT TRANSACTION;"))


class SqlServerGates:
    """See `tests.exhaustive.database.Gates`."""

    def __init__(self, database: Database, rendering: Rendering, *, gated: int, other: int) -> None:
        """
        Name who is held and who is not.

        Args:
            database: past the writers.
            rendering: of the mirror.
            gated: session id of the writer that is held.
            other: of the one beside it.
        """
        self._database = database
        self._rendering = rendering
        self._gated = gated
        self._other = other

    async def install(self) -> None:
        """Say whom the gates hold."""
        table = self._rendering.qualified("TestGated")
        await self._database.run(Sql(f"INSERT INTO {table} (Spid) VALUES (?);"), (self._gated,))

    @contextlib.asynccontextmanager
    async def closed(self, point: str) -> AsyncIterator[None]:
        """Close one gate; open it at the end."""
        table, lock = self._rendering.qualified("TestClosed"), _lock(self._rendering)
        async with self._database.session() as session:
            take = Sql(taken_for_session(lock, wait_ms=round(_WAIT_S * 1_000)))
            assert await session.run(take, (), CALL_TIMEOUT_S) == [[(1,)]]
            try:
                await session.run(
                    Sql(f"INSERT INTO {table} (Point) VALUES (?);"), (point,), CALL_TIMEOUT_S
                )
                yield
            finally:
                await session.run(Sql(f"DELETE FROM {table};"), (), CALL_TIMEOUT_S)
                await session.run(Sql(released(lock)), (), CALL_TIMEOUT_S)

    async def wait_for_gated(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the gated writer stands at the gate, or is done; tells whether it stands."""
        return await until(task, self._is_at_gate)

    async def wait_for_other(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the other writer is held up by the gated one, or is done; tells the former."""
        return await until(task, self._is_held_up)

    async def kill_gated(self) -> None:
        """Let the gated writer's batch end with an error, and wait until its locks are gone."""
        table, clock = self._rendering.qualified("TestKilled"), SystemClock()
        await self._database.run(Sql(f"INSERT INTO {table} (Spid) VALUES (?);"), (self._gated,))
        async with asyncio.timeout(_WAIT_S):
            while await self._is_at_gate():
                await clock.sleep(_POLL_S)
        await self._database.run(Sql(f"DELETE FROM {table};"))

    async def _is_at_gate(self) -> bool:
        here = _here(self._rendering)
        async with self._database.session() as session:
            take = Sql(taken_for_session(here, wait_ms=0))
            if await session.run(take, (), CALL_TIMEOUT_S) == [[(0,)]]:
                return True
            await session.run(Sql(released(here)), (), CALL_TIMEOUT_S)
        return False

    async def _is_held_up(self) -> bool:
        found = await self._database.fetch(_IS_HELD_UP, (self._other, self._gated))
        return found != [(0,)]


def _lock(rendering: Rendering) -> str:
    return f"storemirror.gate:{rendering.schema_name}".lower()


def _here(rendering: Rendering) -> str:
    return f"storemirror.here:{rendering.schema_name}".lower()
