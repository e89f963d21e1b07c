"""
The queries with which documents are read, and so the indexes that they need.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import Value
from storemirror.gateway.port import Position
from storemirror.gateway.social import DirectMessages
from storemirror.source.port import Comparison, Condition, DocumentQuery
from storemirror.sql.reads import UNREAD_LIMIT

#: Most documents that are asked for at once.
PAGE_SIZE: Final = 300
#: The first moment there can be: what is not before it is a time.
_FIRST: Final[Value] = {"timestampValue": "0001-01-01T00:00:00.000000Z"}
#: Firestore keeps these names for itself: no field of a document has one.
_RESERVED_NAME: Final = re.compile(r"__.*__", re.DOTALL)


def conversations_queries(declared: DirectMessages, viewer: str) -> Iterator[DocumentQuery]:
    """
    Give the queries that together find a viewer's conversations, each of them once.

    The declared field may be an array of users, or a map with a user's name for each key; a
    document has one or the other.
    """
    field = declared.participants.field
    contains = Condition(
        field=field, comparison=Comparison.ARRAY_CONTAINS, value={"stringValue": viewer}
    )
    yield DocumentQuery(collection=declared.conversations, conditions=(contains,), limit=PAGE_SIZE)
    if not _RESERVED_NAME.fullmatch(viewer):
        yield DocumentQuery(
            collection=declared.conversations, order_by=(*field, viewer), limit=PAGE_SIZE
        )


def messages_query(
    declared: DirectMessages,
    conversation_id: str,
    *,
    behind: Position | None,
    is_falling: bool,
    limit: int,
) -> DocumentQuery:
    """Give the query for messages in the order of their times, behind a place."""
    field = declared.sent_at.field
    after: tuple[Value, str] | None = None
    if behind is not None:
        after = ({"timestampValue": rfc3339_from_us(behind.time_us)}, behind.id)
    return DocumentQuery(
        collection=declared.messages_of(conversation_id),
        # Else values of other types, which the mirror refuses, would stand before the times.
        conditions=(_is_time(field),),
        order_by=field,
        is_falling=is_falling,
        after=after,
        limit=limit,
    )


def unread_query(
    declared: DirectMessages, conversation_id: str, viewer: str, *, last_read_us: int | None
) -> DocumentQuery:
    """Give the query that counts what others sent after the viewer's last look."""
    later = _is_time(declared.sent_at.field)
    if last_read_us is not None:
        read_at: Value = {"timestampValue": rfc3339_from_us(last_read_us)}
        later = Condition(field=later.field, comparison=Comparison.GREATER, value=read_at)
    others = Condition(
        field=declared.sender.field,
        comparison=Comparison.NOT_EQUAL,
        value={"stringValue": viewer},
    )
    return DocumentQuery(
        collection=declared.messages_of(conversation_id),
        # The time first: by it the index leaves out what has been read.
        conditions=(later, others),
        limit=UNREAD_LIMIT,
    )


def all_queries(declared: DirectMessages) -> Iterator[DocumentQuery]:
    """Give a query of every kind, for the indexes that they need."""
    yield from conversations_queries(declared, "viewer")
    for is_falling in (True, False):
        yield messages_query(
            declared, "conversation", behind=None, is_falling=is_falling, limit=PAGE_SIZE
        )
    yield unread_query(declared, "conversation", "viewer", last_read_us=None)


def _is_time(field: tuple[str, ...]) -> Condition:
    return Condition(field=field, comparison=Comparison.GREATER_OR_EQUAL, value=_FIRST)
