"""Each mistake between the parts of declarations is planted, and must be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.model.declarations import SHOP, mistakes_of
from tests.unit.model.planted import Planted

COLUMN = 'note = { type = "text" }'
BY = 'by = "addedAt"'
ROLLUP = SHOP[SHOP.index("[entity.rollup]") :]
LATEST = SHOP[SHOP.index("latest = ") :]

PLANTED = {
    "roll-up into nothing": Planted(
        old='into = "Order"',
        new='into = "Ordr"',
        where="OrderLine.rollup.into",
        what="there is no entity 'Ordr'",
        cure="Did you mean 'Order'?",
    ),
    "roll-up into another key": Planted(
        old='path = "orders/{orderId}"',
        new='path = "orders/{id}"',
        where="OrderLine.rollup.into",
        what="has the key (orderId, lineId) and rolls up into Order, which has (id)",
        cure="the child's without the last",
        line="into =",
    ),
    "roll-up into a key of another length": Planted(
        old='path = "orders/{orderId}"',
        new='path = "orders/{orderId}"\nkey_length = { orderId = 40 }',
        where="OrderLine.rollup.into",
        what="orderId may have 128 characters in OrderLine, and 40 in Order",
        cure="the same key_length",
        line="into =",
    ),
    "roll-up that keeps nothing": Planted(
        old=ROLLUP,
        new='[entity.rollup]\ninto = "Order"\n',
        where="OrderLine.rollup",
        what="keeps nothing in the parent",
        cure="Add count, latest or both.",
    ),
    "latest that copies nothing": Planted(
        old=LATEST,
        new='latest = { by = "addedAt", set = {} }\n',
        where="OrderLine.rollup.latest.set",
        what="copies nothing",
        cure="Name what to copy",
    ),
    "by no column": Planted(
        old=BY,
        new='by = "adedAt"',
        where="OrderLine.rollup.latest.by",
        what="OrderLine has no column 'adedAt'",
        cure="Did you mean 'addedAt'?",
    ),
    "by not required": Planted(
        old=BY,
        new='by = "title"',
        where="OrderLine.rollup.latest.by",
        what="column 'title' is not required",
        cure="Add required = true to title",
    ),
    "by without order": Planted(
        old='addedAt = { type = "timestamp", required = true }',
        new='addedAt = { type = "boolean", required = true }',
        where="OrderLine.rollup.latest.by",
        what="column 'addedAt' is of type boolean, which has no order",
        cure="timestamp, integer, string",
        line=BY,
    ),
    "source no column": Planted(
        old="title:20",
        new="titel:20",
        where="OrderLine.rollup.latest.set.lastTitle",
        what="no column or key part 'titel'",
        cure="Did you mean 'title'?",
    ),
    "source that cannot be cut": Planted(
        old="title:20",
        new="amount:20",
        where="OrderLine.rollup.latest.set.lastTitle",
        what="'amount' is of type double, which cannot be cut",
        cure="only string and text",
    ),
    "derived from nothing": Planted(
        old='first_of = ["lastLineAt", "placedAt"]',
        new="first_of = []",
        where="Order.derived.lastAt.first_of",
        what="has no source",
        cure="Name at least one column.",
    ),
    "derived from an unknown column": Planted(
        old='first_of = ["lastLineAt", "placedAt"]',
        new='first_of = ["lastLinAt", "placedAt"]',
        where="Order.derived.lastAt.first_of",
        what="Order has no column or roll-up column 'lastLinAt'",
        cure="Did you mean 'lastLineAt'?",
    ),
    "derived from a column twice": Planted(
        old='first_of = ["lastLineAt", "placedAt"]',
        new='first_of = ["placedAt", "placedAt"]',
        where="Order.derived.lastAt.first_of",
        what="names a source twice",
        cure="Name each once.",
    ),
    "derived from two types": Planted(
        old='first_of = ["lastLineAt", "placedAt"]',
        new='first_of = ["lastLineAt", "note"]',
        where="Order.derived.lastAt.first_of",
        what="of different types (lastLineAt timestamp, note text)",
        cure="Name columns of one type.",
    ),
    "reserved column": Planted(
        old=COLUMN,
        new='lastEventId = { type = "text" }',
        where="Order.columns.lastEventId",
        what="'lastEventId' is reserved: LastEventId",
        cure="Choose another name.",
    ),
    "reserved key part": Planted(
        old='path = "orders/{orderId}/lines/{lineId}"',
        new='path = "orders/{orderId}/lines/{outcome}"',
        where="OrderLine.path",
        what="'outcome' is reserved: Outcome",
        cure="Choose another name.",
    ),
    "reserved roll-up column": Planted(
        old='count = "lineCount"',
        new='count = "rowState"',
        where="OrderLine.rollup.count",
        what="'rowState' is reserved: RowState",
        cure="Choose another name.",
    ),
    "reserved table": Planted(
        old='name = "OrderReader"',
        new='name = "SchemaInfo"',
        where="Order.children.[0].name",
        what="'SchemaInfo' is reserved: SchemaInfo is a table of our own",
        cure="Choose another name.",
    ),
    "table of another's audit": Planted(
        old='name = "OrderLine"',
        new='name = "OrderAudit"',
        where="OrderAudit.name",
        what="entity OrderAudit has the name of audit table of Order",
        cure="Choose another name",
    ),
    "table of another's purge index": Planted(
        old='name = "OrderLine"',
        new='name = "OrderPurge"',
        where="OrderPurge.name",
        what="entity OrderPurge has the name of purge index of Order",
        cure="Choose another name",
    ),
    "child table of an entity's name": Planted(
        old='name = "OrderReader"',
        new='name = "OrderLINE"',
        where="OrderLine.name",
        what="entity OrderLine has the name of child table OrderLINE of Order",
        cure="Choose another name",
        line='name = "OrderLine"',
    ),
    "column of a key part's name": Planted(
        old=COLUMN,
        new='orderID = { type = "text" }',
        where="Order.columns.orderID",
        what="column orderID has the name of key part orderId",
        cure="upper and lower case make no difference",
    ),
    "roll-up column of a column's name": Planted(
        old='count = "lineCount"',
        new='count = "note"',
        where="OrderLine.rollup.count",
        what="roll-up column Order.note has the name of column note",
        cure="Choose another name",
    ),
    "derived column of a column's name": Planted(
        old="lastAt = {",
        new="note = {",
        where="Order.derived.note",
        what="derived column note has the name of column note",
        cure="Choose another name",
        line="note = { first_of",
    ),
    "child's key of a key part's name": Planted(
        old='key = "userId"',
        new='key = "orderId"',
        where="Order.children.[0].key",
        what="key of OrderReader has the name of key part orderId",
        cure="Choose another name",
    ),
    "child's column of its key's name": Planted(
        old="readAt = { type",
        new="userId = { type",
        where="Order.children.[0].columns.userId",
        what="column userId of OrderReader has the name of key of OrderReader",
        cure="Choose another name",
    ),
    "check name twice": Planted(
        old='check = "lines"',
        new='check = "orders" # twice',
        where="OrderLine.check",
        what="check of OrderLine has the name of check of Order",
        cure="Choose another name",
    ),
    "key length of no parameter": Planted(
        old='category = "shop"',
        new='category = "shop"\nkey_length = { orderID = 40 }',
        where="Order.key_length.orderID",
        what="the path has no parameter 'orderID'",
        cure="Did you mean 'orderId'?",
        line="key_length",
    ),
    "key longer than an index holds": Planted(
        old='category = "shop"',
        new='category = "shop"\nkey_length = { orderId = 601 }',
        where="Order.key_length",
        what="the key may be 729 characters long",
        cure="Set shorter ones with key_length",
        line="key_length",
    ),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_parts_that_do_not_fit_together_are_named(tmp_path: Path, planted: Planted) -> None:
    """The database would refuse them later, in words that name no line."""
    mistake = planted.mistake(tmp_path)
    assert mistake.line == planted.line_number
    assert planted.what in mistake.what
    assert planted.cure in mistake.cure


def test_two_entities_on_one_path_are_refused(tmp_path: Path) -> None:
    """A document has one row; parameters' names make no difference to which documents match."""
    twin = SHOP[SHOP.index("[[entity]]\n") : SHOP.index("[entity.columns]")]
    twin = twin.replace("Order", "Twin").replace("orders", "twins", 1)
    twin = twin.replace("{orderId}", "{twinId}").replace('"twins/', '"orders/')
    (mistake,) = mistakes_of(tmp_path, SHOP, twin)
    assert (mistake.where, mistake.line) == ("Twin.path", 4)
    assert "Order has the same documents" in mistake.what


def test_chained_rollups_are_refused(tmp_path: Path) -> None:
    """A roll-up of a roll-up would need locks on two levels, in an order nobody keeps."""
    piece = """\
[[entity]]
name = "Piece"
check = "pieces"
path = "orders/{orderId}/lines/{lineId}/pieces/{pieceId}"
category = "shop"
[entity.rollup]
into = "OrderLine"
count = "pieceCount"
"""
    (mistake,) = mistakes_of(tmp_path, SHOP, piece)
    assert (mistake.where, mistake.line) == ("Piece.rollup.into", 7)
    assert mistake.what == "OrderLine rolls up itself, into Order"


def test_two_rollups_into_one_parent_are_refused(tmp_path: Path) -> None:
    """Each would have to know the other's columns."""
    event = """\
[[entity]]
name = "OrderEvent"
check = "events"
path = "orders/{orderId}/events/{eventId}"
category = "shop"
[entity.rollup]
into = "Order"
count = "eventCount"
"""
    (mistake,) = mistakes_of(tmp_path, SHOP, event)
    assert (mistake.where, mistake.line) == ("OrderEvent.rollup.into", 7)
    assert mistake.what == "OrderLine already rolls up into Order"


@pytest.mark.parametrize(
    "path", ["storemirror-probe/{orderId}", "storemirror-probe/{p}/x/{orderId}"]
)
def test_a_path_of_our_own_is_refused(tmp_path: Path, path: str) -> None:
    """What StoreMirror does there by itself would call for the next event, and that for another."""
    text = SHOP.replace('"orders/{orderId}"', f'"{path}"')
    assert text != SHOP
    own = [m for m in mistakes_of(tmp_path, text) if "StoreMirror's own" in m.what]
    assert [m.where for m in own] == ["Order.path"]
    assert path in own[0].what
    assert "storemirror-probe/{probe}" in own[0].what
