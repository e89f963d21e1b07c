"""Users read what an app has declared in its own way: other paths, fewer columns, SQL's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.errors import ConfigError, DatabaseRefused, SqlUnavailable
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.sql.reads import EdgeRow, InboxRow, MessageRow, MessageRows
from tests.contract.sql.side_door import Installed, Server
from tests.support.events import written

#: Nothing that may be left out, and keys by names that statements have themselves.
SPARE = """
[[entity]]
name     = "DmConversation"
check    = "conversations"
path     = "chats/{version}"
category = "dmSqlMirror"
[entity.columns]
createdAt = { type = "timestamp", required = true, field = "made.at" }
[[entity.children]]
name = "DmParticipant"
key  = "user"
from = "members"
[entity.children.columns]
lastReadAt = { type = "timestamp", from_map = "marks" }
[entity.derived]
lastActivityAt = { first_of = ["lastMessageAt", "createdAt"] }

[[entity]]
name     = "DmMessage"
check    = "messages"
path     = "chats/{version}/lines/{count}"
category = "dmSqlMirror"
[entity.columns]
senderId = { type = "string", required = true, field = "by" }
sentAt   = { type = "timestamp", required = true, field = "at" }
[entity.rollup]
into   = "DmConversation"
latest = { by = "sentAt", set = { lastMessageId = "count", lastMessageAt = "sentAt" } }

[[entity]]
name     = "FollowEdge"
check    = "follow"
path     = "people/{order}/follows/{group}"
category = "followSqlMirror"

[[entity]]
name     = "UserBlock"
check    = "blocks"
path     = "people/{key}/blocks/{select}"
category = "followSqlMirror"
"""
ALONE = """
[[entity]]
name     = "Thing"
check    = "things"
path     = "things/{thingId}"
category = "sqlMirror"
"""


def declared(folder: Path, text: str) -> Model:
    """Load a declaration without the built-in ones."""
    file = folder / "own.toml"
    file.write_text(text)
    return load_model([file], with_builtin=False)


@pytest.fixture
async def spare(server: Server, tmp_path: Path) -> Installed:
    """A mirror of such documents."""
    return await server.installed(declared(tmp_path, SPARE))


async def test_messages_are_read_by_the_app_s_own_declaration(
    spare: Installed, base_us: int
) -> None:
    """Columns that are not declared have no value; keys are called as they like."""
    model = spare.model
    member = {"me": None}
    chat = written(model, "DmConversation", ("c",), base_us, participants=None, createdAt=base_us)
    assert chat.row is not None
    rows = [{"user": user, "lastReadAt": mark} for user, mark in member.items()]
    chat = type(chat)(
        entity=chat.entity,
        change=chat.change,
        key=chat.key,
        row=type(chat.row)(
            columns=chat.row.columns,
            children={"DmParticipant": rows},
            raw=None,
            lossy_fields=(),
        ),
    )
    line = written(model, "DmMessage", ("c", "m"), base_us + 1, senderId="you", sentAt=base_us + 1)
    await spare.mirror.apply([chat, line])
    place = (base_us + 2, "z")
    for older_than in (None, place):
        inbox = await spare.reads.inbox("me", older_than=older_than, limit=2)
        assert inbox.rows == (
            InboxRow(
                conversation_id="c",
                version=2 * base_us,
                title=None,
                created_us=base_us,
                last_activity_us=base_us + 1,
                last_message_id="m",
                last_message_us=base_us + 1,
                last_message_preview=None,
                last_message_version=2 * (base_us + 1),
                unread_count=1,
                last_read_us=None,
                others=(),
            ),
        )
    message = MessageRow(
        message_id="m",
        version=2 * (base_us + 1),
        sender_id="you",
        body=None,
        sent_us=base_us + 1,
        edited_us=None,
        attachments=None,
    )
    assert await spare.reads.messages("me", "c", older_than=place, limit=2) == MessageRows(
        rows=(message,), has_older=False, has_newer=False
    )
    newer = await spare.reads.messages("me", "c", newer_than=(0, ""), limit=2)
    assert newer == MessageRows(rows=(message,), has_older=False, has_newer=False)


async def test_edges_are_read_by_the_app_s_own_declaration(spare: Installed, base_us: int) -> None:
    """The first key part is who follows or blocks, however it is called."""
    await spare.mirror.apply([written(spare.model, "FollowEdge", ("v", "t"), base_us)])
    await spare.mirror.apply([written(spare.model, "UserBlock", ("t", "v"), base_us + 1)])
    found = await spare.reads.relationship("v", "t")
    assert found.outgoing == EdgeRow(is_live=True, version=2 * base_us)
    assert found.incoming_block == EdgeRow(is_live=True, version=2 * (base_us + 1))
    assert not found.incoming.is_live
    assert not found.outgoing_block.is_live
    key = ("v", "t")
    assert await spare.reads.version_of(spare.model["FollowEdge"], key) == 2 * base_us


async def test_without_the_entities_the_declaration_is_named(
    server: Server, tmp_path: Path
) -> None:
    """An app that mirrors something else has no inbox, and is told why."""
    other = await server.opened(await server.new_database(), declared(tmp_path, ALONE))
    with pytest.raises(ConfigError, match="DmConversation"):
        await other.reads.inbox("me", older_than=None, limit=1)
    with pytest.raises(ConfigError, match="DmConversation"):
        await other.reads.messages("me", "c", limit=1)
    with pytest.raises(ConfigError, match="FollowEdge"):
        await other.reads.relationship("me", "you")


async def test_a_database_that_is_not_there_is_told(server: Server, spare: Installed) -> None:
    """The gateway then answers from elsewhere, or says that it cannot."""
    gone = await server.opened(await server.absent_database(), spare.model)
    with pytest.raises((SqlUnavailable, DatabaseRefused)):
        await gone.reads.inbox("me", older_than=None, limit=1)
