"""What a rebase does to a mirror in SQL Server, and remembers there.  See ADR 8."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from storemirror.clock import datetime_from_us, us_from_datetime
from storemirror.errors import RebaseUnderWay, SchemaMismatch
from storemirror.model.entity import Entity
from storemirror.sql.names import pascal_case
from storemirror.sql.port import RebaseState, RebaseStep
from storemirror.sql.render import SCHEMA_VERSION
from storemirror.sql.sqlserver import locks, ranges
from storemirror.sql.sqlserver.connection import CALL_TIMEOUT_S, Database, Sql, composed, in_utc
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.order import Bound
from storemirror.sql.sqlserver.rendering import Rendering

_STATE: Final = """
IF OBJECT_ID({name}, N'U') IS NOT NULL
    SELECT Run, Step, MarkAt FROM {table};
"""
_CLOSE: Final = """
DECLARE @Run NVARCHAR(200) = ?;
BEGIN TRANSACTION;
{lock}
UPDATE {table} SET Run = @Run, Step = N'closed', ChangedAt = SYSUTCDATETIME();
IF @@ROWCOUNT = 0
    INSERT INTO {table} (IsOnlyRow, Run, Step, ChangedAt)
    VALUES (1, @Run, N'closed', SYSUTCDATETIME());
COMMIT TRANSACTION;
"""
_ADVANCE: Final = """
DECLARE @Run NVARCHAR(200) = ?, @After NVARCHAR(16) = ?, @To NVARCHAR(16) = ?;
{declared}
UPDATE {table} SET Step = @To, ChangedAt = SYSUTCDATETIME(){marked}
WHERE Run = @Run AND Step = @After;
SELECT CAST(@@ROWCOUNT AS INT);
"""
#: A process that lost its session's lock, to a failover say, would else set versions to 0 behind
#: another one that has opened the mirror: older events could then win.  Whoever opens the mirror
#: writes the row that is written here, and so waits for the page, or is seen by it.
_RESET_PAGE: Final = """
DECLARE @Run NVARCHAR(200) = ?, @MaxCount INT = ?, @IsMarked INT, @Count BIGINT;
{declared}
BEGIN TRANSACTION;
{lock}
UPDATE {rebase} SET Step = Step WHERE Run = @Run AND Step = N'marked';
SET @IsMarked = @@ROWCOUNT;
{last_key}
SELECT @Count = COUNT_BIG(*) FROM ({page}) AS c;
{resets}
COMMIT TRANSACTION;
SELECT @IsMarked, @Count, {last};
"""
_RESET: Final = (
    "IF @IsMarked = 1 UPDATE {table} SET LastEventVersion = 0"
    " WHERE {condition} AND {up_to_last} AND LastEventVersion <> 0;"
)


class SqlServerRebaseLedger:
    """See `storemirror.sql.port.RebaseLedger`."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: the mirror's.
            rendering: which tables.
        """
        self._database = database
        self._rendering = rendering
        self._table = rendering.own_table("rebase")

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """See `RebaseLedger.held`.  The lock is the session's: it ends with the process."""
        lock = self._rendering.rebase_lock
        async with self._database.session() as session:
            take = Sql(locks.taken_for_session(lock, wait_ms=0))
            if await session.run(take, (), CALL_TIMEOUT_S) != [[(1,)]]:
                raise RebaseUnderWay("another process rebases this mirror; nothing was done here")
            try:
                yield
            finally:
                # With the connection the lock is gone as well.
                if not session.is_broken:
                    await session.run(Sql(locks.released(lock)), (), CALL_TIMEOUT_S)

    async def state(self) -> RebaseState | None:
        """See `RebaseLedger.state`.  A schema of the version before this one has no such table."""
        results = await self._database.run(
            composed(_STATE, name=locks.text(self._table), table=self._table)
        )
        if not results or not results[0]:
            return None
        run, step, mark_at = results[0][0]
        mark_us = None if mark_at is None else us_from_datetime(in_utc(mark_at))
        return RebaseState(run=run, step=RebaseStep(step), mark_us=mark_us)

    async def close(self, run: str) -> None:
        """See `RebaseLedger.close`.  SchemaMismatch: the procedures know of no rebase yet."""
        info = self._rendering.own_table("schema_info")
        installed = await self._database.fetch(
            composed("SELECT SchemaVersion FROM {info};", info=info)
        )
        if installed != [(SCHEMA_VERSION,)]:
            raise SchemaMismatch(
                f"a rebase needs schema version {SCHEMA_VERSION}, whose procedures keep writers of"
                " every version out; nothing was changed"
            )
        lock = locks.taken(self._rendering.purge_lock, "Exclusive")
        await self._database.run(composed(_CLOSE, lock=lock, table=self._table), [run])

    async def advance(
        self, run: str, *, after: RebaseStep, to: RebaseStep, mark_us: int | None = None
    ) -> None:
        """See `RebaseLedger.advance`."""
        parameters = [run, after.value, to.value]
        declared = marked = ""
        if mark_us is not None:
            declared, marked = "DECLARE @MarkAt DATETIME2(6) = ?;", ", MarkAt = @MarkAt"
            moment = datetime_from_us(mark_us).replace(tzinfo=None)
            parameters.append(moment.isoformat(timespec="microseconds"))
        batch = composed(_ADVANCE, declared=declared, marked=marked, table=self._table)
        if await self._database.fetch(batch, parameters) != [(1,)]:
            raise _no_longer(run, after)

    async def reset_versions(
        self, run: str, entity: Entity, *, after: tuple[str, ...] | None, max_count: int
    ) -> tuple[str, ...] | None:
        """See `RebaseLedger.reset_versions`."""
        lower = None if after is None else Bound(parts=after, is_inclusive=False)
        found = await self._database.fetch(
            self._reset_page(entity, lower), [run, max_count, *(after or ())]
        )
        is_marked, count, *last = found[0]
        if not is_marked:
            raise _no_longer(run, RebaseStep.MARKED)
        return tuple(last) if count == max_count else None

    def _reset_page(self, entity: Entity, lower: Bound | None) -> Sql:
        keys = [quoted(pascal_case(key.name)) for key in entity.keys]
        table = self._rendering.table(entity.name)
        beyond = list(ranges.after(keys, lower, "@Lower"))
        within = ranges.up_to(keys, None, "")
        page = ranges.first_rows(table, keys, keys, beyond=beyond, within=within, count="@MaxCount")
        resets = [
            composed(_RESET, table=table, condition=condition, up_to_last=ranges.up_to_last(keys))
            for condition in beyond
        ]
        return composed(
            _RESET_PAGE,
            declared="\n".join(ranges.declared(lower, "@Lower")),
            # A purge and a recomputation hold it alone: they would lock the same rows in turns.
            lock=locks.taken(self._rendering.purge_lock, "Shared"),
            rebase=self._table,
            last_key="\n".join(
                ranges.last_key(table, keys, beyond=beyond, within=within, count="@MaxCount")
            ),
            page=page,
            resets="\n".join(resets),
            last=", ".join(f"@Last{place}" for place in range(len(keys))),
        )


def _no_longer(run: str, step: RebaseStep) -> RebaseUnderWay:
    return RebaseUnderWay(
        f"rebase {run} is no longer at step {step.value}: another process went on with it"
    )
