"""Who stands in the way of a change of the schema, on SQL Server."""

from __future__ import annotations

from typing import Final

from storemirror.sql.patience import LockHolder, LockPatience
from storemirror.sql.sqlserver import locks
from storemirror.sql.sqlserver.connection import (
    CALL_TIMEOUT_S,
    Database,
    composed,
)
from storemirror.sql.sqlserver.errors import NO_RIGHT, NO_SUCH_OBJECT, ServerError
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.tables import wanted_tables

#: How much of an application lock's name the server tells.
_TOLD_OF_LOCK: Final = 32
#: Who has a table of the schema, or the writers' lock, and whose transaction had begun before it
#: was waited for: the oldest first, a few.
_HOLDERS: Final = """
DECLARE @WaitMs INT = ?;
SELECT TOP (5) s.session_id, COALESCE(NULLIF(s.program_name, N''), s.login_name) AS SessionName
FROM sys.dm_tran_locks AS l
INNER JOIN sys.dm_exec_sessions AS s ON s.session_id = l.request_session_id
LEFT JOIN sys.dm_tran_active_transactions AS t
    ON t.[transaction_id] = l.request_owner_id AND l.request_owner_type = N'TRANSACTION'
WHERE l.resource_database_id = DB_ID() AND l.request_status = N'GRANT'
    AND l.request_session_id <> @@SPID
    AND (t.transaction_begin_time IS NULL
        OR t.transaction_begin_time < DATEADD(MILLISECOND, -@WaitMs, GETDATE()))
    AND (
        (l.resource_type = N'OBJECT' AND l.resource_associated_entity_id IN ({tables}))
        OR (l.resource_type = N'APPLICATION' AND CHARINDEX({lock}, l.resource_description) > 0)
    )
GROUP BY s.session_id, s.program_name, s.login_name
ORDER BY CASE WHEN MIN(t.transaction_begin_time) IS NULL THEN 1 ELSE 0 END,
         MIN(t.transaction_begin_time), s.session_id;
"""


async def lock_holders(
    database: Database, rendering: Rendering, patience: LockPatience
) -> list[LockHolder] | None:
    """
    Ask who holds what a change of the schema waited for: in a session of its own.

    The one that was refused a lock may have ended with it.

    Args:
        database: the mirror's.
        rendering: what is to be installed.
        patience: how long was waited.

    Returns:
        The oldest first; empty: they have let go by now.  None: this user may not see it, or the
        server does not tell anybody.
    """
    tables = ", ".join(
        f"OBJECT_ID({locks.text(rendering.qualified(table.name))})"
        for table in wanted_tables(rendering.model)
    )
    batch = composed(
        _HOLDERS, tables=tables, lock=locks.text(f"[{rendering.purge_lock[:_TOLD_OF_LOCK]}")
    )
    async with database.session() as session:
        try:
            [rows] = await session.run(batch, (patience.wait_ms,), CALL_TIMEOUT_S)
        except ServerError as exc:
            if exc.number in NO_RIGHT or exc.number == NO_SUCH_OBJECT:
                return None
            raise
    return [LockHolder(session_id=number, application=name or "") for number, name in rows]
