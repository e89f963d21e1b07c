"""
Reads for an app's users from SQL Server: one statement each, by index.

Hints settle the plans, as in the procedures: whatever the tables held when a plan was made, it
walks from a user's own rows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from storemirror.clock import us_from_datetime
from storemirror.errors import ConfigError
from storemirror.model.entity import Entity
from storemirror.model.social import messaging_of
from storemirror.sql.names import has_relationship, pascal_case
from storemirror.sql.pages import (
    asked_of,
    can_be_key,
    id_of,
    moment_of,
    others_of,
    page_of,
    relationship_of,
)
from storemirror.sql.reads import (
    NO_RELATIONSHIP,
    READ_TIMEOUT_S,
    UNREAD_LIMIT,
    InboxRow,
    InboxRows,
    MessageRow,
    MessageRows,
    Place,
    RelationshipRows,
)
from storemirror.sql.sqlserver.connection import (
    Database,
    Parameter,
    Row,
    Sql,
    composed,
    in_utc,
)
from storemirror.sql.sqlserver.errors import ServerError
from storemirror.sql.sqlserver.facts import read_facts
from storemirror.sql.sqlserver.naming import child_index, latest_index, quoted
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.types import COLLATION, LIMITS
from storemirror.sql.unfit import MARK_PREFIX, is_named_by_key

#: One snapshot, where the database has any.  Where it has none, a page may show both sides of a
#: commit: locks kept to its end would let readers and writers deadlock.
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT;"
_READ_COMMITTED: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"

#: A row a conversation and other participant.  Names of ours begin with an underscore, as no
#: declared key does.  The cast: beside a text without a limit the key itself would be converted,
#: and could not be sought.
_INBOX: Final = """
DECLARE @Viewer NVARCHAR(4000) = ?, @Count INT = ?{place};
SELECT i.{key}, i._Version, i._Title, i.CreatedAt, i.LastActivityAt, i.LastMessageId,
    i.LastMessageAt, i._Preview, l.LastEventVersion, u.UnreadCount, i.LastReadAt, o.{user},
    o.LastReadAt AS _OtherReadAt, CASE WHEN EXISTS ({unfit_on_page}) THEN 1 ELSE 0 END AS _IsUnfit
FROM (
    SELECT TOP (@Count) c.{key}, c.LastEventVersion AS _Version, c.CreatedAt, c.LastActivityAt,
        c.LastMessageId, c.LastMessageAt, {title} AS _Title, {preview} AS _Preview, p.LastReadAt
    FROM {participant} AS p WITH (INDEX ({by_user}), FORCESEEK)
    INNER JOIN {conversation} AS c WITH (FORCESEEK) ON c.{key} = p.{key}
    WHERE p.{user} = @Viewer AND c.RowState = N'live'{behind}{but_unfit}
    ORDER BY c.LastActivityAt DESC, c.{key} DESC
) AS i
LEFT JOIN {message} AS l WITH (FORCESEEK)
    ON l.{parent} = i.{key} AND l.{id} = CAST(i.LastMessageId AS NVARCHAR(4000))
OUTER APPLY (
    SELECT COUNT(*) AS UnreadCount FROM (
        SELECT TOP ({unread_limit}) m.{id} FROM {message} AS m WITH (INDEX ({latest}), FORCESEEK)
        WHERE m.{parent} = i.{key} AND m.RowState = N'live'
            AND m.SentAt > COALESCE(i.LastReadAt, CAST(N'0001-01-01' AS DATETIME2(6)))
            AND (m.SenderId <> @Viewer OR DATALENGTH(m.SenderId) <> DATALENGTH(@Viewer))
        ORDER BY m.SentAt DESC, m.{id} DESC
    ) AS n
) AS u
LEFT JOIN {participant} AS o WITH (FORCESEEK) ON o.{key} = i.{key} AND o.{user} <> @Viewer
ORDER BY i.LastActivityAt DESC, i.{key} DESC
OPTION (LOOP JOIN, FORCE ORDER, MAXDOP 1);
"""
_BEHIND: Final = """
        AND c.LastActivityAt <= @At AND (c.LastActivityAt < @At OR c.{key} < @Id)"""
#: Whether a newer event of the conversation's document was set aside: see `storemirror.sql.unfit`.
_UNFIT: Final = """
        SELECT 1 FROM {marks} AS f WITH (FORCESEEK)
        WHERE f.MessageId = {mark_id} AND (f.Version IS NULL OR f.Version > {version})
    """
_BUT_UNFIT: Final = "\n        AND NOT EXISTS ({unfit})"
_PLACE: Final = ", @At DATETIME2(6) = ?, @Id NVARCHAR(4000) = ?"

_MESSAGES: Final = """
DECLARE @Viewer NVARCHAR(4000) = ?, @Conversation NVARCHAR(4000) = ?, @Count INT = ?{place};
SELECT {beyond} AS _IsBeyond, {at} AS _IsAt, d.*
FROM {conversation} AS c WITH (FORCESEEK)
INNER JOIN {participant} AS p WITH (FORCESEEK) ON p.{key} = c.{key} AND p.{user} = @Viewer
OUTER APPLY (
    SELECT TOP (@Count) m.{id}, m.LastEventVersion, m.SenderId, {body} AS _Body, m.SentAt,
        {edited} AS _EditedAt, {attachments} AS _Attachments
    FROM {message} AS m WITH (INDEX ({latest}), FORCESEEK)
    WHERE m.{parent} = c.{key} AND m.RowState = N'live'{within}
    ORDER BY m.SentAt {order}, m.{id} {order}
) AS d
WHERE c.{key} = @Conversation AND c.RowState = N'live' AND NOT EXISTS ({unfit})
ORDER BY d.SentAt {order}, d.{id} {order}
OPTION (LOOP JOIN, FORCE ORDER, MAXDOP 1);
"""
#: Begins so that an index ends there.
_BESIDE: Final = "{m}.SentAt {sign}= @At AND ({m}.SentAt {sign} @At OR {m}.{id} {sign} @Id)"
_AT: Final = "{m}.SentAt = @At AND {m}.{id} = @Id"
_ANY: Final = """CASE WHEN EXISTS (
    SELECT 1 FROM {message} AS x WITH (INDEX ({latest}), FORCESEEK)
    WHERE x.{parent} = @Conversation AND x.RowState = N'live' AND {condition}
) THEN 1 ELSE 0 END"""

_RELATIONSHIP: Final = """
DECLARE @Viewer NVARCHAR(4000) = ?, @Target NVARCHAR(4000) = ?;
SELECT 0 AS Side, e.RowState, e.LastEventVersion FROM {follow} AS e WITH (FORCESEEK)
WHERE e.{follower} = @Viewer AND e.{followee} = @Target AND e.RowState <> N'stub'
UNION ALL
SELECT 1, e.RowState, e.LastEventVersion FROM {follow} AS e WITH (FORCESEEK)
WHERE e.{follower} = @Target AND e.{followee} = @Viewer AND e.RowState <> N'stub'
UNION ALL
SELECT 2, e.RowState, e.LastEventVersion FROM {block} AS e WITH (FORCESEEK)
WHERE e.{blocker} = @Viewer AND e.{blocked} = @Target AND e.RowState <> N'stub'
UNION ALL
SELECT 3, e.RowState, e.LastEventVersion FROM {block} AS e WITH (FORCESEEK)
WHERE e.{blocker} = @Target AND e.{blocked} = @Viewer AND e.RowState <> N'stub';
"""
_VERSION: Final = """
DECLARE {declared};
SELECT e.LastEventVersion FROM {table} AS e WITH (FORCESEEK)
WHERE {key} AND e.RowState <> N'stub';
"""


class SqlServerReads:
    """See `storemirror.sql.reads.SqlReads`."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: the mirror's; best one of its own, so that no read waits for a writer's
                connection.
            rendering: which tables.
        """
        self._database = database
        self.statements = ReadStatements(rendering)
        self._isolation: str | None = None

    async def inbox(self, viewer: str, *, older_than: Place | None, limit: int) -> InboxRows:
        """See `SqlReads.inbox`."""
        place = 0 if older_than is None else 1
        batch = self.statements.inbox[place]
        if not can_be_key(viewer, LIMITS):
            return InboxRows(rows=(), has_older=False)
        parameters: tuple[Parameter, ...] = (viewer, limit + 1, *_bound(older_than))
        found = _by_conversation(await self._read(batch, parameters))
        is_whole = not any(records[0][-1] for records in found[:limit])
        if not is_whole:
            batch = self.statements.inbox_but_unfit[place]
            found = _by_conversation(await self._read(batch, parameters))
        rows = tuple(_inbox_row(records) for records in found[:limit])
        return InboxRows(rows=rows, has_older=len(found) > limit, is_whole=is_whole)

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Place | None = None,
        newer_than: Place | None = None,
        limit: int,
    ) -> MessageRows | None:
        """See `SqlReads.messages`."""
        asked = asked_of(older_than, newer_than)
        batch = self.statements.messages[None if asked is None else asked.is_newer]
        if not (can_be_key(viewer, LIMITS) and can_be_key(conversation_id, LIMITS)):
            return None
        place = None if asked is None else asked.place
        found = await self._read(batch, (viewer, conversation_id, limit + 1, *_bound(place)))
        if not found:
            return None
        is_beyond, is_at = (bool(told) for told in found[0][:2])
        rows = [_message_row(record[2:]) for record in found if record[2] is not None]
        return page_of(rows, limit=limit, asked=asked, is_beyond=is_beyond, is_at=is_at)

    async def relationship(self, viewer: str, target: str) -> RelationshipRows:
        """See `SqlReads.relationship`."""
        batch = self.statements.relationship
        if not (can_be_key(viewer, LIMITS) and can_be_key(target, LIMITS)):
            return relationship_of(())
        found = await self._read(batch, (viewer, target))
        return relationship_of((side, state, version) for side, state, version in found)

    async def version_of(self, entity: Entity, key: tuple[str, ...]) -> int | None:
        """See `SqlReads.version_of`."""
        if len(key) != len(entity.keys):
            raise ValueError(f"{entity.name} has {len(entity.keys)} key parts, got {len(key)}")
        if not all(can_be_key(part, LIMITS) for part in key):
            return None
        found = await self._read(self.statements.version_of(entity), key)
        return int(found[0][0]) if found else None

    async def _read(self, batch: Sql, parameters: Sequence[Parameter]) -> list[Row]:
        async with self._database.session() as session:
            if self._isolation is None:
                has_snapshots = (await read_facts(session)).has_snapshots
                self._isolation = _SNAPSHOT if has_snapshots else _READ_COMMITTED
            try:
                # The level first of all: on Babelfish a variable that is given a value is a query,
                # and no level is set after one.  Last the next user's, who may be a writer.
                whole = Sql(f"{self._isolation}{batch}{_READ_COMMITTED}")
                [rows] = await session.run(whole, parameters, READ_TIMEOUT_S)
            except ServerError:
                # It may have kept the isolation of this batch, which is no writer's.
                session.is_broken = True
                # Somebody may have switched snapshots off: the next read looks again.
                self._isolation = None
                raise
        return rows


class ReadStatements:
    """The batches, each composed once."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering

    @functools.cached_property
    def inbox(self) -> tuple[Sql, Sql]:
        """Give what reads the newest, and what reads behind a place; ConfigError: see the port."""
        return self._inbox("")

    @functools.cached_property
    def inbox_but_unfit(self) -> tuple[Sql, Sql]:
        """Give what reads the same without conversations of which an event was set aside."""
        return self._inbox(composed(_BUT_UNFIT, unfit=self._unfit("c.LastEventVersion", "c")))

    def _inbox(self, but_unfit: str) -> tuple[Sql, Sql]:
        names = {
            **self._messaging_names,
            "but_unfit": but_unfit,
            "unfit_on_page": self._unfit("i._Version", "i"),
        }
        behind = composed(_BEHIND, key=names["key"])
        return (
            composed(_INBOX, **names, place="", behind=""),
            composed(_INBOX, **names, place=_PLACE, behind=behind),
        )

    @functools.cached_property
    def messages(self) -> Mapping[bool | None, Sql]:
        """Give what reads the newest, None, and beside a place, False for older messages."""
        names = {**self._messaging_names, "unfit": self._unfit("c.LastEventVersion", "c")}
        own = names["id"]
        found: dict[bool | None, Sql] = {
            None: composed(
                _MESSAGES, **names, place="", beyond="0", at="0", within="", order="DESC"
            )
        }
        for is_newer, sign, opposite, order in ((False, "<", ">", "DESC"), (True, ">", "<", "ASC")):
            beyond = composed(_BESIDE, m="x", id=own, sign=opposite)
            found[is_newer] = composed(
                _MESSAGES,
                **names,
                place=_PLACE,
                beyond=composed(_ANY, **names, condition=beyond),
                at=composed(_ANY, **names, condition=composed(_AT, m="x", id=own)),
                within=f"\n        AND {composed(_BESIDE, m='m', id=own, sign=sign)}",
                order=order,
            )
        return found

    @functools.cached_property
    def relationship(self) -> Sql:
        """Give what reads the edges between two users; ConfigError: see the port."""
        model = self._rendering.model
        if not has_relationship(model):
            raise ConfigError(NO_RELATIONSHIP)
        follower, followee = _keys(model["FollowEdge"])
        blocker, blocked = _keys(model["UserBlock"])
        return composed(
            _RELATIONSHIP,
            follow=self._rendering.table("FollowEdge"),
            follower=follower,
            followee=followee,
            block=self._rendering.table("UserBlock"),
            blocker=blocker,
            blocked=blocked,
        )

    def version_of(self, entity: Entity) -> Sql:
        """Give what reads the version of one row."""
        keys = _keys(entity)
        return composed(
            _VERSION,
            table=self._rendering.table(entity.name),
            declared=", ".join(f"@Key{n} NVARCHAR(4000) = ?" for n in range(len(keys))),
            key=" AND ".join(f"e.{name} = @Key{n}" for n, name in enumerate(keys)),
        )

    def _unfit(self, version: str, alias: str) -> Sql:
        """Give the query for the mark of a conversation whose version and alias these are."""
        conversation = messaging_of(self._rendering.model).conversation
        mark_id = f"N'{MARK_PREFIX}'"
        if is_named_by_key(conversation):
            [key] = _keys(conversation)
            # Of the column's own type and collation, whatever a server makes of CONCAT.
            mark_id = f"CAST(CONCAT({mark_id}, {alias}.{key}) AS NVARCHAR(400)) COLLATE {COLLATION}"
        marks = self._rendering.own_table("unverified_document")
        return composed(_UNFIT, marks=marks, mark_id=mark_id, version=version)

    @functools.cached_property
    def _messaging_names(self) -> Mapping[str, str]:
        messaging = messaging_of(self._rendering.model)
        there = messaging.optional
        message, participant = messaging.message.name, messaging.participant
        [key] = _keys(messaging.conversation)
        parent, own = _keys(messaging.message)
        return {
            "conversation": self._rendering.table(messaging.conversation.name),
            "participant": self._rendering.table(participant.name),
            "message": self._rendering.table(message),
            "by_user": child_index(participant.name, participant.key.name),
            "latest": latest_index(message),
            "key": key,
            "user": quoted(pascal_case(participant.key.name)),
            "parent": parent,
            "id": own,
            "unread_limit": str(UNREAD_LIMIT),
            "title": "c.Title" if "title" in there else "NULL",
            "preview": "c.LastMessagePreview" if "lastMessagePreview" in there else "NULL",
            "body": "m.Body" if "body" in there else "NULL",
            "edited": "m.EditedAt" if "editedAt" in there else "NULL",
            "attachments": "m.Attachments" if "attachments" in there else "NULL",
        }


def _keys(entity: Entity) -> list[str]:
    return [quoted(pascal_case(key.name)) for key in entity.keys]


def _bound(place: Place | None) -> tuple[str, ...]:
    if place is None:
        return ()
    moment = moment_of(place).replace(tzinfo=None)
    return (moment.isoformat(timespec="microseconds"), id_of(place))


def _by_conversation(found: Sequence[Row]) -> list[Sequence[Row]]:
    return [tuple(records) for _, records in itertools.groupby(found, lambda r: r[0])]


def _inbox_row(records: Sequence[Row]) -> InboxRow:
    """Make a row of the records of one conversation: one each other participant."""
    *columns, _, _, _ = (_value(value) for value in records[0])
    others = [(user, _value(read)) for *_, user, read, _ in records if user is not None]
    return InboxRow(*[*columns, others_of(others)])


def _message_row(record: Row) -> MessageRow:
    return MessageRow(*[_value(value) for value in record])


def _value(value: Any) -> Any:
    """Give moments as microseconds since the Unix epoch."""
    return us_from_datetime(in_utc(value)) if isinstance(value, datetime) else value
