"""
Builds the index that takes another one's place, beside it, before any table is locked.

Outside of every transaction: what a later lock takes back must not be an hour's work, and while
it is built everybody reads and writes.  The short transaction that follows gives it its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from storemirror.sql.catalogue import WantedSchema
from storemirror.sql.patience import Deployment, LockHolder, LockPatience
from storemirror.sql.postgres.connection import Connection, psycopg, sql
from storemirror.sql.postgres.rendering import Rendering

#: A lock that was not given in time; or both would have waited for each other for ever.
NOT_GIVEN: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
#: Whose transaction had begun before it was waited for: the oldest first, a few.
_OLDEST: Final = """
SELECT a.pid, COALESCE(NULLIF(a.application_name, ''), a.backend_type, '')
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
    AND a.xact_start < clock_timestamp() - %s * interval '1 ms'
ORDER BY a.xact_start, a.pid
LIMIT 5
"""
#: Of the indexes that are being built: who builds, how far, and for whom it waits.
_PROGRESS: Final = """
SELECT i.relname, p.pid, p.phase,
       (SELECT COALESCE(NULLIF(a.application_name, ''), a.backend_type, '')
        FROM pg_stat_activity a WHERE a.pid = NULLIF(p.current_locker_pid, 0)),
       p.current_locker_pid
FROM pg_stat_progress_create_index p
JOIN pg_class i ON i.oid = p.index_relid
JOIN pg_namespace n ON n.oid = i.relnamespace
WHERE p.datname = current_database() AND n.nspname = %s
"""


async def build_next_indexes(
    conn: Connection, rendering: Rendering, patience: LockPatience, deployment: Deployment
) -> None:
    """
    Build what is to take an index's place.  Idempotent; what is built already stays.

    Args:
        conn: in autocommit, with the lock of one deployment.
        rendering: what is to be installed.
        patience: for how long those are waited for whose transaction is older.
        deployment: says what was waited for.

    Raises:
        SchemaLocked: they did not end.
    """
    query = rendering.next_indexes_sql().encode()
    statements = await (await conn.execute(query)).fetchall()
    if not statements:
        return
    await _wait_for_locks(conn, patience.build_wait_ms)
    try:
        for (statement,) in statements:
            await conn.execute(statement.encode())
    except psycopg.Error as exc:
        if conn.closed:
            raise
        await _remove_unfinished(conn, rendering, patience)
        if isinstance(exc, NOT_GIVEN):
            raise deployment.not_built(await _oldest(conn, patience), patience) from exc
        raise
    finally:
        if not conn.closed:
            await conn.execute("RESET lock_timeout")


async def builds_under_way(conn: Connection, wanted: WantedSchema) -> Mapping[str, str]:
    """Give, for each index that is being built in the schema, who builds it and what it does."""
    found: dict[str, str] = {}
    for name, pid, phase, locker, locker_pid in await (
        await conn.execute(_PROGRESS, (wanted.name,))
    ).fetchall():
        holder = LockHolder(session_id=locker_pid or 0, application=locker or "")
        waited = f" of {holder}" if locker_pid and phase.startswith("waiting") else ""
        found[name] = f"by session {pid}: {phase}{waited}"
    return found


async def _wait_for_locks(conn: Connection, wait_ms: int) -> None:
    await conn.execute("SELECT set_config('lock_timeout', %s, false)", (str(wait_ms),))


async def _remove_unfinished(
    conn: Connection, rendering: Rendering, patience: LockPatience
) -> None:
    """
    Take away what a build that failed has left: writers would have to keep it up to date.

    Where that is not given in time either, the next `schema apply` does it.
    """
    await _wait_for_locks(conn, patience.wait_ms)
    for name in await _unfinished(conn, rendering):
        try:
            await conn.execute(
                sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(
                    sql.Identifier(rendering.schema_name, name)
                )
            )
        except NOT_GIVEN:
            return


async def _unfinished(conn: Connection, rendering: Rendering) -> Sequence[str]:
    rows = await conn.execute(
        "SELECT c.relname FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = ANY (%s) AND NOT x.indisvalid",
        (rendering.schema_name, list(rendering.next_index_names)),
    )
    return [name async for (name,) in rows]


async def _oldest(conn: Connection, patience: LockPatience) -> list[LockHolder]:
    rows = await conn.execute(_OLDEST, (patience.build_wait_ms,))
    return [LockHolder(session_id=pid, application=name) async for pid, name in rows]
