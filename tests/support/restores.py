"""A restore from backup of the embedded document store: documents get their old times back."""

from __future__ import annotations

from storemirror.sql.postgres.connection import Connection

_SAVE = "CREATE TABLE documents.saved AS SELECT * FROM documents.document"
_EMPTY = "DELETE FROM documents.document"
_RESTORE = """
    INSERT INTO documents.document (path, collection, fields, create_time_us, update_time_us)
    SELECT path, collection, fields, create_time_us, update_time_us FROM documents.saved
"""


async def back_up(conn: Connection) -> None:
    """Keep the documents as they are."""
    await conn.execute(_SAVE)


async def restore(conn: Connection) -> None:
    """Make the documents what they were; no trigger hears of it, as with a real restore."""
    async with conn.transaction():
        await conn.execute(_EMPTY)
        await conn.execute(_RESTORE)
