"""Answers reads from SQL: what the mirror's rows say, as the gateway's parts have it."""

from __future__ import annotations

from collections.abc import Sequence

from storemirror.gateway.page_budget import PageBudget
from storemirror.gateway.plain_json import plain_json
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
            is_whole=found.is_whole,
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
        is_newer = newer_than is not None
        budget = PageBudget(limit)
        items: list[MessageItem] = []
        has_back: bool | None = None
        while True:
            found = await self._reads.messages(
                viewer,
                conversation_id,
                older_than=_place(older_than),
                newer_than=_place(newer_than),
                limit=budget.next_count,
            )
            if found is None:
                return None
            has_further = found.has_newer if is_newer else found.has_older
            if has_back is None:
                has_back = found.has_older if is_newer else found.has_newer
            for row in reversed(found.rows) if is_newer else found.rows:
                item = _message(row)
                if not budget.takes(item):
                    return _page(items, is_newer=is_newer, has_further=True, has_back=has_back)
                items.append(item)
            if budget.is_full or not has_further:
                return _page(items, is_newer=is_newer, has_further=has_further, has_back=has_back)
            if is_newer:
                newer_than = items[-1].position
            else:
                older_than = items[-1].position


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


def _page(
    items: Sequence[MessageItem], *, is_newer: bool, has_further: bool, has_back: bool
) -> MessagePage:
    """Make a page of messages as they lie from the asked place on."""
    return MessagePage(
        items=tuple(reversed(items) if is_newer else items),
        has_older=has_back if is_newer else has_further,
        has_newer=has_further if is_newer else has_back,
        as_of_us=None,
    )


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
        attachments=None if row.attachments is None else plain_json(row.attachments),
    )


def _edge(row: EdgeRow) -> Edge:
    return Edge(exists=row.is_live, version=row.version)
