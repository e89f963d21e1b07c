"""
What the gateway's parts say to each other: who calls, what is read, and from where.

Pure values and protocols.  Times are microseconds since the Unix epoch, UTC.  What a page has many
of is a msgspec struct: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from storemirror.event.change import Outcome


class Served(enum.StrEnum):
    """Which side answered a read; every answer names it as `source`."""

    SQL = "sql"
    FIRESTORE = "firestore"


class ReadMode(enum.StrEnum):
    """Where a caller's reads are served from."""

    FIRESTORE = "firestore"
    #: Firestore serves; SQL is compared with it in the background.
    SHADOW = "shadow"
    #: SQL serves; Firestore where SQL fails, is slow, or lags too far behind.
    SQL = "sql"
    #: SQL alone: an error is an error.
    SQL_ONLY = "sql-only"


class Feature(enum.StrEnum):
    """What is switched on and off by itself."""

    MESSAGING = "messaging"
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as far as a verified token says."""

    #: Firebase uid of a user; e-mail address of a service account.
    uid: str
    #: Whether it is an allow-listed service account, which alone may name a `viewer`.
    is_service: bool = False
    #: Verified claims of a user's token, for cohorts; nothing that a client can make up.
    claims: Mapping[str, object] = field(default_factory=dict)
    #: App Check's app id; None where App Check is off.
    app_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """What is switched on for one caller."""

    read_mode: ReadMode
    #: Whether writes go into SQL in the call itself; else the event path brings them.
    is_dual_write_on: bool


class CohortFlags(Protocol):
    """Tells what is switched on for whom."""

    async def cohort_of(self, caller: Caller, feature: Feature) -> Cohort:
        """
        Give the caller's cohort.

        Never fails: flags that are broken or missing mean Firestore only.
        """
        ...


class Position(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A place in a list that is ordered by time, then by document id; both falling."""

    time_us: int
    id: str


class Participant(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in a conversation."""

    user_id: str
    #: None: never marked anything as read.
    last_read_us: int | None


class ConversationItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an inbox."""

    conversation_id: str
    #: Version of the conversation's own document.
    version: int
    title: str | None
    created_us: int
    #: Time of the last message, else of the creation: the inbox is ordered by it.
    last_activity_us: int
    last_message_id: str | None
    last_message_us: int | None
    #: The first 140 code points of the last message's body.
    last_message_preview: str | None
    #: Version of the last message's document; None without one.
    last_message_version: int | None
    #: Messages of others, sent after the viewer's `last_read_us`; at most 100, which means "99+".
    unread_count: int
    #: When the viewer last marked it as read; None: never.
    last_read_us: int | None
    #: Everybody but the viewer, by rising user id.
    others: tuple[Participant, ...]

    @property
    def position(self) -> Position:
        """Give the place in the inbox."""
        return Position(time_us=self.last_activity_us, id=self.conversation_id)


class MessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """One message."""

    message_id: str
    version: int
    sender_id: str
    body: str | None
    sent_us: int
    edited_us: int | None
    #: Plain JSON, as the declared column keeps it; None where there is none.
    attachments: object

    @property
    def position(self) -> Position:
        """Give the place in the conversation."""
        return Position(time_us=self.sent_us, id=self.message_id)


class ConversationPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of an inbox, newest activity first."""

    items: tuple[ConversationItem, ...]
    #: Whether there are more behind the last item.
    has_older: bool
    #: The answer shows every commit up to here, as far as the source knows; None: it does not.
    as_of_us: int | None
    #: Whether the source left out no conversation of which it cannot tell who takes part by now.
    is_whole: bool = True


class MessagePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a conversation, newest message first, whichever way it was asked for."""

    items: tuple[MessageItem, ...]
    #: Whether there are messages behind the last item.
    has_older: bool
    #: Whether there are messages before the first item.
    has_newer: bool
    #: See `ConversationPage.as_of_us`.
    as_of_us: int | None


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """A follow or a block, from one user to another."""

    exists: bool
    #: Version of its document, or of the tombstone where the source keeps one; else None.
    version: int | None


class Relationship(msgspec.Struct, frozen=True, kw_only=True):
    """How two users stand to each other."""

    #: The viewer follows the target.
    outgoing: Edge
    #: The target follows the viewer.
    incoming: Edge
    #: The viewer blocked the target.
    outgoing_block: Edge
    #: The target blocked the viewer.
    incoming_block: Edge
    #: See `ConversationPage.as_of_us`.
    as_of_us: int | None


class MessagesReader(Protocol):
    """Reads direct messages.  One adapter a source; both give equal answers."""

    async def conversations(
        self, viewer: str, *, older_than: Position | None, limit: int
    ) -> ConversationPage:
        """
        Read a page of the viewer's inbox.

        Args:
            viewer: whose inbox; only conversations in which the viewer takes part.
            older_than: behind this place; None: from the newest on.
            limit: most items, at least 1.

        Raises:
            SqlUnavailable, SourceUnavailable: the source did not answer.
        """
        ...

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Position | None = None,
        newer_than: Position | None = None,
        limit: int,
    ) -> MessagePage | None:
        """
        Read a page of one conversation.

        Args:
            viewer: who reads.
            conversation_id: which one.
            older_than: the newest messages behind this place; None: from the newest on.
            newer_than: the oldest messages before this place; not with `older_than`.
            limit: most items, at least 1.

        Returns:
            None: there is no such conversation, or the viewer takes no part in it.

        Raises:
            SqlUnavailable, SourceUnavailable: the source did not answer.
        """
        ...


class FollowReader(Protocol):
    """Reads the follow graph and blocks.  One adapter a source; both give equal answers."""

    async def relationship(self, viewer: str, target: str) -> Relationship:
        """
        Tell how two users stand to each other.

        Raises:
            SqlUnavailable, SourceUnavailable: the source did not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteToken:
    """What a read must show to show a write."""

    path: str
    #: Version that the write gave the document; odd: it was deleted.
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """What came of bringing a write into SQL within the call."""

    #: Whether SQL shows this write, or a newer one.
    is_mirrored: bool
    #: None: nothing was applied: SQL did not take it in time, or does not know the document yet,
    #: and the event path brings it; or there was nothing to take away.
    outcome: Outcome | None
