"""What every source promises of a conversation's messages; see `MessagesReader.messages`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storemirror.gateway.port import MessageItem, MessagePage, Position
from tests.contract.gateway.moments import at, us
from tests.contract.gateway.sides import Side, delete, write, write_all

ME, YOU = "me", "you"


async def page_of(
    side: Side,
    *,
    older_than: Position | None = None,
    newer_than: Position | None = None,
    limit: int = 50,
) -> MessagePage:
    page = await side.messages.messages(
        ME, "c1", older_than=older_than, newer_than=newer_than, limit=limit
    )
    assert page is not None
    return page


def ids(page: MessagePage) -> list[str]:
    return [item.message_id for item in page.items]


def ways(page: MessagePage) -> tuple[bool, bool]:
    return page.has_older, page.has_newer


def place(second: int, message_id: str) -> Position:
    return Position(time_us=us(second), id=message_id)


async def open_conversation(side: Side, participants: Sequence[str] = (ME, YOU)) -> None:
    await write(side, "conversations/c1", participantIds=list(participants), createdAt=at(0))


async def send_all(side: Side, *seconds: int) -> None:
    await write_all(
        side,
        {
            f"conversations/c1/messages/m{n}": {
                "senderId": YOU,
                "body": f"number {n}",
                "sentAt": at(n),
            }
            for n in seconds
        },
    )


ATTACHMENTS = [
    {"name": "a.png", "size": 5, "ratio": 0.5, "isShown": True, "alt": None},
    "text",
    2**53 + 1,
    {},
    {"numbers": [1e300, -1e300, 2.0, 1e22, 5e-324, 1 / 3, -(2**63), 2**63 - 1]},
]


async def test_a_message_is_told_in_full(side: Side) -> None:
    """Values as the client wrote them, JSON as JSON."""
    await open_conversation(side)
    version = await write(
        side,
        "conversations/c1/messages/m1",
        senderId=YOU,
        body="hello \U0001f469\u200d\U0001f680",
        sentAt=at(10),
        editedAt=at(20),
        attachments=ATTACHMENTS,
        unknown="not declared",
    )
    [item] = (await page_of(side)).items
    assert item == MessageItem(
        message_id="m1",
        version=version,
        sender_id=YOU,
        body="hello \U0001f469\u200d\U0001f680",
        sent_us=us(10),
        edited_us=us(20),
        attachments=ATTACHMENTS,
    )


async def test_numbers_in_json_are_written_alike(side: Side) -> None:
    """A client compares texts, and a shadow read digests: 1e16 is not 10000000000000000 there."""
    await open_conversation(side)
    path = "conversations/c1/messages/m1"
    numbers = [1e15, 1e16, -1e17, 9e18, 1e19, 123456789.5, 1e-7, 10**16]
    await write(side, path, senderId=YOU, sentAt=at(1), attachments=numbers)
    [item] = (await page_of(side)).items
    assert repr(item.attachments) == (
        "[1000000000000000.0, 10000000000000000, -100000000000000000, 9000000000000000000,"
        " 1e+19, 123456789.5, 1e-07, 10000000000000000]"
    )


async def test_what_a_message_lacks_is_none(side: Side) -> None:
    """Null and missing are the same."""
    await open_conversation(side)
    await write(
        side,
        "conversations/c1/messages/m1",
        senderId=YOU,
        sentAt=at(10),
        body=None,
        attachments=None,
    )
    [item] = (await page_of(side)).items
    assert (item.body, item.edited_us, item.attachments) == (None, None, None)


async def test_messages_come_newest_first(side: Side) -> None:
    """Equal times are told apart by the message's id, in the order of its bytes."""
    await open_conversation(side)
    path = "conversations/c1/messages/"
    for message_id, second in (("b", 20), ("é", 20), ("B", 20), ("z", 10), ("a", 30)):
        await write(side, f"{path}{message_id}", senderId=YOU, body="x", sentAt=at(second))
    page = await page_of(side)
    assert ids(page) == ["a", "é", "b", "B", "z"]
    assert ways(page) == (False, False)


async def test_an_edited_message_stays_where_it_is_and_a_deleted_one_is_gone(side: Side) -> None:
    """Its place is that of its sending."""
    await open_conversation(side)
    await send_all(side, 1, 2, 3)
    path = "conversations/c1/messages/m1"
    version = await write(side, path, senderId=YOU, body="edited", sentAt=at(1), editedAt=at(9))
    await delete(side, "conversations/c1/messages/m2")
    page = await page_of(side)
    assert ids(page) == ["m3", "m1"]
    edited = page.items[1]
    assert (edited.body, edited.edited_us, edited.version) == ("edited", us(9), version)


async def test_pages_go_back_without_gap_or_overlap(side: Side) -> None:
    """Each says whether there is more, to both sides."""
    await open_conversation(side)
    await send_all(side, *range(1, 8))
    first = await page_of(side, limit=3)
    assert (ids(first), ways(first)) == (["m7", "m6", "m5"], (True, False))
    second = await page_of(side, older_than=first.items[-1].position, limit=3)
    assert (ids(second), ways(second)) == (["m4", "m3", "m2"], (True, True))
    third = await page_of(side, older_than=second.items[-1].position, limit=3)
    assert (ids(third), ways(third)) == (["m1"], (False, True))


async def test_pages_go_forward_without_gap_or_overlap(side: Side) -> None:
    """The oldest of the newer ones, newest first."""
    await open_conversation(side)
    await send_all(side, *range(1, 8))
    first = await page_of(side, newer_than=place(1, "m1"), limit=3)
    assert (ids(first), ways(first)) == (["m4", "m3", "m2"], (True, True))
    second = await page_of(side, newer_than=first.items[0].position, limit=3)
    assert (ids(second), ways(second)) == (["m7", "m6", "m5"], (True, False))
    third = await page_of(side, newer_than=second.items[0].position, limit=3)
    assert (ids(third), ways(third)) == ([], (True, False))


async def test_a_full_last_page_is_the_last(side: Side) -> None:
    """Nobody is sent for an empty page."""
    await open_conversation(side)
    await send_all(side, 1, 2, 3)
    assert ways(await page_of(side, limit=3)) == (False, False)
    assert ways(await page_of(side, older_than=place(3, "m3"), limit=2)) == (False, True)
    assert ways(await page_of(side, newer_than=place(1, "m1"), limit=2)) == (True, False)


async def test_a_page_is_stable_under_new_arrivals(side: Side) -> None:
    """What came since moves nothing."""
    await open_conversation(side)
    await send_all(side, 1, 2, 3, 4)
    first = await page_of(side, limit=2)
    await send_all(side, 5, 6)
    second = await page_of(side, older_than=first.items[-1].position, limit=2)
    assert ids(first) + ids(second) == ["m4", "m3", "m2", "m1"]


async def test_a_page_may_begin_where_no_message_is(side: Side) -> None:
    """The one that the client has seen may be deleted since."""
    await open_conversation(side)
    await send_all(side, 1, 3)
    between = place(2, "m2")
    older = await page_of(side, older_than=between)
    assert (ids(older), ways(older)) == (["m1"], (False, True))
    newer = await page_of(side, newer_than=between)
    assert (ids(newer), ways(newer)) == (["m3"], (True, False))


async def test_a_place_among_equal_times_is_told_apart_by_its_id(side: Side) -> None:
    """Both ways."""
    await open_conversation(side)
    path = "conversations/c1/messages/"
    for message_id in "abc":
        await write(side, f"{path}{message_id}", senderId=YOU, body="x", sentAt=at(5))
    assert ids(await page_of(side, older_than=place(5, "b"))) == ["a"]
    assert ids(await page_of(side, newer_than=place(5, "b"))) == ["c"]
    assert ids(await page_of(side, older_than=place(5, "bb"))) == ["b", "a"]


@pytest.mark.parametrize(("second", "message_id"), [(0, "m0"), (1, "m1")])
async def test_an_empty_page_of_older_ones_knows_that_there_are_newer_ones(
    side: Side, second: int, message_id: str
) -> None:
    """As seen from the asked place, whether or not a message is there."""
    await open_conversation(side)
    await send_all(side, 1, 2)
    page = await page_of(side, older_than=place(second, message_id))
    assert (page.items, ways(page)) == ((), (False, True))


@pytest.mark.parametrize(("second", "message_id"), [(2, "m2"), (3, "m3")])
async def test_an_empty_page_of_newer_ones_knows_that_there_are_older_ones(
    side: Side, second: int, message_id: str
) -> None:
    """As seen from the asked place, whether or not a message is there."""
    await open_conversation(side)
    await send_all(side, 1, 2)
    page = await page_of(side, newer_than=place(second, message_id))
    assert (page.items, ways(page)) == ((), (True, False))


async def test_what_lies_at_the_asked_place_is_neither_older_nor_newer(side: Side) -> None:
    """The only message, seen from itself."""
    await open_conversation(side)
    await send_all(side, 1)
    older = await page_of(side, older_than=place(1, "m1"))
    newer = await page_of(side, newer_than=place(1, "m1"))
    assert (older.items, ways(older)) == (newer.items, ways(newer)) == ((), (False, False))


async def test_an_empty_conversation_has_an_empty_page(side: Side) -> None:
    """It is there."""
    await open_conversation(side)
    page = await page_of(side)
    assert (page.items, ways(page)) == ((), (False, False))


async def test_whoever_takes_no_part_sees_no_conversation(side: Side) -> None:
    """Not there and not yours are the same answer."""
    await open_conversation(side)
    await send_all(side, 1)
    assert await side.messages.messages("stranger", "c1", limit=5) is None
    assert await side.messages.messages(ME, "c2", limit=5) is None
    await open_conversation(side, [YOU])
    assert await side.messages.messages(ME, "c1", limit=5) is None


async def test_messages_of_a_conversation_that_is_not_there_are_not_told(side: Side) -> None:
    """Before it came, and after it was deleted: Firestore keeps what lies below."""
    await send_all(side, 1)
    assert await side.messages.messages(ME, "c1", limit=5) is None
    await open_conversation(side)
    assert ids(await page_of(side)) == ["m1"]
    await delete(side, "conversations/c1")
    assert await side.messages.messages(ME, "c1", limit=5) is None


@pytest.mark.parametrize(
    "conversation_id",
    ["", "a/b", "a/b/c", "/", "..", ".", "__c1__", "x" * 129, "x" * 5_000, "a\0b", "\ud800"],
    ids=range(11),
)
async def test_an_id_that_cannot_be_a_key_is_not_there(side: Side, conversation_id: str) -> None:
    """A client may send anything; it is answered, and not with an error."""
    assert await side.messages.messages(ME, conversation_id, limit=5) is None


async def test_what_does_not_fit_its_declaration_is_not_there(side: Side) -> None:
    """The mirror has set it aside; a page is full without it, and knows what is behind it."""
    await open_conversation(side)
    await send_all(side, 1, 3, 5)
    path = "conversations/c1/messages/"
    for n in range(6, 10):
        await write(side, f"{path}m{n}", senderId=YOU, body=n, sentAt=at(n))
    await write(side, f"{path}m4", senderId=YOU, sentAt=at(4), body=["no text"])
    await write(side, f"{path}m2", senderId=None, sentAt=at(2), body="nobody's")
    await write(side, f"{path}m0", senderId=YOU, sentAt=at(0), body=0.5)
    await write(side, f"{path}text", senderId=YOU, sentAt="2026", body="no time")
    page = await page_of(side, limit=2)
    assert (ids(page), ways(page)) == (["m5", "m3"], (True, False))
    page = await page_of(side, older_than=place(3, "m3"), limit=1)
    assert (ids(page), ways(page)) == (["m1"], (False, True))
    page = await page_of(side, newer_than=place(3, "m3"), limit=1)
    assert (ids(page), ways(page)) == (["m5"], (True, False))


async def test_a_page_says_up_to_when_it_shows_everything(side: Side) -> None:
    """Where the source knows it."""
    await open_conversation(side)
    version = await write(
        side, "conversations/c1/messages/m1", senderId=YOU, body="x", sentAt=at(1)
    )
    page = await page_of(side)
    assert (page.as_of_us is not None) == side.knows_its_time
    assert page.as_of_us is None or page.as_of_us > version // 2
