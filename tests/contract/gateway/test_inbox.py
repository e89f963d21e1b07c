"""What every source promises of an inbox; see `MessagesReader.conversations`."""

from __future__ import annotations

import pytest

from storemirror.gateway.port import ConversationItem, ConversationPage, Participant, Position
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import Side, delete, write, write_all

ME, YOU = "me", "you"


async def inbox(
    side: Side, *, older_than: Position | None = None, limit: int = 50
) -> ConversationPage:
    return await side.messages.conversations(ME, older_than=older_than, limit=limit)


async def ids(side: Side) -> list[str]:
    return [item.conversation_id for item in (await inbox(side)).items]


async def only_item(side: Side) -> ConversationItem:
    [item] = (await inbox(side)).items
    return item


async def open_conversation(side: Side, name: str, second: int, **more: object) -> int:
    fields: dict[str, object] = {"participantIds": [ME, YOU], "createdAt": at(second), **more}
    return await write(side, f"conversations/{name}", **fields)


async def send(
    side: Side, name: str, second: int, sender: str = YOU, body: str | None = "hello"
) -> int:
    path = f"conversations/{name}/messages/m{second}"
    return await write(side, path, senderId=sender, body=body, sentAt=at(second))


async def test_a_new_conversation_is_told_in_full(side: Side) -> None:
    """Without messages its creation is its last activity."""
    version = await open_conversation(
        side,
        "c1",
        10,
        title="Lunch",
        participantIds=["zoe", ME, YOU, "Ö"],
        lastReadAt={YOU: at(20), ME: at(15), "stranger": at(1)},
    )
    assert await only_item(side) == ConversationItem(
        conversation_id="c1",
        version=version,
        title="Lunch",
        created_us=us(10),
        last_activity_us=us(10),
        last_message_id=None,
        last_message_us=None,
        last_message_preview=None,
        last_message_version=None,
        unread_count=0,
        last_read_us=us(15),
        others=(
            Participant(user_id=YOU, last_read_us=us(20)),
            Participant(user_id="zoe", last_read_us=None),
            Participant(user_id="Ö", last_read_us=None),
        ),
    )


async def test_the_last_message_is_told_with_its_version(side: Side) -> None:
    """Of messages with the same time the one with the largest id; in whatever order they came."""
    await open_conversation(side, "c1", 10)
    await send(side, "c1", 30, body="second")
    path = "conversations/c1/messages/"
    version = await write(side, f"{path}m300", senderId=YOU, body="third", sentAt=at(30))
    await send(side, "c1", 20, body="first")
    item = await only_item(side)
    assert (item.last_message_id, item.last_message_us) == ("m300", us(30))
    assert (item.last_message_preview, item.last_message_version) == ("third", version)
    assert item.last_activity_us == us(30)


async def test_a_message_that_is_older_than_its_conversation_is_its_last_activity(
    side: Side,
) -> None:
    """Clients write both times; the declaration says which of them counts."""
    await open_conversation(side, "c1", 10)
    await send(side, "c1", 5)
    assert (await only_item(side)).last_activity_us == us(5)


async def test_an_edit_and_a_delete_change_the_last_message(side: Side) -> None:
    """What the inbox shows is what the conversation ends with."""
    await open_conversation(side, "c1", 10)
    first_version = await send(side, "c1", 20, body="first")
    await send(side, "c1", 30, body="second")
    edited_version = await send(side, "c1", 30, body="edited")
    item = await only_item(side)
    assert (item.last_message_preview, item.last_message_version) == ("edited", edited_version)
    await delete(side, "conversations/c1/messages/m30")
    item = await only_item(side)
    assert (item.last_message_preview, item.last_message_version) == ("first", first_version)


@pytest.mark.parametrize(
    ("body", "preview"),
    [
        ("x" * 141, "x" * 140),
        ("\U0001f469\u200d\U0001f680" * 50, ("\U0001f469\u200d\U0001f680" * 50)[:140]),
        ("e\u0301" * 71, ("e\u0301" * 71)[:140]),
        ("", ""),
        (None, None),
    ],
    ids=["letters", "astronauts", "accents", "empty", "none"],
)
async def test_a_preview_is_cut_by_code_points(
    side: Side, body: str | None, preview: str | None
) -> None:
    """Not by bytes or UTF-16 units, and alike on every source."""
    await open_conversation(side, "c1", 10)
    await send(side, "c1", 20, body=body)
    assert (await only_item(side)).last_message_preview == preview


async def test_an_inbox_begins_with_the_newest_activity(side: Side) -> None:
    """Equal times are told apart by the conversation's id, the largest first."""
    await open_conversation(side, "old", 10)
    await open_conversation(side, "b", 20)
    await open_conversation(side, "é", 20)
    await open_conversation(side, "a", 20)
    await open_conversation(side, "quiet", 15)
    await send(side, "old", 30)
    assert await ids(side) == ["old", "é", "b", "a", "quiet"]


async def test_an_inbox_has_only_conversations_in_which_the_viewer_takes_part(side: Side) -> None:
    """Whoever left, or was never there, sees nothing of it."""
    await open_conversation(side, "mine", 10)
    await open_conversation(side, "theirs", 10, participantIds=[YOU, "zoe"])
    await open_conversation(side, "left", 10)
    await open_conversation(side, "left", 10, participantIds=[YOU])
    await open_conversation(side, "deleted", 10)
    await delete(side, "conversations/deleted")
    await open_conversation(side, "back", 10)
    await delete(side, "conversations/back")
    await open_conversation(side, "back", 10)
    # Its messages came before it did: a stub stands in for it.
    await send(side, "notThereYet", 50)
    assert await ids(side) == ["mine", "back"]


async def test_participants_may_be_the_keys_of_a_map(side: Side) -> None:
    """An app has them in an array, another in a map."""
    await open_conversation(side, "array", 10)
    await open_conversation(side, "map", 20, participantIds={ME: True, "zoe": None})
    await open_conversation(side, "null", 30, participantIds={ME: None})
    await open_conversation(side, "other", 40, participantIds={YOU: True})
    page = await inbox(side)
    assert [item.conversation_id for item in page.items] == ["null", "map", "array"]
    assert page.items[1].others == (Participant(user_id="zoe", last_read_us=None),)


async def test_unread_are_messages_of_others_after_the_last_look(side: Side) -> None:
    """Exactly at the last look is read; one's own are never unread."""
    await open_conversation(side, "c1", 10, lastReadAt={ME: at(30), YOU: at(99)})
    for second in (20, 30, 31, 40):
        await send(side, "c1", second)
    await send(side, "c1", 50, sender=ME)
    await send(side, "c1", 60, sender="zoe")
    await delete(side, "conversations/c1/messages/m40")
    assert (await only_item(side)).unread_count == 2


async def test_all_messages_of_others_are_unread_to_one_who_never_looked(side: Side) -> None:
    """However old they are."""
    await open_conversation(side, "c1", 10, lastReadAt={YOU: at(99)})
    await send(side, "c1", -1_000_000_000)
    await send(side, "c1", 20)
    await send(side, "c1", 30, sender=ME)
    item = await only_item(side)
    assert (item.unread_count, item.last_read_us) == (2, None)


@pytest.mark.parametrize(("count", "expected"), [(99, 99), (100, 100), (101, 100)])
async def test_unread_messages_are_counted_up_to_a_hundred(
    side: Side, count: int, expected: int
) -> None:
    """A hundred means 99+."""
    await open_conversation(side, "c1", 10)
    message = {"senderId": YOU, "body": "hi"}
    await write_all(
        side,
        {f"conversations/c1/messages/n{n}": {**message, "sentAt": at(n)} for n in range(count)},
    )
    assert (await only_item(side)).unread_count == expected


async def test_pages_follow_each_other(side: Side) -> None:
    """Each begins behind the last item of the one before; the last one knows that it is."""
    for n in range(7):
        await open_conversation(side, f"c{n}", 10 + n // 2)
    newest_first = ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]
    place = None
    found = []
    for more, expected in ((True, 3), (True, 3), (False, 1)):
        page = await inbox(side, older_than=place, limit=3)
        assert (len(page.items), page.has_older) == (expected, more)
        found += [item.conversation_id for item in page.items]
        place = page.items[-1].position
    assert found == newest_first
    beyond = await inbox(side, older_than=place, limit=3)
    assert (beyond.items, beyond.has_older) == ((), False)


async def test_a_full_last_page_is_the_last(side: Side) -> None:
    """Nobody is sent for an empty page."""
    for n in range(3):
        await open_conversation(side, f"c{n}", n)
    assert not (await inbox(side, limit=3)).has_older
    assert (await inbox(side, limit=2)).has_older


async def test_a_page_may_begin_where_no_conversation_is(side: Side) -> None:
    """The one that was there has had a message since; nothing is shown twice or left out."""
    for n in range(4):
        await open_conversation(side, f"c{n}", 10 * n)
    page = await inbox(side, limit=2)
    assert [item.conversation_id for item in page.items] == ["c3", "c2"]
    await send(side, "c2", 100)
    rest = await inbox(side, older_than=page.items[-1].position, limit=2)
    assert [item.conversation_id for item in rest.items] == ["c1", "c0"]


async def test_who_has_no_conversation_has_an_empty_inbox(side: Side) -> None:
    """No error, whatever the name."""
    await open_conversation(side, "c1", 10)
    for viewer in ("nobody", "", "x" * 2_000, "a/b", "a\0b", "__me__", "m`e.\\"):
        page = await side.messages.conversations(viewer, older_than=None, limit=5)
        assert (page.items, page.has_older) == ((), False)


async def test_what_does_not_fit_its_declaration_is_not_there(side: Side) -> None:
    """The mirror has set it aside; the documents' reader must not show it either."""
    await open_conversation(side, "c1", 10, title=5)
    await write(side, "conversations/c2", participantIds=[ME], title="no createdAt")
    await write(side, "conversations/c3", participantIds=[ME, 5], createdAt=at(1))
    await open_conversation(side, "x" * 129, 10)
    await open_conversation(side, "good", 10)
    await send(side, "good", 20, body="fits")
    path = "conversations/good/messages/"
    await write(side, f"{path}z1", senderId=YOU, body=5, sentAt=at(30))
    await write(side, f"{path}z2", senderId=YOU, body="x", sentAt="2026-03-01T12:00:00Z")
    await write(side, f"{path}z3", body="no sender", sentAt=at(40))
    await write(side, f"{path}{'z' * 129}", senderId=YOU, body="long id", sentAt=at(50))
    item = await only_item(side)
    assert (item.conversation_id, item.last_message_preview) == ("good", "fits")


async def test_an_inbox_says_up_to_when_it_shows_everything(side: Side) -> None:
    """Where the source knows it; the caller waits for a write by it."""
    version = await open_conversation(side, "c1", 10)
    page = await inbox(side)
    if side.knows_its_time:
        assert page.as_of_us is not None
        assert page.as_of_us > version // 2
    else:
        assert page.as_of_us is None
