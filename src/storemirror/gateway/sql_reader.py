"""Answers reads from SQL: what the mirror's rows say, as the gateway's parts have it."""

from __future__ import annotations

from storemirror.gateway.plain_json import same_everywhere
from storemirror.gateway.port import (
    ConversationItem,
    ConversationPage,
    Edge,
    MessageItem,
    MessagePage,
    Participant,
    Position,
    Relationship,
)
from storemirror.sql.reads import EdgeRow, InboxRow, MessageRow, Place, SqlReads


class SqlMessagesReader:
    """See `storemirror.gateway.port.MessagesReader`.  `as_of_us` is not known here: None."""

    def __init__(self, reads: SqlReads) -> None:
        """Read through `reads`."""
        self._reads = reads

    async def conversations(
        self, viewer: str, *, older_than: Position | None, limit: int
    ) -> ConversationPage:
        """See `MessagesReader.conversations`."""
        found = await self._reads.inbox(viewer, older_than=_place(older_than), limit=limit)
        return ConversationPage(
            items=tuple(_conversation(row) for row in found.rows),
            has_older=found.has_older,
            as_of_us=None,
        )

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Position | None = None,
        newer_than: Position | None = None,
        limit: int,
    ) -> MessagePage | None:
        """See `MessagesReader.messages`."""
        found = await self._reads.messages(
            viewer,
            conversation_id,
            older_than=_place(older_than),
            newer_than=_place(newer_than),
            limit=limit,
        )
        if found is None:
            return None
        return MessagePage(
            items=tuple(_message(row) for row in found.rows),
            has_older=found.has_older,
            has_newer=found.has_newer,
            as_of_us=None,
        )


class SqlFollowReader:
    """See `storemirror.gateway.port.FollowReader`.  `as_of_us` is not known here: None."""

    def __init__(self, reads: SqlReads) -> None:
        """Read through `reads`."""
        self._reads = reads

    async def relationship(self, viewer: str, target: str) -> Relationship:
        """See `FollowReader.relationship`."""
        found = await self._reads.relationship(viewer, target)
        return Relationship(
            outgoing=_edge(found.outgoing),
            incoming=_edge(found.incoming),
            outgoing_block=_edge(found.outgoing_block),
            incoming_block=_edge(found.incoming_block),
            as_of_us=None,
        )


def _place(position: Position | None) -> Place | None:
    return None if position is None else (position.time_us, position.id)


def _conversation(row: InboxRow) -> ConversationItem:
    return ConversationItem(
        conversation_id=row.conversation_id,
        version=row.version,
        title=row.title,
        created_us=row.created_us,
        last_activity_us=row.last_activity_us,
        last_message_id=row.last_message_id,
        last_message_us=row.last_message_us,
        last_message_preview=row.last_message_preview,
        last_message_version=row.last_message_version,
        unread_count=row.unread_count,
        last_read_us=row.last_read_us,
        others=tuple(
            Participant(user_id=user, last_read_us=last_read_us)
            for user, last_read_us in row.others
        ),
    )


def _message(row: MessageRow) -> MessageItem:
    return MessageItem(
        message_id=row.message_id,
        version=row.version,
        sender_id=row.sender_id,
        body=row.body,
        sent_us=row.sent_us,
        edited_us=row.edited_us,
        attachments=same_everywhere(row.attachments),
    )


def _edge(row: EdgeRow) -> Edge:
    return Edge(exists=row.is_live, version=row.version)
