"""
Reads for an app's users from PostgreSQL: one statement each, by index.

The plans are settled by the connection's settings, not by what the tables held when they were
made: a plan that was made for empty tables would scan full ones.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final, LiteralString

from storemirror.errors import ConfigError
from storemirror.model.entity import Entity
from storemirror.model.social import messaging_of
from storemirror.sql.names import has_relationship, snake_case
from storemirror.sql.pages import (
    asked_of,
    can_be_key,
    id_of,
    moment_of,
    others_of,
    page_of,
    relationship_of,
)
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.types import LIMITS
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
from storemirror.sql.unfit import MARK_PREFIX, is_named_by_key

#: Reads walk from a user's own rows by index; whatever the planner thinks the tables hold, nothing
#: else is quick once they are large.  A sort that is off is still used where no index has the
#: order.  UTC: in any other zone Python cannot hold the first and last moments there are.
_SESSION: Final = {
    **dict.fromkeys(
        (
            *("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"),
            *("enable_sort", "enable_incremental_sort", "jit"),
        ),
        "off",
    ),
    "plan_cache_mode": "force_generic_plan",
    "TimeZone": "UTC",
    "default_transaction_read_only": "on",
    "statement_timeout": str(round(READ_TIMEOUT_S * 1_000)),
}

#: Names of ours begin with an underscore, as no declared key does.  Moments are read as
#: microseconds, exactly from PostgreSQL 14 on: as Python's own they cost twice as much.  The last
#: message is found by its place, in the index that is counted in next; without LIMIT it would be
#: joined, and by a plan that was made on empty tables by reading all of that index.
_INBOX: Final = sql.SQL("""
SELECT i.{key}, i._version, i._title, {created_us}, {last_activity_us}, i.last_message_id,
    {last_message_us}, i._preview, l.last_event_version, u.unread_count, {last_read_us}, o.user_ids,
    o.last_reads, EXISTS ({unfit_on_page})
FROM (
    SELECT c.{key}, c.last_event_version AS _version, c.created_at, c.last_activity_at,
        c.last_message_id, c.last_message_at, {title} AS _title, {preview} AS _preview,
        p.last_read_at
    FROM {participant} AS p
    JOIN {conversation} AS c ON c.{key} = p.{key}
    WHERE p.{user} = %(viewer)s AND c.row_state = 'live'{behind}{but_unfit}
    ORDER BY c.last_activity_at DESC, c.{key} DESC
    LIMIT %(count)s
) AS i
LEFT JOIN LATERAL (
    SELECT m.last_event_version FROM {message} AS m
    WHERE m.{parent} = i.{key} AND m.row_state = 'live' AND m.sent_at = i.last_message_at
        AND m.{id} = i.last_message_id
    LIMIT 1
) AS l ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS unread_count FROM (
        SELECT 1 FROM {message} AS m
        WHERE m.{parent} = i.{key} AND m.row_state = 'live'
            AND m.sent_at > COALESCE(i.last_read_at, '-infinity') AND m.sender_id <> %(viewer)s
        ORDER BY m.sent_at DESC, m.{id} DESC
        LIMIT {unread_limit}
    ) AS n
) AS u
CROSS JOIN LATERAL (
    SELECT array_agg(p.{user}) AS user_ids, array_agg({read_us}) AS last_reads
    FROM {participant} AS p
    WHERE p.{key} = i.{key} AND p.{user} <> %(viewer)s
) AS o
ORDER BY i.last_activity_at DESC, i.{key} DESC
""")
_BEHIND: Final = sql.SQL("\n        AND (c.last_activity_at, c.{key}) < (%(at)s, %(id)s)")
#: Whether a newer event of the conversation's document was set aside: see `storemirror.sql.unfit`.
#: Without OFFSET it would become a join, and the mark be looked for once a message.
_UNFIT: Final = sql.SQL("""
        SELECT 1 FROM {marks} AS f
        WHERE f.message_id = {mark_id} AND (f.version IS NULL OR f.version > {version})
        OFFSET 0
    """)
_BUT_UNFIT: Final = sql.SQL("\n        AND NOT EXISTS ({unfit})")

_MESSAGES: Final = sql.SQL("""
SELECT {beyond}, {at}, m.{id}, m.last_event_version, m.sender_id, m._body, {sent_us}, {edited_us},
    m._attachments
FROM {conversation} AS c
JOIN {participant} AS p ON p.{key} = c.{key} AND p.{user} = %(viewer)s
LEFT JOIN LATERAL (
    SELECT d.{id}, d.last_event_version, d.sender_id, {body} AS _body, d.sent_at,
        {edited} AS _edited_at, {attachments} AS _attachments
    FROM {message} AS d
    WHERE d.{parent} = c.{key} AND d.row_state = 'live'{within}
    ORDER BY d.sent_at {order}, d.{id} {order}
    LIMIT %(count)s
) AS m ON true
WHERE c.{key} = %(conversation)s AND c.row_state = 'live' AND NOT EXISTS ({unfit})
ORDER BY m.sent_at {order}, m.{id} {order}
""")
_WITHIN: Final = sql.SQL("\n        AND (d.sent_at, d.{id}) {sign} (%(at)s, %(id)s)")
_ANY: Final = sql.SQL("""EXISTS (
    SELECT 1 FROM {message} AS x
    WHERE x.{parent} = %(conversation)s AND x.row_state = 'live'
        AND (x.sent_at, x.{id}) {sign} (%(at)s, %(id)s)
)""")

_RELATIONSHIP: Final = sql.SQL("""
SELECT 0, row_state, last_event_version FROM {follow}
WHERE {follower} = %(viewer)s AND {followee} = %(target)s AND row_state <> 'stub'
UNION ALL
SELECT 1, row_state, last_event_version FROM {follow}
WHERE {follower} = %(target)s AND {followee} = %(viewer)s AND row_state <> 'stub'
UNION ALL
SELECT 2, row_state, last_event_version FROM {block}
WHERE {blocker} = %(viewer)s AND {blocked} = %(target)s AND row_state <> 'stub'
UNION ALL
SELECT 3, row_state, last_event_version FROM {block}
WHERE {blocker} = %(target)s AND {blocked} = %(viewer)s AND row_state <> 'stub'
""")
_VERSION: Final = sql.SQL(
    "SELECT last_event_version FROM {table} WHERE {key} AND row_state <> 'stub'"
)
_NOTHING: Final = sql.SQL("")


def reading_database(dsn: str, *, max_size: int = 8) -> Database:
    """
    Name a database to read from, over connections of its own: no read waits for a writer's.

    Raises:
        ConfigError: the DSN is none; the message does not repeat it.
    """
    return Database(
        dsn, MIRROR, max_size=max_size, application_name="storemirror reads", session=_SESSION
    )


class PostgresReads:
    """See `storemirror.sql.reads.SqlReads`."""

    def __init__(self, database: Database, rendering: Rendering) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: as `reading_database` gives it, opened.
            rendering: which tables.
        """
        self._database = database
        self.statements = ReadStatements(rendering)

    async def inbox(self, viewer: str, *, older_than: Place | None, limit: int) -> InboxRows:
        """See `SqlReads.inbox`."""
        place = 0 if older_than is None else 1
        statement = self.statements.inbox[place]
        if not can_be_key(viewer, LIMITS):
            return InboxRows(rows=(), has_older=False)
        parameters: dict[str, object] = {"viewer": viewer, "count": limit + 1}
        if older_than is not None:
            parameters |= _bound(older_than)
        found = await self._database.fetch_prepared(statement, parameters)
        is_whole = not any(is_unfit for *_, is_unfit in found[:limit])
        if not is_whole:
            statement = self.statements.inbox_but_unfit[place]
            found = await self._database.fetch_prepared(statement, parameters)
        rows = tuple(
            InboxRow(*[*columns, others_of(zip(users or (), reads or (), strict=True))])
            for *columns, users, reads, _ in found[:limit]
        )
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
        statement = self.statements.messages[None if asked is None else asked.is_newer]
        if not (can_be_key(viewer, LIMITS) and can_be_key(conversation_id, LIMITS)):
            return None
        parameters: dict[str, object] = {
            "viewer": viewer,
            "conversation": conversation_id,
            "count": limit + 1,
        }
        if asked is not None:
            parameters |= _bound(asked.place)
        found = await self._database.fetch_prepared(statement, parameters)
        if not found:
            return None
        is_beyond, is_at = found[0][:2]
        rows = [MessageRow(*record[2:]) for record in found if record[2] is not None]
        return page_of(rows, limit=limit, asked=asked, is_beyond=is_beyond, is_at=is_at)

    async def relationship(self, viewer: str, target: str) -> RelationshipRows:
        """See `SqlReads.relationship`."""
        statement = self.statements.relationship
        if not (can_be_key(viewer, LIMITS) and can_be_key(target, LIMITS)):
            return relationship_of(())
        names = {"viewer": viewer, "target": target}
        return relationship_of(await self._database.fetch_prepared(statement, names))

    async def version_of(self, entity: Entity, key: tuple[str, ...]) -> int | None:
        """See `SqlReads.version_of`."""
        if len(key) != len(entity.keys):
            raise ValueError(f"{entity.name} has {len(entity.keys)} key parts, got {len(key)}")
        names = {f"k{place}": part for place, part in enumerate(key)}
        if not all(can_be_key(part, LIMITS) for part in key):
            return None
        found = await self._database.fetch_prepared(self.statements.version_of(entity), names)
        return found[0][0] if found else None


class ReadStatements:
    """The statements, each composed once."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._versions: dict[str, bytes] = {}

    @functools.cached_property
    def inbox(self) -> tuple[bytes, bytes]:
        """Give what reads the newest, and what reads behind a place; ConfigError: see the port."""
        return self._inbox(_NOTHING)

    @functools.cached_property
    def inbox_but_unfit(self) -> tuple[bytes, bytes]:
        """Give what reads the same without conversations of which an event was set aside."""
        return self._inbox(_BUT_UNFIT.format(unfit=self._unfit("c.last_event_version", "c")))

    def _inbox(self, but_unfit: sql.Composable) -> tuple[bytes, bytes]:
        names = {
            **self._messaging_names,
            "but_unfit": but_unfit,
            "unfit_on_page": self._unfit("i._version", "i"),
        }
        behind = _BEHIND.format(key=names["key"])
        return (
            _INBOX.format(**names, behind=_NOTHING).as_bytes(),
            _INBOX.format(**names, behind=behind).as_bytes(),
        )

    @functools.cached_property
    def messages(self) -> Mapping[bool | None, bytes]:
        """Give what reads the newest, None, and beside a place, False for older messages."""
        names = {**self._messaging_names, "unfit": self._unfit("c.last_event_version", "c")}
        no = sql.SQL("false")
        newest = _MESSAGES.format(**names, within=_NOTHING, beyond=no, at=no, order=sql.SQL("DESC"))
        found: dict[bool | None, bytes] = {None: newest.as_bytes()}
        for is_newer, sign, opposite, order in ((False, "<", ">", "DESC"), (True, ">", "<", "ASC")):
            found[is_newer] = _MESSAGES.format(
                **names,
                within=_WITHIN.format(id=names["id"], sign=sql.SQL(sign)),
                beyond=_ANY.format(**names, sign=sql.SQL(opposite)),
                at=_ANY.format(**names, sign=sql.SQL("=")),
                order=sql.SQL(order),
            ).as_bytes()
        return found

    @functools.cached_property
    def relationship(self) -> bytes:
        """Give what reads the edges between two users; ConfigError: see the port."""
        model = self._rendering.model
        if not has_relationship(model):
            raise ConfigError(NO_RELATIONSHIP)
        follow, block = model["FollowEdge"], model["UserBlock"]
        follower, followee = _keys(follow)
        blocker, blocked = _keys(block)
        return _RELATIONSHIP.format(
            follow=self._table(follow.name),
            follower=follower,
            followee=followee,
            block=self._table(block.name),
            blocker=blocker,
            blocked=blocked,
        ).as_bytes()

    def version_of(self, entity: Entity) -> bytes:
        """Give what reads the version of one row."""
        if entity.name not in self._versions:
            conditions = [
                sql.SQL("{} = {}").format(name, sql.Placeholder(f"k{place}"))
                for place, name in enumerate(_keys(entity))
            ]
            self._versions[entity.name] = _VERSION.format(
                table=self._table(entity.name), key=sql.SQL(" AND ").join(conditions)
            ).as_bytes()
        return self._versions[entity.name]

    @functools.cached_property
    def _messaging_names(self) -> Mapping[str, sql.Composable]:
        messaging = messaging_of(self._rendering.model)
        [key] = _keys(messaging.conversation)
        parent, own = _keys(messaging.message)
        there = messaging.optional
        return {
            "conversation": self._table(messaging.conversation.name),
            "participant": self._table(messaging.participant.name),
            "message": self._table(messaging.message.name),
            "key": key,
            "user": sql.Identifier(snake_case(messaging.participant.key.name)),
            "parent": parent,
            "id": own,
            "unread_limit": sql.Literal(UNREAD_LIMIT),
            "created_us": _us("i.created_at"),
            "last_activity_us": _us("i.last_activity_at"),
            "last_message_us": _us("i.last_message_at"),
            "last_read_us": _us("i.last_read_at"),
            "read_us": _us("p.last_read_at"),
            "sent_us": _us("m.sent_at"),
            "edited_us": _us("m._edited_at"),
            "title": _optional("c.title", "text", is_there="title" in there),
            "preview": _optional(
                "c.last_message_preview", "text", is_there="lastMessagePreview" in there
            ),
            "body": _optional("d.body", "text", is_there="body" in there),
            "edited": _optional("d.edited_at", "timestamptz", is_there="editedAt" in there),
            "attachments": _optional(
                "d.attachments::text", "text", is_there="attachments" in there
            ),
        }

    def _unfit(self, version: LiteralString, alias: LiteralString) -> sql.Composable:
        """Give the query for the mark of a conversation whose version and alias these are."""
        conversation = messaging_of(self._rendering.model).conversation
        mark_id: sql.Composable = sql.Literal(MARK_PREFIX)
        if is_named_by_key(conversation):
            [key] = _keys(conversation)
            mark_id = sql.SQL("{} || {}.{}").format(mark_id, sql.SQL(alias), key)
        return _UNFIT.format(
            marks=sql.Identifier(self._rendering.schema_name, "unverified_document"),
            mark_id=mark_id,
            version=sql.SQL(version),
        )

    def _table(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._rendering.schema_name, snake_case(name))


def _keys(entity: Entity) -> list[sql.Identifier]:
    return [sql.Identifier(snake_case(key.name)) for key in entity.keys]


def _optional(column: LiteralString, kind: LiteralString, *, is_there: bool) -> sql.Composable:
    """Give a column that a declaration may leave out."""
    return sql.SQL(column) if is_there else sql.SQL("NULL::{}").format(sql.SQL(kind))


def _us(moment: LiteralString) -> sql.Composed:
    """Give a moment in microseconds since the Unix epoch."""
    return sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint").format(sql.SQL(moment))


def _bound(place: Place) -> dict[str, object]:
    return {"at": moment_of(place), "id": id_of(place)}
