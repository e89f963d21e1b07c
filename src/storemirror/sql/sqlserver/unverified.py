"""The record of unverified documents in SQL Server.  See `storemirror.sql.port.SqlMirror`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from storemirror.clock import datetime_from_us, us_from_datetime
from storemirror.model.entity import Entity
from storemirror.sql.names import pascal_case
from storemirror.sql.port import UnverifiedDocument
from storemirror.sql.sqlserver.connection import Database, Sql, composed, in_utc
from storemirror.sql.sqlserver.escapes import DECLARED, unescaped
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.rendering import Rendering

_TEXTS: Final = ("MessageId", "Reason", "Path", "Entity", "KeyParts")
#: A conversation is marked under one id for all of its events, by any number of writers: the
#: highest version stays, and none where one of them is not known.
#: The time of a mark is told apart from that of the one before it, however quickly it follows.
_MARK: Final = """
DECLARE @Marks NVARCHAR(MAX) = ?;
DECLARE @Now DATETIME2(6) = SYSUTCDATETIME();
{declared}
BEGIN TRANSACTION;
CREATE TABLE #Mark (
    MessageId NVARCHAR(4000) COLLATE Latin1_General_100_BIN2 NULL,
    Reason NVARCHAR(MAX) COLLATE Latin1_General_100_BIN2 NULL,
    Path NVARCHAR(MAX) COLLATE Latin1_General_100_BIN2 NULL,
    Entity NVARCHAR(200) COLLATE Latin1_General_100_BIN2 NULL,
    KeyParts NVARCHAR(MAX) COLLATE Latin1_General_100_BIN2 NULL,
    Version BIGINT NULL
);
INSERT INTO #Mark (MessageId, Reason, Path, Entity, KeyParts, Version)
SELECT m.MessageId, m.Reason, m.Path, m.Entity, m.KeyParts, CAST(m.Version AS BIGINT)
FROM OPENJSON(@Marks) WITH (
    MessageId NVARCHAR(4000) '$.MessageId', Reason NVARCHAR(MAX) '$.Reason',
    Path NVARCHAR(MAX) '$.Path', Entity NVARCHAR(200) '$.Entity',
    KeyParts NVARCHAR(MAX) '$.KeyParts', Version NVARCHAR(40) '$.Version'
) AS m;
{unescaped}
UPDATE u SET Reason = m.Reason,
    Version = CASE WHEN u.Version IS NULL OR m.Version IS NULL THEN NULL
        WHEN u.Version > m.Version THEN u.Version ELSE m.Version END,
    MarkedAt = CASE WHEN u.MarkedAt < @Now THEN @Now ELSE DATEADD(MICROSECOND, 1, u.MarkedAt) END
FROM {table} AS u
JOIN #Mark AS m ON m.MessageId = u.MessageId;
INSERT INTO {table} (MessageId, Reason, Path, Entity, KeyParts, Version, MarkedAt)
SELECT m.MessageId, m.Reason, m.Path, m.Entity, m.KeyParts, m.Version, @Now
FROM #Mark AS m
WHERE NOT EXISTS (
    SELECT 1 FROM {table} AS u WITH (UPDLOCK, HOLDLOCK) WHERE u.MessageId = m.MessageId
);
DROP TABLE #Mark;
COMMIT TRANSACTION;
"""
_LIST: Final = """
SELECT {top}MessageId, Reason, Path, Entity, KeyParts, Version, MarkedAt
FROM {table} ORDER BY MarkedAt, MessageId;
"""
#: Two dead letters of one document are one document; one without a path stands for itself.
_COUNT: Final = """
SELECT COUNT_BIG(DISTINCT COALESCE(
    CAST(Path AS NVARCHAR(MAX)) COLLATE Latin1_General_100_BIN2,
    MessageId COLLATE Latin1_General_100_BIN2))
FROM {table};
"""
_CLEAR: Final = """
DECLARE @Marks NVARCHAR(MAX) = ?;
DECLARE @Count BIGINT;
{declared}
BEGIN TRANSACTION;
CREATE TABLE #Mark (
    MessageId NVARCHAR(4000) COLLATE Latin1_General_100_BIN2 NULL, MarkedAt DATETIME2(6) NULL
);
INSERT INTO #Mark (MessageId, MarkedAt)
SELECT m.MessageId, CAST(m.MarkedAt AS DATETIME2(6))
FROM OPENJSON(@Marks) WITH (
    MessageId NVARCHAR(4000) '$.MessageId', MarkedAt NVARCHAR(40) '$.MarkedAt'
) AS m;
{unescaped}
DELETE u FROM {table} AS u
JOIN #Mark AS m ON m.MessageId = u.MessageId AND m.MarkedAt = u.MarkedAt;
SET @Count = @@ROWCOUNT;
DROP TABLE #Mark;
COMMIT TRANSACTION;
SELECT @Count;
"""
_CLEAR_OVERTAKEN: Final = """
DECLARE @Entity NVARCHAR(200) = ?;
DECLARE @Count BIGINT;
{declared}
BEGIN TRANSACTION;
CREATE TABLE #Overtaken (
    {columns}, _MessageId NVARCHAR(400) COLLATE Latin1_General_100_BIN2 NULL, _Version BIGINT NULL
);
INSERT INTO #Overtaken ({keys}, _MessageId, _Version)
SELECT {parts}, u.MessageId, u.Version
FROM {table} AS u
WHERE u.Entity = @Entity AND u.KeyParts IS NOT NULL;
{unescaped}
DELETE u FROM {table} AS u
JOIN #Overtaken AS m ON m._MessageId = u.MessageId AND m._Version = u.Version
JOIN {rows} AS r ON {same_key} AND r.LastEventVersion > m._Version;
SET @Count = @@ROWCOUNT;
DROP TABLE #Overtaken;
COMMIT TRANSACTION;
SELECT @Count;
"""


class UnverifiedRecord:
    """Documents whose dead letters were purged; one row a dead letter."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """Hold on to the database; it stays the caller's to close."""
        self._database = database
        self._rendering = rendering
        self._table = rendering.own_table("unverified_document")

    async def mark(self, marks: Sequence[UnverifiedDocument]) -> None:
        """See `SqlMirror.mark_unverified`."""
        # A statement may touch a row once.
        unique = {mark.message_id: mark for mark in marks}
        told = [
            {
                "MessageId": mark.message_id,
                "Reason": mark.reason,
                "Path": mark.path,
                "Entity": mark.entity,
                "KeyParts": None if mark.key is None else _json(mark.key),
                "Version": mark.version,
            }
            for mark in unique.values()
        ]
        batch = composed(
            _MARK, table=self._table, declared=DECLARED, unescaped=unescaped("#Mark", _TEXTS, "")
        )
        await self._database.run(batch, [_json(told)])

    async def listed(self, *, limit: int | None) -> list[UnverifiedDocument]:
        """See `SqlMirror.unverified`."""
        top = "" if limit is None else f"TOP ({limit:d}) "
        found = await self._database.fetch(
            composed(_LIST, table=self._table, top=top),
        )
        return [
            UnverifiedDocument(
                message_id=message_id,
                reason=reason,
                path=path,
                entity=entity,
                key=None if key is None else tuple(msgspec.json.decode(key, type=list[str])),
                version=version,
                marked_at_us=us_from_datetime(in_utc(marked_at)),
            )
            for message_id, reason, path, entity, key, version, marked_at in found
        ]

    async def count(self) -> int:
        """See `SqlMirror.unverified_count`."""
        [(count,)] = await self._database.fetch(composed(_COUNT, table=self._table))
        return int(count)

    async def clear(self, marks: Sequence[UnverifiedDocument]) -> int:
        """See `SqlMirror.clear_unverified`."""
        if not marks:
            return 0
        told = [
            {
                "MessageId": mark.message_id,
                "MarkedAt": datetime_from_us(mark.marked_at_us)
                .replace(tzinfo=None)
                .isoformat(timespec="microseconds"),
            }
            for mark in marks
        ]
        batch = composed(
            _CLEAR,
            table=self._table,
            declared=DECLARED,
            unescaped=unescaped("#Mark", ["MessageId"], ""),
        )
        return await self._changed(batch, _json(told))

    async def clear_overtaken(self) -> int:
        """See `SqlMirror.clear_overtaken`."""
        return sum([await self._clear_overtaken(entity) for entity in self._rendering.model])

    async def _clear_overtaken(self, entity: Entity) -> int:
        keys = [quoted(pascal_case(part.name)) for part in entity.keys]
        batch = composed(
            _CLEAR_OVERTAKEN,
            table=self._table,
            rows=self._rendering.table(entity.name),
            keys=", ".join(keys),
            columns=", ".join(
                f"{key} NVARCHAR(4000) COLLATE Latin1_General_100_BIN2 NULL" for key in keys
            ),
            parts=", ".join(f"JSON_VALUE(u.KeyParts, N'$[{place}]')" for place in range(len(keys))),
            same_key=" AND ".join(f"r.{key} = m.{key}" for key in keys),
            declared=DECLARED,
            unescaped=unescaped("#Overtaken", keys, ""),
        )
        return await self._changed(batch, entity.name)

    async def _changed(self, batch: Sql, parameter: str) -> int:
        """Run a statement; gives how many rows it touched."""
        [(count,)] = await self._database.fetch(batch, [parameter])
        return int(count)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
