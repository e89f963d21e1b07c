"""The record of unverified documents in PostgreSQL.  See `storemirror.sql.port.SqlMirror`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from storemirror.clock import datetime_from_us, us_from_datetime
from storemirror.model.entity import Entity
from storemirror.sql.names import snake_case
from storemirror.sql.port import UnverifiedDocument
from storemirror.sql.postgres.connection import Database, sql
from storemirror.sql.postgres.rendering import Rendering

#: A conversation is marked under one id for all of its events: the highest version stays, and none
#: where one of them is not known.
_MARK: Final = sql.SQL("""
    INSERT INTO {table} AS u (message_id, reason, path, entity, key, version)
    SELECT message_id, reason, path, entity, key, version
    FROM jsonb_to_recordset(%s::jsonb) AS m (
        message_id text, reason text, path text, entity text, key text[], version bigint)
    ON CONFLICT (message_id) DO UPDATE
        SET reason = EXCLUDED.reason, marked_at = clock_timestamp(),
            version = CASE WHEN u.version IS NOT NULL AND EXCLUDED.version IS NOT NULL
                THEN greatest(u.version, EXCLUDED.version) END
""")
_LIST: Final = sql.SQL("""
    SELECT message_id, reason, path, entity, key, version, marked_at
    FROM {table} ORDER BY marked_at, message_id LIMIT %s
""")
#: Two dead letters of one document are one document; one without a path stands for itself.
_COUNT: Final = sql.SQL("SELECT count(DISTINCT coalesce(path, message_id)) FROM {table}")
_CLEAR: Final = sql.SQL("""
    DELETE FROM {table} u
    USING unnest(%s::text[], %s::timestamptz[]) AS c (message_id, marked_at)
    WHERE u.message_id = c.message_id AND u.marked_at = c.marked_at
""")
_CLEAR_OVERTAKEN: Final = sql.SQL("""
    DELETE FROM {table} u USING {rows} r
    WHERE u.entity = %s AND {same_key} AND r.last_event_version > u.version
""")


class UnverifiedRecord:
    """Documents whose dead letters were purged; one row a dead letter."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """Hold on to the database; it stays the caller's to close."""
        self._database = database
        self._rendering = rendering
        self._table = sql.Identifier(rendering.schema_name, "unverified_document")

    async def mark(self, marks: Sequence[UnverifiedDocument]) -> None:
        """See `SqlMirror.mark_unverified`."""
        # A statement may touch a row once.
        unique = {mark.message_id: mark for mark in marks}
        told = [
            {
                "message_id": mark.message_id,
                "reason": mark.reason,
                "path": mark.path,
                "entity": mark.entity,
                "key": mark.key,
                "version": mark.version,
            }
            for mark in unique.values()
        ]
        await self._change(_MARK.format(table=self._table), (msgspec.json.encode(told).decode(),))

    async def listed(self, *, limit: int | None) -> list[UnverifiedDocument]:
        """See `SqlMirror.unverified`."""
        found = await self._database.fetch(_LIST.format(table=self._table), (limit,))
        return [
            UnverifiedDocument(
                message_id=message_id,
                reason=reason,
                path=path,
                entity=entity,
                key=None if key is None else tuple(key),
                version=version,
                marked_at_us=us_from_datetime(marked_at),
            )
            for message_id, reason, path, entity, key, version, marked_at in found
        ]

    async def count(self) -> int:
        """See `SqlMirror.unverified_count`."""
        return int((await self._database.fetch(_COUNT.format(table=self._table)))[0][0])

    async def clear(self, marks: Sequence[UnverifiedDocument]) -> int:
        """See `SqlMirror.clear_unverified`."""
        if not marks:
            return 0
        ids = [mark.message_id for mark in marks]
        moments = [datetime_from_us(mark.marked_at_us) for mark in marks]
        return await self._change(_CLEAR.format(table=self._table), (ids, moments))

    async def clear_overtaken(self) -> int:
        """See `SqlMirror.clear_overtaken`."""
        return sum([await self._clear_overtaken(entity) for entity in self._rendering.model])

    async def _clear_overtaken(self, entity: Entity) -> int:
        columns = [snake_case(part.name) for part in entity.keys]
        same_key = sql.SQL(" AND ").join(
            sql.SQL("r.{} = u.key[{}]").format(sql.Identifier(column), sql.Literal(place))
            for place, column in enumerate(columns, start=1)
        )
        statement = _CLEAR_OVERTAKEN.format(
            table=self._table,
            rows=sql.Identifier(self._rendering.schema_name, snake_case(entity.name)),
            same_key=same_key,
        )
        return await self._change(statement, (entity.name,))

    async def _change(self, statement: sql.Composed, parameters: tuple[object, ...]) -> int:
        """Run a statement; gives how many rows it touched."""
        async with self._database.connection() as conn:
            return (await conn.execute(statement, parameters)).rowcount
