"""What an app's users read: their inbox, a conversation, how they stand to another, versions."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence

import msgspec
import pytest

from storemirror.clock import LAST_US
from storemirror.event.change import version_of
from storemirror.sql.port import RowEvent
from storemirror.sql.reads import EdgeRow, InboxRow, MessageRow, MessageRows, Place
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed

#: What no row has as a key, in either dialect; the last one is a surrogate by itself.
IMPOSSIBLE = ("", "a\0", "x" * 2_000, "a/b", "\ud800")
NOBODY = EdgeRow(is_live=False, version=None)


async def inbox(sql: Installed, viewer: str = "me", limit: int = 50) -> list[InboxRow]:
    """Read the newest page of an inbox."""
    return list((await sql.reads.inbox(viewer, older_than=None, limit=limit)).rows)


async def talk(
    sql: Installed,
    viewer: str = "me",
    conversation: str = "c",
    *,
    older_than: Place | None = None,
    newer_than: Place | None = None,
    limit: int = 50,
) -> MessageRows:
    """Read a page of a conversation that is there."""
    found = await sql.reads.messages(
        viewer, conversation, older_than=older_than, newer_than=newer_than, limit=limit
    )
    assert found is not None
    return found


def ids(page: MessageRows) -> str:
    """Give the ids of a page's messages, one letter each, in order."""
    return "".join(row.message_id for row in page.rows)


def with_me(docs: Documents, conversation: str = "c", read: int | None = None) -> RowEvent:
    """A conversation of "me" and "you"; `read` says when "me" read it."""
    last_read = None if read is None else docs.base_us + read
    return docs.conversation(conversation, 1, participants={"me": last_read, "you": None})


async def test_an_inbox_row_has_all_of_its_conversation(sql: Installed, docs: Documents) -> None:
    """What a client shows in one line, it gets in one."""
    members = {"me": docs.base_us + 5, "you": docs.base_us + 6, "them": None}
    await sql.mirror.apply(
        [
            docs.conversation("c", 3, title="plans", created=2, participants=members),
            docs.message("c", "m1", 4, sent=4, sender="you"),
            docs.message("c", "m2", 9, sent=8, sender="you", body="later"),
        ]
    )
    assert await inbox(sql) == [
        InboxRow(
            conversation_id="c",
            version=version_of(docs.base_us + 3, is_deleted=False),
            title="plans",
            created_us=docs.base_us + 2,
            last_activity_us=docs.base_us + 8,
            last_message_id="m2",
            last_message_us=docs.base_us + 8,
            last_message_preview="later",
            last_message_version=version_of(docs.base_us + 9, is_deleted=False),
            unread_count=1,
            last_read_us=docs.base_us + 5,
            others=(("them", None), ("you", docs.base_us + 6)),
        )
    ]


async def test_a_conversation_without_messages_is_as_old_as_it_is(
    sql: Installed, docs: Documents
) -> None:
    """It stands in the inbox by its creation, and nothing is said of a last message."""
    alone = docs.conversation("c", 3, title=None, created=2, participants={"me": None})
    await sql.mirror.apply([alone])
    assert await inbox(sql) == [
        InboxRow(
            conversation_id="c",
            version=version_of(docs.base_us + 3, is_deleted=False),
            title=None,
            created_us=docs.base_us + 2,
            last_activity_us=docs.base_us + 2,
            last_message_id=None,
            last_message_us=None,
            last_message_preview=None,
            last_message_version=None,
            unread_count=0,
            last_read_us=None,
            others=(),
        )
    ]


async def test_an_inbox_has_the_newest_activity_first(sql: Installed, docs: Documents) -> None:
    """Of two at one moment the greater id is first, as in Firestore's own order."""
    await sql.mirror.apply([with_me(docs, name) for name in ("b", "a", "d", "c")])
    await sql.mirror.apply([docs.message("a", "m", 7), docs.message("c", "m", 7)])
    assert [row.conversation_id for row in await inbox(sql)] == ["c", "a", "d", "b"]


async def test_pages_of_an_inbox_hold_each_conversation_once(
    sql: Installed, docs: Documents
) -> None:
    """Each page goes on exactly where the one before ended, ties of one moment included."""
    events = [with_me(docs, f"c{number:02}") for number in range(11)]
    events += [docs.message(f"c{number:02}", "m", 2 + number % 3) for number in range(7)]
    await sql.mirror.apply(events)
    whole = await inbox(sql)
    walked: list[InboxRow] = []
    place, has_older = None, True
    while has_older:
        page = await sql.reads.inbox("me", older_than=place, limit=3)
        walked += page.rows
        has_older = page.has_older
        place = (walked[-1].last_activity_us, walked[-1].conversation_id)
    assert walked == whole
    assert len(whole) == 11
    assert not (await sql.reads.inbox("me", older_than=None, limit=11)).has_older
    assert (await sql.reads.inbox("me", older_than=None, limit=10)).has_older
    assert (await sql.reads.inbox("me", older_than=place, limit=3)).rows == ()


async def test_an_inbox_has_only_live_conversations_of_its_user(
    sql: Installed, docs: Documents
) -> None:
    """What was deleted, what is only a stub, and what is others' is nobody's business."""
    await sql.mirror.apply(
        [
            with_me(docs, "mine"),
            with_me(docs, "gone"),
            docs.conversation("theirs", 1, participants={"you": None, "them": None}),
            docs.message("stub", "m", 1),
        ]
    )
    await sql.mirror.apply([docs.gone("DmConversation", ("gone",), 1)])
    assert [row.conversation_id for row in await inbox(sql)] == ["mine"]


async def test_unread_are_the_messages_of_others_after_the_mark(
    sql: Installed, docs: Documents
) -> None:
    """One's own, one at the mark itself, one before it and one deleted since are none."""
    await sql.mirror.apply(
        [
            with_me(docs, read=5),
            docs.message("c", "before", 4, sender="you"),
            docs.message("c", "at", 5, sender="you"),
            docs.message("c", "own", 6, sender="me"),
            docs.message("c", "deleted", 7, sender="you"),
            docs.message("c", "you", 8, sender="you"),
            docs.message("c", "them", 9, sender="them"),
        ]
    )
    await sql.mirror.apply([docs.gone("DmMessage", ("c", "deleted"), 7)])
    assert [row.unread_count for row in await inbox(sql)] == [2]


async def test_without_a_mark_everything_of_others_is_unread(
    sql: Installed, docs: Documents
) -> None:
    """Who never read anything has read nothing."""
    messages = [
        docs.message("c", f"m{n}", n, sent=n - 9_999_999, sender="you" if n % 2 else "me")
        for n in range(7)
    ]
    await sql.mirror.apply([with_me(docs), *messages])
    assert [row.unread_count for row in await inbox(sql)] == [3]


async def test_counting_unread_messages_ends_at_a_hundred(sql: Installed, docs: Documents) -> None:
    """A client shows 99+; nobody waits for the exact number of a thousand."""
    messages = [docs.message("c", f"m{n}", n, sender="you") for n in range(130)]
    await sql.mirror.apply([with_me(docs), *messages])
    assert [row.unread_count for row in await inbox(sql)] == [100]


async def test_a_sender_whose_id_ends_in_a_space_is_another(
    sql: Installed, docs: Documents
) -> None:
    """SQL Server compares texts without the spaces at their ends."""
    await sql.mirror.apply([with_me(docs), docs.message("c", "m", 1, sender="me ")])
    assert [row.unread_count for row in await inbox(sql)] == [1]


async def test_a_preview_is_cut_by_code_points(sql: Installed, docs: Documents) -> None:
    """An emoji is one, and none is cut in two."""
    body = "\U0001f600" * 150
    await sql.mirror.apply([with_me(docs), docs.message("c", "m", 2, body=body)])
    assert [row.last_message_preview for row in await inbox(sql)] == ["\U0001f600" * 140]


async def test_others_stand_in_the_order_of_their_bytes(sql: Installed, docs: Documents) -> None:
    """Both sources answer alike, whatever order the database has."""
    names = ["\U0001f600", "\uffee", "b", "B", "a", "é"]
    members = {"me": None, **{name: docs.base_us + place for place, name in enumerate(names)}}
    await sql.mirror.apply([docs.conversation("c", 1, participants=members)])
    assert [row.others for row in await inbox(sql)] == [
        tuple((n, docs.base_us + names.index(n)) for n in ("B", "a", "b", "é", *names[1::-1]))
    ]


async def test_a_message_has_all_of_its_document(sql: Installed, docs: Documents) -> None:
    """Edits and attachments among it, JSON as the database's text."""
    attachments = '[{"kind":"image","size":3,"name":"\\u00e9\\"\\n"},null,true]'
    await sql.mirror.apply(
        [
            with_me(docs),
            docs.message("c", "m", 9, sent=4, sender="you", edited=8, attachments=attachments),
        ]
    )
    [found] = (await talk(sql)).rows
    assert json.loads(found.attachments or "") == json.loads(attachments)
    assert msgspec.structs.replace(found, attachments=None) == (
        MessageRow(
            message_id="m",
            version=version_of(docs.base_us + 9, is_deleted=False),
            sender_id="you",
            body="hello",
            sent_us=docs.base_us + 4,
            edited_us=docs.base_us + 8,
            attachments=None,
        )
    )


async def test_a_message_may_have_little(sql: Installed, docs: Documents) -> None:
    """No body, no edit, no attachments, and a JSON null is one still."""
    await sql.mirror.apply(
        [
            with_me(docs),
            docs.message("c", "a", 1, body=None),
            docs.message("c", "b", 2, body="", attachments="null"),
        ]
    )
    found = (await talk(sql)).rows
    assert [(r.body, r.edited_us, r.attachments) for r in found] == [
        ("", None, "null"),
        (None, None, None),
    ]


async def test_a_conversation_has_the_newest_message_first(sql: Installed, docs: Documents) -> None:
    """Of two at one moment the greater id is first; what was deleted is not there."""
    sent = {"a": 1, "c": 5, "b": 5, "x": 6, "d": 3}
    await sql.mirror.apply(
        [with_me(docs), *(docs.message("c", name, 1, sent=at) for name, at in sent.items())]
    )
    await sql.mirror.apply([docs.gone("DmMessage", ("c", "x"), 1)])
    page = await talk(sql)
    assert (ids(page), page.has_older, page.has_newer) == ("cbda", False, False)


async def test_a_conversation_is_walked_in_both_directions(sql: Installed, docs: Documents) -> None:
    """Pages lie side by side; each tells exactly whether there is more on either side."""
    names = "abcdefghij"
    await sql.mirror.apply(
        [with_me(docs), *(docs.message("c", n, 1, sent=at // 2) for at, n in enumerate(names))]
    )
    down, place = [], None
    for _ in range(4):
        page = await talk(sql, older_than=place, limit=3)
        down.append((ids(page), page.has_older, page.has_newer))
        place = (page.rows[-1].sent_us, page.rows[-1].message_id)
    assert down == [
        ("jih", True, False),
        ("gfe", True, True),
        ("dcb", True, True),
        ("a", False, True),
    ]
    up = []
    for _ in range(3):
        page = await talk(sql, newer_than=place, limit=3)
        up.append((ids(page), page.has_older, page.has_newer))
        place = (page.rows[0].sent_us, page.rows[0].message_id)
    assert up == [("dcb", True, True), ("gfe", True, True), ("jih", True, False)]


async def test_an_empty_page_tells_what_lies_beside_its_place(
    sql: Installed, docs: Documents
) -> None:
    """What was behind it may have been deleted; the message at the place itself is not beside."""
    await sql.mirror.apply(
        [with_me(docs), docs.message("c", "b", 1, sent=2), docs.message("c", "d", 1, sent=4)]
    )
    low, high = (docs.base_us + 2, "b"), (docs.base_us + 4, "d")
    below = await talk(sql, older_than=low)
    assert (ids(below), below.has_older, below.has_newer) == ("", False, True)
    above = await talk(sql, newer_than=high)
    assert (ids(above), above.has_older, above.has_newer) == ("", True, False)
    await sql.mirror.apply([docs.gone("DmMessage", ("c", "d"), 1)])
    below = await talk(sql, older_than=low)
    assert (ids(below), below.has_older, below.has_newer) == ("", False, False)


async def test_a_place_need_not_be_there_any_more(sql: Installed, docs: Documents) -> None:
    """A cursor outlives the message that it was made of."""
    await sql.mirror.apply(
        [with_me(docs), *(docs.message("c", n, 1, sent=at) for at, n in enumerate("abc"))]
    )
    place = (docs.base_us + 1, "b")
    await sql.mirror.apply([docs.gone("DmMessage", ("c", "b"), 1)])
    older = await talk(sql, older_than=place)
    newer = await talk(sql, newer_than=place)
    assert (ids(older), older.has_older, older.has_newer) == ("a", False, True)
    assert (ids(newer), newer.has_older, newer.has_newer) == ("c", True, False)


@pytest.mark.parametrize("seed", range(3))
async def test_pages_are_cut_from_the_list_as_one_would_by_hand(
    seed: int, sql: Installed, docs: Documents
) -> None:
    """Every place, both directions, several sizes; many messages share a moment."""
    rng = random.Random(seed)
    sent = {f"m{number}": rng.randrange(6) for number in range(14)}
    gone = set(rng.sample(sorted(sent), 4))
    await sql.mirror.apply(
        [with_me(docs), *(docs.message("c", name, 1, sent=at) for name, at in sent.items())]
    )
    await sql.mirror.apply([docs.gone("DmMessage", ("c", name), 1) for name in gone])
    every = sorted((docs.base_us + at, name) for name, at in sent.items())
    live = [place for place in every if place[1] not in gone]
    for place, limit, is_newer in itertools.product(every, (1, 3, 20), (False, True)):
        newer, older = (place, None) if is_newer else (None, place)
        page = await talk(sql, newer_than=newer, older_than=older, limit=limit)
        found = [(row.sent_us, row.message_id) for row in page.rows]
        wanted = by_hand(live, place, limit, is_newer=is_newer)
        assert (found, page.has_older, page.has_newer) == wanted, (place, limit, is_newer)


def by_hand(
    live: Sequence[Place], place: Place, limit: int, *, is_newer: bool
) -> tuple[list[Place], bool, bool]:
    """Cut a page from the whole list."""
    beside = [p for p in live if (p > place if is_newer else p < place)]
    page = beside[:limit] if is_newer else beside[-limit:]
    low, high = (page[0], page[-1]) if page else (place, place)
    return page[::-1], any(p < low for p in live), any(p > high for p in live)


async def test_a_conversation_without_messages_is_an_empty_page(
    sql: Installed, docs: Documents
) -> None:
    """It is there, and it is not the answer to a stranger."""
    await sql.mirror.apply([with_me(docs)])
    assert await talk(sql) == MessageRows(rows=(), has_older=False, has_newer=False)


async def test_what_is_not_there_and_what_is_not_yours_are_one_answer(
    sql: Installed, docs: Documents
) -> None:
    """Nobody learns from it whether two others talk."""
    await sql.mirror.apply([with_me(docs), with_me(docs, "gone"), docs.message("stub", "m", 1)])
    await sql.mirror.apply([docs.gone("DmConversation", ("gone",), 1)])
    asked = [("them", "c"), ("me", "gone"), ("me", "stub"), ("me", "absent"), ("me", "c ")]
    assert [await sql.reads.messages(*pair, limit=5) for pair in asked] == [None] * 5


@pytest.mark.parametrize("name", IMPOSSIBLE, ids=repr)
async def test_an_id_that_can_be_no_key_is_not_there(
    name: str, sql: Installed, docs: Documents
) -> None:
    """A client may send what it likes; it is told of no error of the database's."""
    await sql.mirror.apply([with_me(docs)])
    assert await sql.reads.messages("me", name, limit=5) is None
    assert await sql.reads.messages(name, "c", limit=5) is None
    assert await inbox(sql, name) == []
    assert await sql.reads.version_of(sql.model["DmConversation"], (name,)) is None
    for pair in (("me", name), (name, "me")):
        found = await sql.reads.relationship(*pair)
        assert (found.outgoing, found.incoming) == (NOBODY, NOBODY)
        assert (found.outgoing_block, found.incoming_block) == (NOBODY, NOBODY)


@pytest.mark.parametrize("name", IMPOSSIBLE, ids=repr)
async def test_a_place_may_have_any_id(name: str, sql: Installed, docs: Documents) -> None:
    """Firestore has documents that the mirror cannot hold, and a page of its may end at one."""
    await sql.mirror.apply([with_me(docs), docs.message("c", "m", 5, sender="you")])
    place = (docs.base_us + 6, name)
    assert ids(await talk(sql, older_than=place)) == "m"
    assert ids(await talk(sql, newer_than=place)) == ""
    assert len((await sql.reads.inbox("me", older_than=place, limit=5)).rows) == 1


async def test_the_first_and_the_last_moment_are_read(sql: Installed, docs: Documents) -> None:
    """A client's clock may say anything, and Firestore takes the years 1 to 9999."""
    first_us = -62_135_596_800_000_000
    times = (first_us, -1, LAST_US)
    await sql.mirror.apply(
        [
            docs.conversation("c", 1, participants={"me": first_us, "you": LAST_US}),
            *(
                docs.message("c", f"m{n}", 1, sent=at - docs.base_us, sender="you")
                for n, at in enumerate(times)
            ),
        ]
    )
    assert [row.sent_us for row in (await talk(sql)).rows] == [*times[::-1]]
    [row] = await inbox(sql)
    assert (row.last_activity_us, row.last_read_us) == (LAST_US, first_us)
    assert (row.unread_count, row.others) == (2, (("you", LAST_US),))


@pytest.mark.parametrize("time_us", [-(2**63), 2**63 - 1])
async def test_a_place_beyond_all_time_is_at_its_end(
    time_us: int, sql: Installed, docs: Documents
) -> None:
    """Whoever made it up is shown nothing else, and no error of the database's."""
    await sql.mirror.apply([with_me(docs), docs.message("c", "m", 5)])
    page = await talk(sql, older_than=(time_us, "m"))
    assert ids(page) == ("m" if time_us > 0 else "")


async def test_a_page_lies_on_one_side_of_a_place(sql: Installed) -> None:
    """Both at once is the caller's bug."""
    with pytest.raises(ValueError, match="not between"):
        await sql.reads.messages("me", "c", older_than=(1, "a"), newer_than=(0, "a"), limit=1)


async def test_a_relationship_tells_the_versions_of_its_edges(
    sql: Installed, docs: Documents
) -> None:
    """A tombstone has one, so that a read can wait for a write; a stub has none."""
    await sql.mirror.apply(
        [docs.follow("v", "t", 5), docs.follow("t", "v", 6), docs.block("v", "t", 7)]
    )
    await sql.mirror.apply([docs.gone("FollowEdge", ("t", "v"), 6)])
    await sql.make_stubs(sql.model["UserBlock"], [("t", "v")])
    found = await sql.reads.relationship("v", "t")
    at = docs.base_us
    assert found.outgoing == EdgeRow(is_live=True, version=2 * (at + 5))
    assert found.incoming == EdgeRow(is_live=False, version=2 * (at + 6) + 1)
    assert found.outgoing_block == EdgeRow(is_live=True, version=2 * (at + 7))
    assert found.incoming_block == NOBODY
    turned = await sql.reads.relationship("t", "v")
    assert (turned.outgoing, turned.incoming) == (found.incoming, found.outgoing)
    assert (turned.outgoing_block, turned.incoming_block) == (NOBODY, found.outgoing_block)


async def test_strangers_are_nothing_to_each_other(sql: Installed) -> None:
    """No row is no edge, and no version."""
    found = await sql.reads.relationship("v", "t")
    assert (found.outgoing, found.incoming) == (NOBODY, NOBODY)
    assert (found.outgoing_block, found.incoming_block) == (NOBODY, NOBODY)


async def test_a_version_is_a_live_row_s_or_a_tombstone_s(sql: Installed, docs: Documents) -> None:
    """Whoever waits for a write to be seen asks for it; a stub has seen none."""
    await sql.mirror.apply(
        [docs.message("c", "m", 4), docs.message("c", "x", 5), docs.follow("a", "b", 6)]
    )
    await sql.mirror.apply([docs.gone("DmMessage", ("c", "x"), 5)])
    message, at = sql.model["DmMessage"], docs.base_us
    assert await sql.reads.version_of(message, ("c", "m")) == 2 * (at + 4)
    assert await sql.reads.version_of(message, ("c", "x")) == 2 * (at + 5) + 1
    assert await sql.reads.version_of(message, ("c", "absent")) is None
    assert await sql.reads.version_of(sql.model["FollowEdge"], ("a", "b")) == 2 * (at + 6)
    assert await sql.reads.version_of(sql.model["DmConversation"], ("c",)) is None
    with pytest.raises(ValueError, match="2 key parts"):
        await sql.reads.version_of(message, ("c",))
