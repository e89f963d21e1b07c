"""Ids as long as a declaration lets them be: another app draws longer ones than Firestore's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from storemirror.gateway.cursor import cursor_of, position_of
from storemirror.gateway.port import Position
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import Side, write
from tests.support.long_keys import (
    CONVERSATION_LENGTH,
    MESSAGE_LENGTH,
    USER_LENGTH,
    declared_with_long_keys,
)

ME, YOU = "me", "you"
#: Alike but for the last character; two bytes each in UTF-8.
ROOM: Final = "é" * (CONVERSATION_LENGTH - 1) + "1"
OTHER_ROOM: Final = "é" * (CONVERSATION_LENGTH - 1) + "2"
LINE: Final = "ü" * (MESSAGE_LENGTH - 1)
FAN: Final = "ä" * (USER_LENGTH - 1)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """The social entities with longer keys."""
    return load_model([declared_with_long_keys(tmp_path)], with_builtin=False)


async def open_room(side: Side, name: str, second: int) -> None:
    await write(side, f"conversations/{name}", participantIds=[ME, YOU], createdAt=at(second))


async def send(side: Side, message_id: str, second: int) -> None:
    path = f"conversations/{ROOM}/messages/{message_id}"
    await write(side, path, senderId=YOU, body="hi", sentAt=at(second))


def handed_back(place: Position) -> Position:
    """Give a place as a client hands it back."""
    return position_of(cursor_of(place, direction="older"))[1]


async def test_an_inbox_has_conversations_of_long_ids(side: Side) -> None:
    """Told apart by the last character, and paged through at one moment."""
    await open_room(side, ROOM, 1)
    await open_room(side, OTHER_ROOM, 1)
    await send(side, LINE + "1", 1)
    first = await side.messages.conversations(ME, older_than=None, limit=1)
    assert [item.conversation_id for item in first.items] == [OTHER_ROOM]
    place = handed_back(first.items[0].position)
    (second,) = (await side.messages.conversations(ME, older_than=place, limit=5)).items
    assert (second.conversation_id, second.last_message_id) == (ROOM, LINE + "1")
    assert second.unread_count == 1


async def test_a_conversation_has_messages_of_long_ids(side: Side) -> None:
    """Both ways from a place between two that differ in the last character."""
    await open_room(side, ROOM, 0)
    for name in "123":
        await send(side, LINE + name, 1)
    page = await side.messages.messages(ME, ROOM, limit=2)
    assert page is not None
    assert [item.message_id for item in page.items] == [LINE + "3", LINE + "2"]
    place = handed_back(page.items[1].position)
    older = await side.messages.messages(ME, ROOM, older_than=place, limit=5)
    newer = await side.messages.messages(ME, ROOM, newer_than=place, limit=5)
    assert older is not None
    assert newer is not None
    assert [item.message_id for item in older.items] == [LINE + "1"]
    assert [item.message_id for item in newer.items] == [LINE + "3"]


async def test_a_relationship_of_users_with_long_ids(side: Side) -> None:
    """Another app's users need not be Firebase's."""
    one, two = FAN + "1", FAN + "2"
    await write(side, f"users/{one}/following/{two}", createdAt=at(1))
    await write(side, f"users/{two}/blocks/{one}", createdAt=at(1))
    found = await side.follow.relationship(one, two)
    assert (found.outgoing.exists, found.incoming.exists) == (True, False)
    assert (found.outgoing_block.exists, found.incoming_block.exists) == (False, True)


async def test_what_is_longer_than_declared_is_not_there(side: Side) -> None:
    """As any id that can be no key; and a place in a list may be such an id all the same."""
    longer = ROOM + "1"
    await open_room(side, longer, 2)
    await open_room(side, ROOM, 1)
    await send(side, LINE + "1", 1)
    await send(side, LINE + "12", 1)
    page = await side.messages.conversations(ME, older_than=None, limit=5)
    assert [item.conversation_id for item in page.items] == [ROOM]
    assert await side.messages.messages(ME, longer, limit=5) is None
    place = Position(time_us=us(1), id=LINE + "12")
    messages = await side.messages.messages(ME, ROOM, older_than=place, limit=5)
    assert messages is not None
    assert [item.message_id for item in messages.items] == [LINE + "1"]
    assert not (await side.follow.relationship(FAN + "12", ME)).outgoing.exists
