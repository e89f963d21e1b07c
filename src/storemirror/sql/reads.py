"""
What the gateway needs of a SQL database: reads for an app's users.

Nothing above `sql/` knows which dialect runs; what applies events is in `port.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from storemirror.model.entity import Entity

#: Time in microseconds since the Unix epoch, and document id: a place in a list that is ordered by
#: both.  Ids are compared as the database compares them, which matters within a microsecond alone.
Place = tuple[int, str]

#: Where counting unread messages ends.
UNREAD_LIMIT: Final = 100
#: Longest that a read may take: whoever asked has gone elsewhere long before.
READ_TIMEOUT_S: Final = 10.0
#: What is wrong with a model that has no follow graph.
NO_RELATIONSHIP: Final = (
    "the gateway reads FollowEdge and UserBlock, each with two key parts, and the declarations "
    "lack them"
)


class InboxRow(msgspec.Struct, frozen=True, gc=False):
    """
    One conversation of a user's inbox.  Times are microseconds since the Unix epoch.

    Fields are in the order in which both dialects read them.
    """

    conversation_id: str
    #: Version of the conversation's own document.
    version: int
    title: str | None
    created_us: int
    #: Time of the last message, else of the creation.
    last_activity_us: int
    last_message_id: str | None
    last_message_us: int | None
    last_message_preview: str | None
    #: None without a last message.
    last_message_version: int | None
    #: Messages of others after the user's own `last_read_us`, counted up to `UNREAD_LIMIT`.
    unread_count: int
    last_read_us: int | None
    #: Everybody else, by the UTF-8 bytes of their ids: user id, and when they last read.
    others: tuple[tuple[str, int | None], ...]


class MessageRow(msgspec.Struct, frozen=True):
    """One live message; see `InboxRow`."""

    message_id: str
    version: int
    sender_id: str
    body: str | None
    sent_us: int
    edited_us: int | None
    #: JSON, as the database writes it.
    attachments: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRows:
    """A page of an inbox, newest activity first."""

    rows: Sequence[InboxRow]
    #: Whether there are more behind the last row.
    has_older: bool
    #: Whether no conversation was left out that would be on the page: see `SqlReads.inbox`.
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRows:
    """A page of a conversation, newest message first."""

    rows: Sequence[MessageRow]
    #: Whether there are messages behind the last row, else behind the place that was asked for.
    has_older: bool
    #: Whether there are messages before the first row, else before the place that was asked for.
    has_newer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRow:
    """A follow or a block, as the mirror has it."""

    is_live: bool
    #: Of the live row or the tombstone; None without either.
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationshipRows:
    """How two users stand to each other, each side with its version."""

    outgoing: EdgeRow
    incoming: EdgeRow
    outgoing_block: EdgeRow
    incoming_block: EdgeRow


class SqlReads(Protocol):
    """
    Reads for an app's users: indexed queries, each over one snapshot.

    What cannot be the key of a row (empty, too long, with U+0000) is not there; it is no error.
    Every method raises SqlUnavailable when the database does not answer, and ConfigError when the
    entities are not declared as they are read (`storemirror.model.social`).
    """

    async def inbox(self, viewer: str, *, older_than: Place | None, limit: int) -> InboxRows:
        """
        Read a page of a user's inbox: live conversations in which the user takes part.

        Left out is what of its document a newer event was set aside, for the row does not say who
        takes part by now (`storemirror.sql.unfit`).

        Args:
            viewer: whose inbox.
            older_than: last activity and conversation id; what is read lies behind.  None: from
                the newest on.
            limit: most rows, at least 1.
        """
        ...

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Place | None = None,
        newer_than: Place | None = None,
        limit: int,
    ) -> MessageRows | None:
        """
        Read a page of one conversation.

        Args:
            viewer: who reads.
            conversation_id: which one.
            older_than: sent and message id; the newest messages behind it.  None: from the newest
                on.
            newer_than: the oldest messages before it; not with `older_than`.
            limit: most rows, at least 1.

        Returns:
            None: there is no such live conversation, or the viewer takes no part in it, or nobody
            can tell from here, since a newer event of its document was set aside.
        """
        ...

    async def relationship(self, viewer: str, target: str) -> RelationshipRows:
        """Tell how two users stand to each other, and by which versions."""
        ...

    async def version_of(self, entity: Entity, key: tuple[str, ...]) -> int | None:
        """
        Give the version of a live row or a tombstone; None without either.

        Raises:
            ValueError: the key has not one part for each parameter.
        """
        ...
