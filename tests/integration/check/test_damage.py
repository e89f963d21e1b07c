"""Rows damaged by hand, each in one way: the check names the place, and a repair mends it."""

from __future__ import annotations

import json
import math
from typing import LiteralString

import pytest

from storemirror.check.compare import Mismatch, MismatchKind
from storemirror.check.result import CheckResult
from storemirror.event.value import GeoPoint, Reference
from tests.integration.check.world import World
from tests.unit.check.samples import MOMENT, PATH

pytestmark = pytest.mark.postgres

ORDER_DOCUMENT: dict[str, object] = {
    "buyer": "ann",
    "note": "a\0b",
    "count": 2**62,
    "price": math.nan,
    "isPaid": True,
    "paidAt": MOMENT,
    "proof": b"\x00\xff",
    "product": Reference("projects/p/databases/d/documents/products/1"),
    "place": GeoPoint(-0.0, 8.25),
    "extra": {"a": [1, 1.0, 1e22, 1e-7, -0.0, math.inf, "x\0", None, True, MOMENT, b"ab"], "b": {}},
    "address": {"home": {"city": "Bern"}},
    "tags": ["new", "red"],
    "weights": {"red": -0.0},
    "info": {"labels": {"new": "New!"}},
    "lines": {"l1": True},
}
CONVERSATION = "conversations/c1"
MESSAGE = "conversations/c1/messages/m1"


async def fill(world: World) -> None:
    """Write documents of every entity, among them one that was deleted, and mirror them."""
    await world.write(PATH, ORDER_DOCUMENT)
    await world.write(
        CONVERSATION,
        {"createdAt": MOMENT, "participantIds": ["u1", "u2"], "lastReadAt": {"u1": MOMENT}},
    )
    for number in range(3):
        path = f"conversations/c1/messages/m{number}"
        await world.write(path, {"senderId": "u1", "body": "hello", "sentAt": MOMENT})
    await world.write("conversations/c2/messages/m1", {"senderId": "u1", "sentAt": MOMENT})
    await world.write("users/u1/following/u2", {})
    await world.write("users/u1/blocks/u3", {"createdAt": MOMENT})
    await world.write("users/u1/blocks/u4", {"createdAt": MOMENT})
    await world.catch_up()
    await world.write("users/u1/blocks/u4", None)
    await world.catch_up()


def named(found: CheckResult) -> list[tuple[MismatchKind, str, str]]:
    """Give kind, path and field of each mismatch."""
    return [(m.kind, m.path, m.field) for m in found.mismatches]


async def test_a_faithful_mirror_is_clean(world: World) -> None:
    """Every type of value, and every value that PostgreSQL cannot hold, passes the comparison."""
    await fill(world)
    found = await world.check()
    assert named(found) == []
    assert found.is_clean
    assert {name: (c.document_count, c.row_count) for name, c in found.counts.items()} == {
        "conversations": (1, 1),
        "messages": (4, 4),
        "follow": (1, 1),
        "blocks": (1, 1),
        "orders": (1, 1),
    }


DAMAGES: list[tuple[LiteralString, MismatchKind, str, str]] = [
    ("UPDATE storemirror.shop_order SET buyer = 'bob'", MismatchKind.FIELD_DIFFERS, PATH, "buyer"),
    (
        "UPDATE storemirror.shop_order SET count = count + 1",
        MismatchKind.FIELD_DIFFERS,
        PATH,
        "count",
    ),
    ("UPDATE storemirror.shop_order SET price = 'inf'", MismatchKind.FIELD_DIFFERS, PATH, "price"),
    (
        "UPDATE storemirror.shop_order SET is_paid = NULL",
        MismatchKind.FIELD_DIFFERS,
        PATH,
        "isPaid",
    ),
    (
        "UPDATE storemirror.shop_order SET paid_at = paid_at + interval '1 microsecond'",
        MismatchKind.FIELD_DIFFERS,
        PATH,
        "paidAt",
    ),
    ("UPDATE storemirror.shop_order SET proof = ''", MismatchKind.FIELD_DIFFERS, PATH, "proof"),
    (
        "UPDATE storemirror.shop_order SET product = 'x'",
        MismatchKind.FIELD_DIFFERS,
        PATH,
        "product",
    ),
    (
        "UPDATE storemirror.shop_order SET place = jsonb_set(place, '{longitude}', '8')",
        MismatchKind.FIELD_DIFFERS,
        PATH,
        "place",
    ),
    (
        "UPDATE storemirror.shop_order SET extra = jsonb_set(extra, '{a,1}', '1')",
        MismatchKind.FIELD_DIFFERS,
        PATH,
        "extra",
    ),
    ("UPDATE storemirror.shop_order SET city = 'bern'", MismatchKind.FIELD_DIFFERS, PATH, "city"),
    (
        "UPDATE storemirror.shop_order SET lossy_fields = array_remove(lossy_fields, 'place')",
        MismatchKind.LOSSY_FIELDS_DIFFER,
        PATH,
        "place",
    ),
    (
        "UPDATE storemirror.shop_order SET raw_document = '{}'",
        MismatchKind.RAW_DIFFERS,
        PATH,
        "raw",
    ),
    (
        "DELETE FROM storemirror.order_tag WHERE tag = 'new'",
        MismatchKind.CHILD_MISSING,
        PATH,
        "OrderTag[new]",
    ),
    (
        "INSERT INTO storemirror.order_line (shop_id, order_id, line) VALUES ('s1', 'o1', 'l9')",
        MismatchKind.CHILD_EXTRA,
        PATH,
        "OrderLine[l9]",
    ),
    (
        "UPDATE storemirror.order_tag SET weight = 1.5 WHERE tag = 'red'",
        MismatchKind.CHILD_DIFFERS,
        PATH,
        "OrderTag[red].weight",
    ),
    (
        "UPDATE storemirror.dm_participant SET last_read_at = NULL WHERE user_id = 'u1'",
        MismatchKind.CHILD_DIFFERS,
        CONVERSATION,
        "DmParticipant[u1].lastReadAt",
    ),
    (
        "UPDATE storemirror.dm_message SET body = 'bye'"
        " WHERE conversation_id = 'c1' AND message_id = 'm1'",
        MismatchKind.FIELD_DIFFERS,
        MESSAGE,
        "body",
    ),
    (
        "UPDATE storemirror.follow_edge SET last_event_version = last_event_version + 2000",
        MismatchKind.NEWER_ROW,
        "users/u1/following/u2",
        "",
    ),
    (
        "UPDATE storemirror.follow_edge SET last_event_version = 9000000000000000000",
        MismatchKind.NEWER_ROW,
        "users/u1/following/u2",
        "",
    ),
    (
        "UPDATE storemirror.follow_edge SET last_event_version = 4",
        MismatchKind.OLDER_ROW,
        "users/u1/following/u2",
        "",
    ),
    (
        "UPDATE storemirror.follow_edge SET row_state = 'tombstone'",
        MismatchKind.TOMBSTONE,
        "users/u1/following/u2",
        "",
    ),
    (
        "UPDATE storemirror.user_block SET row_state = 'live' WHERE blocked_id = 'u4'",
        MismatchKind.ROW_OF_GONE_DOCUMENT,
        "users/u1/blocks/u4",
        "",
    ),
    (
        "UPDATE storemirror.user_block SET row_state = 'live',"
        " last_event_version = 9000000000000000000 WHERE blocked_id = 'u4'",
        MismatchKind.ROW_OF_GONE_DOCUMENT,
        "users/u1/blocks/u4",
        "",
    ),
    (
        "UPDATE storemirror.user_block SET created_at = now() WHERE blocked_id = 'u4'",
        MismatchKind.CONTENTS_LEFT,
        "users/u1/blocks/u4",
        "createdAt",
    ),
    ("DELETE FROM storemirror.follow_edge", MismatchKind.MISSING_ROW, "users/u1/following/u2", ""),
]


@pytest.mark.parametrize(
    ("damage", "kind", "path", "field"), DAMAGES, ids=[f"{d[1]} {d[3]}" for d in DAMAGES]
)
async def test_damage_is_named_and_a_repair_mends_it(
    world: World, damage: LiteralString, kind: MismatchKind, path: str, field: str
) -> None:
    """Same document, other row: the place is named, nothing else is, and the bus mends it."""
    await fill(world)
    assert await world.sql.execute(damage) == 1
    found = await world.check()
    assert named(found) == [(kind, path, field)]
    assert not found.is_clean
    assert await world.repair(found) == 1
    assert named(await world.check()) == []


async def test_a_row_that_became_a_stub_is_missing(world: World) -> None:
    """A stub stands for a parent of which nothing is known; here a document is known."""
    await fill(world)
    await world.sql.execute("UPDATE storemirror.dm_conversation SET row_state = 'stub'")
    found = await world.check()
    assert named(found) == [(MismatchKind.MISSING_ROW, CONVERSATION, "")]
    await world.repair(found)
    assert (await world.check()).is_clean


@pytest.mark.parametrize(
    ("damage", "column"),
    [
        (
            "UPDATE storemirror.dm_conversation SET message_count = 7 WHERE conversation_id = 'c1'",
            "messageCount",
        ),
        (
            "UPDATE storemirror.dm_conversation SET last_message_id = 'm0'"
            " WHERE conversation_id = 'c1'",
            "lastMessageId",
        ),
        (
            "UPDATE storemirror.dm_conversation SET last_message_preview = 'x'"
            " WHERE conversation_id = 'c1'",
            "lastMessagePreview",
        ),
    ],
)
async def test_a_damaged_rollup_is_named_and_recomputed(
    world: World, damage: LiteralString, column: str
) -> None:
    """The inbox is sorted by roll-ups; no document holds them, so the rows themselves are asked."""
    await fill(world)
    assert await world.sql.execute(damage) == 1
    found = await world.check()
    assert found.mismatches == (
        Mismatch(
            kind=MismatchKind.ROLLUP_DIFFERS,
            entity="DmConversation",
            path=CONVERSATION,
            field=column,
        ),
    )
    assert found.counts["messages"].mismatch_count == 1
    assert await world.repair(found) == 1
    assert (await world.check()).is_clean


async def test_everything_wrong_at_once_is_counted_and_the_first_are_listed(world: World) -> None:
    """A mirror that was emptied must not flood the terminal, nor claim few differences."""
    await fill(world)
    for number in range(4, 9):
        await world.write(f"users/u1/following/u{number}", {})
    await world.catch_up()
    await world.sql.execute("DELETE FROM storemirror.follow_edge")
    found = await world.check(max_mismatches=2, page_size=2)
    assert found.mismatch_count == 6
    assert [m.path for m in found.mismatches] == ["users/u1/following/u2", "users/u1/following/u4"]
    assert json.loads(json.dumps(found.to_json()))["mismatch_count"] == 6


async def test_a_result_holds_no_contents(world: World) -> None:
    """Results are archived; what people wrote to each other must not be in them."""
    await fill(world)
    await world.sql.execute("UPDATE storemirror.dm_message SET body = 'secret'")
    text = json.dumps((await world.check()).to_json())
    assert "secret" not in text
    assert "hello" not in text
    assert MESSAGE in text


async def test_a_repair_that_was_done_meanwhile_publishes_nothing(world: World) -> None:
    """A second repair of the same list finds the rows right and leaves them alone."""
    await fill(world)
    await world.sql.execute("UPDATE storemirror.follow_edge SET row_state = 'tombstone'")
    found = await world.check()
    assert await world.repair(found) == 1
    assert await world.repair(found, run="r2") == 0


async def test_an_emptied_table_is_filled_again(world: World) -> None:
    """More documents than one publish takes."""
    for number in range(101):
        await world.write(f"users/u1/following/u{number}", {})
    await world.catch_up()
    await world.sql.execute("DELETE FROM storemirror.follow_edge")
    found = await world.check(max_mismatches=1_000)
    assert await world.repair(found) == 101
    assert (await world.check()).is_clean


@pytest.mark.parametrize("followee", ["a/b", ""])
async def test_a_row_whose_key_no_document_has_is_named_and_left_alone(
    world: World, followee: str
) -> None:
    """Only a hand can have written it: the check goes on, and no event can mend it."""
    await fill(world)
    await world.sql.execute(
        "INSERT INTO storemirror.follow_edge (follower_id, followee_id, row_state) VALUES"
        " ('u1', %s, 'live')",
        (followee,),
    )
    found = await world.check()
    path = f"users/u1/following/{followee}"
    assert named(found) == [(MismatchKind.ROW_OF_GONE_DOCUMENT, path, "")]
    assert await world.repair(found) == 0
