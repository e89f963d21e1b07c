"""What the mirror's rows say is what the gateway answers, field by field."""

from __future__ import annotations

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
from storemirror.gateway.sql_reader import SqlFollowReader, SqlMessagesReader
from storemirror.model.entity import Entity
from storemirror.sql.reads import (
    EdgeRow,
    InboxRow,
    InboxRows,
    MessageRow,
    MessageRows,
    Place,
    RelationshipRows,
)

CONVERSATION = InboxRow(
    conversation_id="c",
    version=2,
    title="t",
    created_us=3,
    last_activity_us=4,
    last_message_id="m",
    last_message_us=5,
    last_message_preview="p",
    last_message_version=6,
    unread_count=7,
    last_read_us=8,
    others=(("a", 9), ("b", None)),
)
MESSAGE = MessageRow(
    message_id="m",
    version=2,
    sender_id="s",
    body="b",
    sent_us=3,
    edited_us=4,
    attachments='[{"a": 1}]',
)


class Told:
    """Answers each read alike, and keeps what it was asked."""

    def __init__(self, *, is_there: bool = True) -> None:
        self.asked: list[tuple[object, ...]] = []
        self._is_there = is_there

    async def inbox(self, viewer: str, *, older_than: Place | None, limit: int) -> InboxRows:
        self.asked.append((viewer, older_than, limit))
        return InboxRows(rows=(CONVERSATION,), has_older=True)

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Place | None = None,
        newer_than: Place | None = None,
        limit: int,
    ) -> MessageRows | None:
        self.asked.append((viewer, conversation_id, older_than, newer_than, limit))
        if not self._is_there:
            return None
        return MessageRows(rows=(MESSAGE,), has_older=True, has_newer=False)

    async def relationship(self, viewer: str, target: str) -> RelationshipRows:
        self.asked.append((viewer, target))
        return RelationshipRows(
            outgoing=EdgeRow(is_live=True, version=2),
            incoming=EdgeRow(is_live=False, version=3),
            outgoing_block=EdgeRow(is_live=False, version=None),
            incoming_block=EdgeRow(is_live=True, version=4),
        )

    async def version_of(self, entity: Entity, key: tuple[str, ...]) -> int | None:
        raise NotImplementedError


async def test_an_inbox_is_answered_field_by_field() -> None:
    """Every field of the row is one of the item, and the cursor is the place."""
    told = Told()
    reader = SqlMessagesReader(told)
    found = await reader.conversations("me", older_than=Position(time_us=1, id="x"), limit=5)
    assert found == ConversationPage(
        items=(
            ConversationItem(
                conversation_id="c",
                version=2,
                title="t",
                created_us=3,
                last_activity_us=4,
                last_message_id="m",
                last_message_us=5,
                last_message_preview="p",
                last_message_version=6,
                unread_count=7,
                last_read_us=8,
                others=(
                    Participant(user_id="a", last_read_us=9),
                    Participant(user_id="b", last_read_us=None),
                ),
            ),
        ),
        has_older=True,
        as_of_us=None,
    )
    await reader.conversations("me", older_than=None, limit=6)
    assert told.asked == [("me", (1, "x"), 5), ("me", None, 6)]


async def test_a_conversation_is_answered_field_by_field() -> None:
    """In either direction."""
    told = Told()
    reader, place = SqlMessagesReader(told), Position(time_us=1, id="x")
    page = MessagePage(
        items=(
            MessageItem(
                message_id="m",
                version=2,
                sender_id="s",
                body="b",
                sent_us=3,
                edited_us=4,
                attachments=[{"a": 1}],
            ),
        ),
        has_older=True,
        has_newer=False,
        as_of_us=None,
    )
    assert await reader.messages("me", "c", older_than=place, limit=1) == page
    assert await reader.messages("me", "c", newer_than=place, limit=6) == page
    assert told.asked == [("me", "c", (1, "x"), None, 1), ("me", "c", None, (1, "x"), 6)]


async def test_a_conversation_that_is_not_there_is_none() -> None:
    """Nor is it an empty page."""
    assert await SqlMessagesReader(Told(is_there=False)).messages("me", "c", limit=5) is None


async def test_a_relationship_is_answered_side_by_side() -> None:
    """With the versions of rows and tombstones."""
    assert await SqlFollowReader(Told()).relationship("v", "t") == Relationship(
        outgoing=Edge(exists=True, version=2),
        incoming=Edge(exists=False, version=3),
        outgoing_block=Edge(exists=False, version=None),
        incoming_block=Edge(exists=True, version=4),
        as_of_us=None,
    )
