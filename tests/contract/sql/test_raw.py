"""`raw = true` keeps the document as Firestore has it, to the last bit."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storemirror.event.change import Change, Fields, Origin, Outcome, version_of
from storemirror.event.digest import digest_of
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.model.mapping import map_document
from storemirror.sql.port import MirrorRow, RowEvent
from tests.contract.sql.side_door import Installed, Server

THINGS = """
[[entity]]
name     = "Thing"
check    = "things"
path     = "things/{thingId}"
category = "sqlMirror"
raw      = true
[entity.columns]
text    = { type = "text" }
whole   = { type = "integer" }
number  = { type = "double" }
flag    = { type = "boolean" }
moment  = { type = "timestamp" }
data    = { type = "bytes" }
link    = { type = "reference" }
place   = { type = "geopoint" }
tree    = { type = "json" }
"""
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


@pytest.fixture
def things(tmp_path: Path) -> Model:
    """An entity with a column of every type, and the whole document."""
    file = tmp_path / "things.toml"
    file.write_text(THINGS)
    return load_model([file], with_builtin=False)


@pytest.fixture
async def thing_mirror(server: Server, things: Model) -> Installed:
    """A mirror of such documents."""
    return await server.installed(things)


def thing_event(sql: Installed, fields: Fields, base_us: int) -> RowEvent:
    """A document, mapped as the writer does."""
    entity = sql.model["Thing"]
    change = Change(
        path="things/t",
        version=version_of(base_us, is_deleted=False),
        origin=Origin.TRIGGER,
        observed_at_us=base_us,
        fields=fields,
        digest=digest_of(fields),
    )
    row = map_document(entity, fields, sql.mirror.limits)
    return RowEvent(entity=entity, change=change, key=("t",), row=row)


async def stored(sql: Installed, document: dict[str, object], base_us: int) -> MirrorRow:
    """Apply a document and read its row."""
    event = thing_event(sql, encode_fields(document), base_us)
    assert await sql.mirror.apply([event]) == [Outcome.APPLIED]
    row = await sql.mirror.row(sql.model["Thing"], ("t",))
    assert row is not None
    return row


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        math.nan,
        math.inf,
        -math.inf,
        5e-324,
        1.7976931348623157e308,
        0.1 + 0.2,
        2**63 - 1,
        -(2**63),
        "\0 \\u0000 \ufffd",
        "é e\u0301 \U0001f600 \u2028",
        None,
        [],
        {},
        [None, [1.0, -0.0], {"a": "\0"}],
        {"": {"b": None}, "\0": 1},
        b"\x00\xff",
        GeoPoint(-0.0, 180.0),
        Reference("projects/p/databases/d/documents/a/b"),
        MOMENT,
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_a_value_comes_back_bit_for_bit(
    value: object, thing_mirror: Installed, base_us: int
) -> None:
    """In no column of its own: what nobody declared is kept all the same."""
    fields = encode_fields({"undeclared": value})
    row = await stored(thing_mirror, {"undeclared": value}, base_us)
    assert row.raw is not None
    read = json.loads(row.raw)
    assert digest_of(read) == digest_of(fields)
    assert ascii(read) == ascii(fields)


async def test_null_and_missing_are_told_apart(thing_mirror: Installed, base_us: int) -> None:
    """In the column both are NULL."""
    row = await stored(thing_mirror, {"text": None}, base_us)
    assert row.columns["text"] is None
    assert json.loads(row.raw or "") == {"text": {"nullValue": None}}
    later = await stored(thing_mirror, {}, base_us + 1)
    assert later.columns["text"] is None
    assert json.loads(later.raw or "") == {}


async def test_a_deleted_document_s_text_is_gone(thing_mirror: Installed, base_us: int) -> None:
    """Erased means erased."""
    await stored(thing_mirror, {"text": "secret"}, base_us)
    entity = thing_mirror.model["Thing"]
    change = Change(
        path="things/t",
        version=version_of(base_us, is_deleted=True),
        origin=Origin.TRIGGER,
        observed_at_us=base_us,
        fields=None,
        digest="",
    )
    event = RowEvent(entity=entity, change=change, key=("t",), row=None)
    assert await thing_mirror.mirror.apply([event]) == [Outcome.APPLIED]
    row = await thing_mirror.mirror.row(entity, ("t",))
    assert row is not None
    assert row.raw is None
    assert set(row.columns.values()) == {None}


async def test_every_column_type_holds_its_value(thing_mirror: Installed, base_us: int) -> None:
    """Types that are mangled are what users of other mirrors complain about most."""
    row = await stored(
        thing_mirror,
        {
            "text": "é",
            "whole": -(2**63),
            "number": -0.0,
            "flag": False,
            "moment": MOMENT,
            "data": b"\x00\xff",
            "link": Reference("projects/p/databases/d/documents/a/b"),
            "place": GeoPoint(1.5, -2.0),
            "tree": {"a": [1, None, "x"]},
        },
        base_us,
    )
    columns = dict(row.columns)
    number = columns.pop("number")
    assert number == 0
    if thing_mirror.mirror.limits.holds_negative_zero:
        assert str(number) == "-0.0"
    assert columns == {
        "text": "é",
        "whole": -(2**63),
        "flag": False,
        "moment": MOMENT,
        "data": b"\x00\xff",
        "link": "projects/p/databases/d/documents/a/b",
        "place": {"latitude": 1.5, "longitude": -2.0},
        "tree": {"a": [1, None, "x"]},
    }


async def test_what_a_column_cannot_hold_is_named(thing_mirror: Installed, base_us: int) -> None:
    """The nearest value stands in the column, the true one in the document."""
    row = await stored(thing_mirror, {"text": "a\0b", "tree": {"k": "\0"}}, base_us)
    assert row.lossy_fields == ("text", "tree")
    assert row.columns["text"] == "a\ufffdb"
    assert json.loads(row.raw or "")["text"] == {"stringValue": "a\0b"}
