"""What a rebase does to a mirror in PostgreSQL, and remembers there.  See ADR 8."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncIterator
from typing import Final

from storemirror.clock import datetime_from_us, us_from_datetime
from storemirror.errors import RebaseUnderWay, SchemaMismatch
from storemirror.model.entity import Entity
from storemirror.sql.names import snake_case
from storemirror.sql.port import RebaseState, RebaseStep
from storemirror.sql.postgres.connection import Connection, Database, sql
from storemirror.sql.postgres.rendering import Rendering, quoted
from storemirror.sql.render import SCHEMA_VERSION

_SHARE_WITH_WRITERS: Final = "SELECT pg_advisory_xact_lock_shared(%s)"
_KEEP_WRITERS_OUT: Final = "SELECT pg_advisory_xact_lock(%s)"
#: A table that was small when it was last looked at must not be scanned once a page.
_ALONG_THE_KEYS: Final = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true)
"""
_CLOSE: Final = """
    INSERT INTO {rebase} AS r (run, step) VALUES (%s, 'closed')
    ON CONFLICT (is_only_row) DO UPDATE SET run = EXCLUDED.run, step = EXCLUDED.step,
        changed_at = clock_timestamp()
"""
_ADVANCE: Final = """
    UPDATE {rebase} SET step = %s, mark_at = COALESCE(%s, mark_at), changed_at = clock_timestamp()
    WHERE run = %s AND step = %s
    RETURNING true
"""
#: Shared with other pages; whoever opens the mirror waits for the page, or is seen by it.
_STILL_MARKED: Final = "SELECT true FROM {rebase} WHERE run = %s AND step = 'marked' FOR SHARE"
_RESET_PAGE: Final = """
    WITH page AS (
        SELECT {keys} FROM {table} WHERE {condition} ORDER BY {keys} LIMIT %s
    ), reset AS (
        UPDATE {table} AS d SET last_event_version = 0 FROM page
        WHERE {joined} AND d.last_event_version <> 0
    )
    SELECT {keys} FROM page ORDER BY {keys}
"""


class PostgresRebaseLedger:
    """See `storemirror.sql.port.RebaseLedger`."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: opened with kind MIRROR.
            rendering: which tables.
        """
        self._database = database
        self._schema = rendering.schema_name
        self._purge_lock = rendering.purge_lock
        self._rebase_lock = zlib.crc32(f"storemirror.rebase:{self._schema}".encode())
        self._table = sql.Identifier(self._schema, "rebase")

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """See `RebaseLedger.held`.  The lock is the session's: it ends with the process."""
        async with self._database.connection() as conn:
            cursor = await conn.execute("SELECT pg_try_advisory_lock(%s)", (self._rebase_lock,))
            if await cursor.fetchone() != (True,):
                raise RebaseUnderWay("another process rebases this mirror; nothing was done here")
            try:
                yield
            finally:
                # With the connection the lock is gone as well.
                if not conn.closed:
                    await conn.execute("SELECT pg_advisory_unlock(%s)", (self._rebase_lock,))

    async def state(self) -> RebaseState | None:
        """See `RebaseLedger.state`.  A schema of the version before this one has no such table."""
        table = f"{quoted(self._schema)}.rebase"
        if await self._database.fetch("SELECT to_regclass(%s)", (table,)) == [(None,)]:
            return None
        query = sql.SQL("SELECT run, step, mark_at FROM {}").format(self._table)
        found = await self._database.fetch(query)
        if not found:
            return None
        run, step, mark_at = found[0]
        mark_us = None if mark_at is None else us_from_datetime(mark_at)
        return RebaseState(run=run, step=RebaseStep(step), mark_us=mark_us)

    async def close(self, run: str) -> None:
        """See `RebaseLedger.close`.  SchemaMismatch: the procedures know of no rebase yet."""
        installed = await self._database.fetch(
            sql.SQL("SELECT schema_version FROM {}").format(
                sql.Identifier(self._schema, "schema_info")
            )
        )
        if installed != [(SCHEMA_VERSION,)]:
            raise SchemaMismatch(
                f"a rebase needs schema version {SCHEMA_VERSION}, whose procedures keep writers of"
                " every version out; nothing was changed"
            )
        async with self._database.transaction() as conn:
            await conn.execute(_KEEP_WRITERS_OUT, (self._purge_lock,))
            await conn.execute(sql.SQL(_CLOSE).format(rebase=self._table), (run,))

    async def advance(
        self, run: str, *, after: RebaseStep, to: RebaseStep, mark_us: int | None = None
    ) -> None:
        """See `RebaseLedger.advance`."""
        mark_at = None if mark_us is None else datetime_from_us(mark_us)
        moved = await self._database.fetch(
            sql.SQL(_ADVANCE).format(rebase=self._table), (to.value, mark_at, run, after.value)
        )
        if not moved:
            raise _no_longer(run, after)

    async def reset_versions(
        self, run: str, entity: Entity, *, after: tuple[str, ...] | None, max_count: int
    ) -> tuple[str, ...] | None:
        """See `RebaseLedger.reset_versions`."""
        names = [sql.Identifier(snake_case(key.name)) for key in entity.keys]
        keys = sql.SQL(", ").join(names)
        condition: sql.Composable = sql.SQL("true")
        if after is not None:
            places = sql.SQL(", ").join([sql.Placeholder()] * len(names))
            condition = sql.SQL("({}) > ({})").format(keys, places)
        query = sql.SQL(_RESET_PAGE).format(
            keys=keys,
            table=sql.Identifier(self._schema, snake_case(entity.name)),
            condition=condition,
            joined=sql.SQL(" AND ").join(sql.SQL("d.{0} = page.{0}").format(n) for n in names),
        )
        async with self._database.transaction() as conn:
            # A purge and a recomputation hold it alone: they would lock the same rows in turns.
            await conn.execute(_SHARE_WITH_WRITERS, (self._purge_lock,))
            await conn.execute(_ALONG_THE_KEYS)
            await self._see_marked(conn, run)
            found = await (await conn.execute(query, (*(after or ()), max_count))).fetchall()
        return tuple(found[-1]) if len(found) == max_count else None

    async def _see_marked(self, conn: Connection, run: str) -> None:
        """
        See that this rebase still resets versions, and keep it so until the transaction ends.

        A process that lost its session's lock, to a failover say, would else set versions to 0
        behind another one that has opened the mirror: older events could then win.
        """
        marked = await conn.execute(sql.SQL(_STILL_MARKED).format(rebase=self._table), (run,))
        if await marked.fetchone() is None:
            raise _no_longer(run, RebaseStep.MARKED)


def _no_longer(run: str, step: RebaseStep) -> RebaseUnderWay:
    return RebaseUnderWay(
        f"rebase {run} is no longer at step {step.value}: another process went on with it"
    )
