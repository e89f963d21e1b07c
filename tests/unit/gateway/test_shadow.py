"""What a shadow read calls a difference, and what it does not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from msgspec.structs import replace

from storemirror.errors import SqlUnavailable
from storemirror.gateway.port import (
    ConversationItem,
    ConversationPage,
    Edge,
    MessageItem,
    MessagePage,
    Participant,
    Relationship,
)
from storemirror.gateway.shadow import (
    MAX_AT_ONCE,
    Comparison,
    Difference,
    ShadowReads,
    compare_conversations,
    compare_messages,
    compare_relationships,
)

MESSAGE = MessageItem(
    message_id="m1",
    version=20,
    sender_id="a",
    body="hello",
    sent_us=1,
    edited_us=None,
    attachments=None,
)
CONVERSATION = ConversationItem(
    conversation_id="c1",
    version=10,
    title=None,
    created_us=1,
    last_activity_us=5,
    last_message_id="m1",
    last_message_us=5,
    last_message_preview="hello",
    last_message_version=20,
    unread_count=1,
    last_read_us=None,
    others=(Participant(user_id="b", last_read_us=None),),
)
EDGE = Edge(exists=True, version=20)
RELATIONSHIP = Relationship(
    outgoing=EDGE, incoming=EDGE, outgoing_block=EDGE, incoming_block=EDGE, as_of_us=None
)


def messages(*items: MessageItem) -> MessagePage:
    return MessagePage(items=items, has_older=False, has_newer=False, as_of_us=None)


def inbox(*items: ConversationItem) -> ConversationPage:
    return ConversationPage(items=items, has_older=False, as_of_us=None)


def as_fields(name: str, value: object) -> dict[str, Any]:
    return {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [("sender_id", "b"), ("body", "hallo"), ("sent_us", 2), ("edited_us", 1), ("attachments", [])],
)
def test_every_field_of_a_message_that_differs_is_named(name: str, value: object) -> None:
    """A planted fault in each (issue 7)."""
    differing = replace(MESSAGE, **as_fields(name, value))
    found = compare_messages("c1", messages(MESSAGE), messages(differing))
    assert found.differences == [Difference("message m1 of c1", name)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", "x"),
        ("created_us", 2),
        ("last_activity_us", 6),
        ("last_message_id", "m2"),
        ("last_message_us", 6),
        ("last_message_preview", "hell"),
        ("last_read_us", 3),
        ("others", ()),
    ],
)
def test_every_field_of_an_inbox_that_differs_is_named(name: str, value: object) -> None:
    """A planted fault in each."""
    differing = replace(CONVERSATION, **as_fields(name, value))
    found = compare_conversations(inbox(CONVERSATION), inbox(differing))
    assert found.differences == [Difference("conversation c1", name)]


def test_what_is_equal_in_python_and_not_in_an_answer_differs() -> None:
    """1, 1.0 and true are one in Python."""
    one, other = replace(MESSAGE, attachments=[1]), replace(MESSAGE, attachments=[True])
    assert compare_messages("c1", messages(one), messages(other)).differences


def test_equal_pages_have_no_difference() -> None:
    """And are counted, so that a green figure means something."""
    assert compare_messages("c1", messages(MESSAGE), messages(MESSAGE)).compared_count == 1
    assert compare_conversations(inbox(CONVERSATION), inbox(CONVERSATION)) == Comparison(
        compared_count=1
    )
    assert compare_relationships(RELATIONSHIP, RELATIONSHIP) == Comparison(compared_count=4)


def test_an_older_version_is_lag_and_a_newer_one_is_left_out() -> None:
    """Neither says that the mirror is wrong, whatever the fields show."""
    older, newer = (replace(MESSAGE, version=v, body="x") for v in (18, 22))
    assert compare_messages("c1", messages(MESSAGE), messages(older)) == Comparison(lagging_count=1)
    assert compare_messages("c1", messages(MESSAGE), messages(newer)) == Comparison(newer_count=1)


def test_an_inbox_whose_last_message_lags_is_not_compared() -> None:
    """The conversation's own document may be the same."""
    older = replace(CONVERSATION, last_message_version=18, last_message_preview="x")
    assert compare_conversations(inbox(CONVERSATION), inbox(older)) == Comparison(lagging_count=1)


def test_what_one_side_alone_shows_is_counted_by_side() -> None:
    """A row that SQL lost, or kept after its document went, is never at a version (issue 7)."""
    empty, one = messages(), messages(MESSAGE)
    assert compare_messages("c1", one, empty) == Comparison(only_in_firestore_count=1)
    assert compare_messages("c1", empty, one) == Comparison(only_in_sql_count=1)
    assert compare_conversations(inbox(), inbox(CONVERSATION)) == Comparison(only_in_sql_count=1)


def test_a_conversation_that_one_side_alone_shows_is_a_matter_of_membership() -> None:
    """A viewer who was removed must not go on reading from SQL unseen (issue 7)."""
    page = messages(MESSAGE, replace(MESSAGE, message_id="m2"))
    assert compare_messages("c1", None, page) == Comparison(membership_count=1)
    assert compare_messages("c1", messages(), None) == Comparison(membership_count=1)
    assert compare_messages("c1", None, None) == Comparison()


def test_what_another_item_pushed_off_the_page_is_not_on_one_side_alone() -> None:
    """Both sides give as many items as were asked for."""
    third, second, first = (replace(MESSAGE, message_id=f"m{n}", sent_us=n) for n in (3, 2, 1))
    served = replace(messages(third, second), has_older=True)
    sql = replace(messages(second, first), has_older=False)
    assert compare_messages("c1", served, sql) == Comparison(
        compared_count=1, only_in_firestore_count=1
    )
    before = replace(messages(second, first), has_newer=True)
    assert compare_messages("c1", before, messages(third, second)) == Comparison(
        compared_count=1, only_in_firestore_count=1
    )


def test_another_order_of_the_same_items_is_a_difference() -> None:
    """Field by field the items are the same (issue 7)."""
    other = replace(MESSAGE, message_id="m2")
    found = compare_messages("c1", messages(MESSAGE, other), messages(other, MESSAGE))
    assert found.differences == [Difference("messages of c1", "order")]
    talk = replace(CONVERSATION, conversation_id="c2")
    turned = compare_conversations(inbox(CONVERSATION, talk), inbox(talk, CONVERSATION))
    assert turned.differences == [Difference("inbox", "order")]
    late = messages(replace(other, version=18), MESSAGE)
    assert not compare_messages("c1", messages(MESSAGE, other), late).differences


@pytest.mark.parametrize("name", ["has_older", "has_newer"])
def test_more_items_on_one_side_are_seen_beyond_the_page(name: str) -> None:
    """What the page does not show is lost, or ought to be gone, all the same."""
    page = messages(MESSAGE)
    more = replace(page, **as_fields(name, value=True))
    assert compare_messages("c1", more, page) == Comparison(
        compared_count=1, only_in_firestore_count=1
    )
    assert compare_messages("c1", page, more) == Comparison(compared_count=1, only_in_sql_count=1)


@pytest.mark.parametrize("edge", ["outgoing", "incoming", "outgoing_block", "incoming_block"])
def test_an_edge_that_differs_is_named(edge: str) -> None:
    """At the same version; at another it lags."""
    wrong = replace(RELATIONSHIP, **as_fields(edge, Edge(exists=False, version=20)))
    late = replace(RELATIONSHIP, **as_fields(edge, Edge(exists=False, version=18)))
    gone = replace(RELATIONSHIP, **as_fields(edge, Edge(exists=False, version=None)))
    assert compare_relationships(RELATIONSHIP, wrong).differences == [Difference(edge, "exists")]
    assert compare_relationships(RELATIONSHIP, late).lagging_count == 1
    assert compare_relationships(RELATIONSHIP, gone).only_in_firestore_count == 1
    assert compare_relationships(gone, RELATIONSHIP).only_in_sql_count == 1


def test_every_kind_of_what_was_found_is_counted() -> None:
    """A kind that nobody adds up is a fault that nobody sees."""
    found = Comparison(1, 2, 3, 4, 5, 6, [Difference("message m1 of c1", "body")])
    shadow = ShadowReads(1.0, random.Random(1))
    shadow.note(found)
    assert shadow.counts == {
        "compared": 1,
        "lagging": 2,
        "newer": 3,
        "only_in_firestore": 4,
        "only_in_sql": 5,
        "membership": 6,
        "different": 1,
    }


async def test_a_comparison_that_fails_is_counted_and_nobody_hears_of_it() -> None:
    """Shadow reads never fail a caller."""
    shadow = ShadowReads(1.0, random.Random(1))

    async def fail() -> None:
        raise SqlUnavailable("away")

    shadow.run(fail)
    await asyncio.sleep(0)
    await shadow.aclose()
    assert shadow.counts == {"failed": 1}


async def test_no_more_than_a_few_run_at_a_time() -> None:
    """A slow database must not gather comparisons for ever."""
    shadow, go = ShadowReads(1.0, random.Random(1)), asyncio.Event()

    async def wait() -> None:
        await go.wait()

    for _ in range(MAX_AT_ONCE + 3):
        shadow.run(wait)
    assert shadow.counts["skipped"] == 3
    await shadow.aclose()


async def test_the_sample_is_as_large_as_was_asked_for() -> None:
    """Each comparison is one more read of SQL."""
    shadow, ran = ShadowReads(0.25, random.Random(1)), 0

    async def count() -> None:
        nonlocal ran
        ran += 1

    for _ in range(1_000):
        shadow.run(count)
        await asyncio.sleep(0)
    await shadow.aclose()
    assert 200 < ran < 300
