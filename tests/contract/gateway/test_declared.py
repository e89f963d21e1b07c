"""Readers go by the declaration: another app has other paths and fields for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from storemirror.gateway.port import ConversationItem, MessageItem, Participant
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import Side, delete, write

ME, YOU = "me", "you"

DECLARED: Final = """
[[entity]]
name     = "DmConversation"
check    = "conversations"
path     = "rooms/{conversationId}"
category = "dmSqlMirror"
[entity.columns]
title     = { type = "string", field = "about.name" }
createdAt = { type = "timestamp", required = true, field = "meta.since" }
[[entity.children]]
name = "DmParticipant"
key  = "userId"
from = "people.members"
[entity.children.columns]
lastReadAt = { type = "timestamp", from_map = "people.seen" }
[entity.derived]
lastActivityAt = { first_of = ["lastMessageAt", "createdAt"] }

[[entity]]
name     = "DmMessage"
check    = "messages"
path     = "rooms/{conversationId}/lines/{messageId}"
category = "dmSqlMirror"
audit    = true
[entity.columns]
senderId    = { type = "string", required = true, field = "from.id" }
body        = { type = "text", field = "text" }
sentAt      = { type = "timestamp", required = true, field = "meta.at" }
editedAt    = { type = "timestamp", field = "meta.edited" }
attachments = { type = "json", field = "files" }
[entity.rollup]
into   = "DmConversation"
count  = "messageCount"
[entity.rollup.latest]
by  = "sentAt"
set = { lastMessageId = "messageId", lastMessageAt = "sentAt", lastMessagePreview = "body:5" }

[[entity]]
name     = "FollowEdge"
check    = "follow"
path     = "graph/{followerId}/to/{followeeId}"
category = "followSqlMirror"
[entity.columns]
createdAt = { type = "timestamp" }

[[entity]]
name     = "UserBlock"
check    = "blocks"
path     = "walls/{blockerId}/against/{blockedId}"
category = "followSqlMirror"
[entity.columns]
createdAt = { type = "timestamp" }
"""
ROOM: Final = "rooms/r1"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """The social entities as another app has them."""
    file = tmp_path / "app.toml"
    file.write_text(DECLARED, encoding="utf-8")
    return load_model([file], with_builtin=False)


async def send(side: Side, message_id: str, second: int, **more: object) -> int:
    fields = {"from": {"id": YOU}, "text": "hello there", "meta": {"at": at(second)}, **more}
    return await write(side, f"{ROOM}/lines/{message_id}", **fields)


async def open_room(side: Side) -> int:
    return await write(
        side,
        ROOM,
        about={"name": "Lunch"},
        meta={"since": at(0)},
        people={"members": [YOU, ME], "seen": {ME: at(1)}},
        # What the built-in declaration would read.
        participantIds=["nobody"],
        createdAt=at(50),
        title="wrong",
    )


async def test_an_inbox_goes_by_the_declaration(side: Side) -> None:
    """Paths, fields in maps, and how much of a body is shown."""
    version = await open_room(side)
    await send(side, "l1", 1)
    last_version = await send(side, "l2", 2)
    await send(side, "wrong", 0, sentAt=at(99), senderId=ME)
    page = await side.messages.conversations(ME, older_than=None, limit=5)
    assert page.items == (
        ConversationItem(
            conversation_id="r1",
            version=version,
            title="Lunch",
            created_us=us(0),
            last_activity_us=us(2),
            last_message_id="l2",
            last_message_us=us(2),
            last_message_preview="hello",
            last_message_version=last_version,
            unread_count=1,
            last_read_us=us(1),
            others=(Participant(user_id=YOU, last_read_us=None),),
        ),
    )


async def test_messages_go_by_the_declaration(side: Side) -> None:
    """The order is by the declared field."""
    await open_room(side)
    version = await send(
        side, "l1", 1, meta={"at": at(1), "edited": at(3)}, files={"a": [1]}, sentAt=at(9)
    )
    await send(side, "l2", 2, sentAt=at(8))
    page = await side.messages.messages(ME, "r1", limit=5)
    assert page is not None
    assert [item.message_id for item in page.items] == ["l2", "l1"]
    assert page.items[1] == MessageItem(
        message_id="l1",
        version=version,
        sender_id=YOU,
        body="hello there",
        sent_us=us(1),
        edited_us=us(3),
        attachments={"a": [1]},
    )


async def test_a_relationship_goes_by_the_declaration(side: Side) -> None:
    """Who does it stands first in the path, to whom second."""
    await write(side, f"graph/{ME}/to/{YOU}", createdAt=at(1))
    await write(side, f"walls/{YOU}/against/{ME}", createdAt=at(1))
    await write(side, f"users/{YOU}/following/{ME}", createdAt=at(1))
    found = await side.follow.relationship(ME, YOU)
    assert (found.outgoing.exists, found.incoming.exists) == (True, False)
    assert (found.outgoing_block.exists, found.incoming_block.exists) == (False, True)
    await delete(side, f"graph/{ME}/to/{YOU}")
    assert not (await side.follow.relationship(ME, YOU)).outgoing.exists
