"""Each mistake that one key of a declaration can hold is planted, and must be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.model.declarations import SHOP, model_of
from tests.unit.model.planted import Planted

COLUMN = 'note = { type = "text" }'
TABLES = SHOP[SHOP.index("[entity.columns]") : SHOP.index("\n[[entity]]")]
BY = 'by = "addedAt"'

PLANTED = {
    "unknown type": Planted(
        old=COLUMN,
        new='note = { type = "txet" }',
        where="Order.columns.note.type",
        what="unknown type 'txet'",
        cure="Did you mean 'text'? Known types are string, text, integer",
    ),
    "type is no string": Planted(
        old=COLUMN,
        new="note = { type = 3 }",
        where="Order.columns.note.type",
        what="must be a string",
        cure='type = "string"',
    ),
    "type missing": Planted(
        old=COLUMN,
        new="note = { }",
        where="Order.columns.note.type",
        what="is missing",
        cure='type = "string"',
    ),
    "unknown key of a column": Planted(
        old=COLUMN,
        new='note = { type = "text", requird = true }',
        where="Order.columns.note.requird",
        what="unknown key 'requird'",
        cure="Did you mean 'required'?",
    ),
    "unknown key of an entity": Planted(
        old='category = "shop"',
        new='category = "shop"\naudti = true',
        where="Order.audti",
        what="unknown key 'audti'",
        cure="Did you mean 'audit'?",
        line="audti",
    ),
    "unknown key of a child": Planted(
        old='from = "readerIds"',
        new='from = "readerIds"\nfield = "x"',
        where="Order.children.[0].field",
        what="unknown key 'field'",
        cure="Known are columns, from, key, name.",
        line="field =",
    ),
    "unknown key of a roll-up": Planted(
        old='count = "lineCount"',
        new='cuont = "lineCount"',
        where="OrderLine.rollup.cuont",
        what="unknown key 'cuont'",
        cure="Did you mean 'count'?",
    ),
    "check missing": Planted(
        old='check = "orders"',
        new="",
        where="Order.check",
        what="is missing",
        cure='check = "messages"',
        line="[[entity]]",
    ),
    "name missing": Planted(
        old='[[entity]]\nname = "OrderLine"',
        new="[[entity]] # without a name",
        where="entity 2.name",
        what="is missing",
        cure='name = "DmMessage"',
    ),
    "required is no boolean": Planted(
        old='note = { type = "text" }',
        new='note = { type = "text", required = "yes" }',
        where="Order.columns.note.required",
        what="must be true or false, not a string",
        cure="true or false",
    ),
    "columns is no table": Planted(
        old='[entity.columns]\nplacedAt = { type = "timestamp", required = true }\n' + COLUMN,
        new="columns = 3",
        where="Order.columns",
        what="must be a table, not a whole number",
        cure="a table of columns",
    ),
    "entity name not PascalCase": Planted(
        old='name = "Order"',
        new='name = "order_table"',
        where="entity 1.name",
        what="'order_table' is no table name",
        cure="PascalCase, as in DmMessage",
    ),
    "column name not camelCase": Planted(
        old=COLUMN,
        new='Note = { type = "text" }',
        where="Order.columns.Note",
        what="'Note' is no column name",
        cure="camelCase, as in sentAt",
    ),
    "column name with an underscore": Planted(
        old=COLUMN,
        new='no_te = { type = "text" }',
        where="Order.columns.no_te",
        what="'no_te' is no column name",
        cure="camelCase, as in sentAt",
    ),
    "name too long": Planted(
        old=COLUMN,
        new=f'{"aB" * 17} = {{ type = "text" }}',
        where=f"Order.columns.{'aB' * 17}",
        what="is 51 characters long once its words are joined by underscores",
        cure="At most 48 fit.",
    ),
    "check name with a comma": Planted(
        old='check = "orders"',
        new='check = "or,ders"',
        where="Order.check",
        what="'or,ders' is no name for --check=",
        cure="lower case, as in messages",
    ),
    "category of two words": Planted(
        old='category = "shop"',
        new='category = "the shop"',
        where="Order.category",
        what="'the shop' is no category",
        cure="one word",
    ),
    "path of a collection": Planted(
        old='path = "orders/{orderId}"',
        new='path = "orders"',
        where="Order.path",
        what="has 1 segments and so names a collection",
        cure="users/{userId}",
    ),
    "path with an empty segment": Planted(
        old='path = "orders/{orderId}"',
        new='path = "/orders/{orderId}"',
        where="Order.path",
        what="has an empty segment",
        cure="extra slash",
    ),
    "path with a literal id": Planted(
        old='path = "orders/{orderId}"',
        new='path = "orders/first"',
        where="Order.path",
        what="'first' stands for a document's id",
        cure="{firstId}",
    ),
    "path with a parameter for a collection": Planted(
        old='path = "orders/{orderId}"',
        new='path = "{shop}/{orderId}"',
        where="Order.path",
        what="'{shop}' stands for a collection",
        cure="Name the collection",
    ),
    "path with a bad parameter": Planted(
        old='path = "orders/{orderId}"',
        new='path = "orders/{order_id}"',
        where="Order.path",
        what="'order_id' is no column name",
        cure="camelCase",
    ),
    "path with a parameter twice": Planted(
        old='path = "orders/{orderId}/lines/{lineId}"',
        new='path = "orders/{orderId}/lines/{orderId}"',
        where="OrderLine.path",
        what="parameter 'orderId' stands twice",
        cure="Give each its own name.",
    ),
    "path into a collection of the system's": Planted(
        old='path = "orders/{orderId}"',
        new='path = "__orders__/{orderId}"',
        where="Order.path",
        what="Firestore has no collection '__orders__'",
        cure="__x__",
    ),
    "field with an empty part": Planted(
        old=COLUMN,
        new='note = { type = "text", field = "a..b" }',
        where="Order.columns.note.field",
        what="'a..b' has an empty part",
        cure='"profile.city"',
    ),
    "from empty": Planted(
        old='from = "readerIds"',
        new='from = ""',
        where="Order.children.[0].from",
        what="'' has an empty part",
        cure='"profile.city"',
    ),
    "from_map missing": Planted(
        old='readAt = { type = "timestamp", from_map = "readAt" }',
        new='readAt = { type = "timestamp" }',
        where="Order.children.[0].columns.readAt.from_map",
        what="is missing",
        cure="the map field",
    ),
    "type of a child's column": Planted(
        old='readAt = { type = "timestamp", from_map = "readAt" }',
        new='readAt = { type = "time", from_map = "readAt" }',
        where="Order.children.[0].columns.readAt.type",
        what="unknown type 'time'",
        cure="Did you mean 'timestamp'?",
    ),
    "length not positive": Planted(
        old="title:20",
        new="title:0",
        where="OrderLine.rollup.latest.set.lastTitle",
        what="'title:0' is no source",
        cure='"body:140"',
    ),
    "key length not positive": Planted(
        old='category = "shop"',
        new='category = "shop"\nkey_length = { orderId = 0 }',
        where="Order.key_length.orderId",
        what="should be greater than or equal to 1",
        cure="1 to 1500 characters",
        line="key_length",
    ),
    "by missing": Planted(
        old=BY + ",",
        new="",
        where="OrderLine.rollup.latest.by",
        what="is missing",
        cure='by = "sentAt"',
        line="latest =",
    ),
    "type of a column that others refer to": Planted(
        old='addedAt = { type = "timestamp", required = true }',
        new='addedAt = { type = "time", required = true }',
        where="OrderLine.columns.addedAt.type",
        what="unknown type 'time'",
        cure="Did you mean 'timestamp'?",
    ),
    "child is no table": Planted(
        old=f'category = "shop"\n{TABLES}',
        new='category = "shop"\nchildren = [3]\n',
        where="Order.children.[0]",
        what="must be a table, not a whole number",
        cure="Wanted: child tables",
        line="children",
    ),
    "collection longer than Firestore's": Planted(
        old='path = "orders/{orderId}"',
        new=f'path = "{"x" * 1501}/{{orderId}}"',
        where="Order.path",
        what="longer than 1,500 bytes",
        cure="Firestore allows none.",
    ),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_a_wrong_key_is_the_only_thing_reported(tmp_path: Path, planted: Planted) -> None:
    """What refers to a part that is wrong is not wrong itself: one mistake, one line."""
    mistake = planted.only_mistake(tmp_path)
    assert (mistake.where, mistake.line) == (planted.where, planted.line_number)
    assert planted.what in mistake.what
    assert planted.cure in mistake.cure


def test_the_shop_is_right_as_it_stands(tmp_path: Path) -> None:
    """Else a planted mistake would prove nothing."""
    assert [e.name for e in model_of(tmp_path, SHOP)] == ["Order", "OrderLine"]
