"""A document becomes a row: what goes in, what is refused, what is only the nearest value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from storemirror.errors import KeyRefused, MappingFailed
from storemirror.event.value import GeoPoint, Reference, canonical_fields, encode_fields
from storemirror.model.entity import Entity
from storemirror.model.load import load_model
from storemirror.model.mapping import JsonScalar, MappedRow, check_key, map_document
from storemirror.model.types import ColumnType, DialectLimits
from tests.unit.model.declarations import model_of

POSTGRES = DialectLimits(
    holds_nul=False, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)
SQL_SERVER = DialectLimits(
    holds_nul=True, holds_nan=False, holds_negative_zero=False, ignores_trailing_space=True
)
SECRET = "s3cret-contents"
#: One value of each kind, and the column types that take it.
KINDS: Mapping[str, tuple[dict[str, object], set[str]]] = {
    "string": ({"stringValue": SECRET}, {"string", "text"}),
    "integer": ({"integerValue": "7"}, {"integer", "double"}),
    "double": ({"doubleValue": 1.5}, {"double"}),
    "boolean": ({"booleanValue": False}, {"boolean"}),
    "timestamp": ({"timestampValue": "2026-01-01T00:00:00.000000Z"}, {"timestamp"}),
    "bytes": ({"bytesValue": "AAE="}, {"bytes"}),
    "reference": ({"referenceValue": "projects/p/x/" + SECRET}, {"reference"}),
    "geopoint": ({"geoPointValue": {"latitude": 1.0, "longitude": 2.0}}, {"geopoint"}),
    "array": ({"arrayValue": {"values": []}}, set()),
    "map": ({"mapValue": {"fields": {}}}, set()),
}


@pytest.fixture
def thing(tmp_path: Path) -> Entity:
    """An entity with one column of each type, and two nested ones."""
    columns = "".join(f'{t}Column = {{ type = "{t}", field = "{t}" }}\n' for t in ColumnType)
    text = f"""\
[[entity]]
name = "Thing"
check = "things"
path = "things/{{thingId}}"
category = "things"
raw = true
[entity.columns]
{columns}city = {{ type = "string", field = "profile.home.city" }}
"""
    return model_of(tmp_path, text)["Thing"]


@pytest.fixture
def reading(tmp_path: Path) -> Entity:
    """An entity whose required column is a double."""
    text = """\
[[entity]]
name = "Reading"
check = "readings"
path = "readings/{readingId}"
category = "readings"
[entity.columns]
degrees = { type = "double", required = true }
"""
    return model_of(tmp_path, text)["Reading"]


CONVERSATION = load_model()["DmConversation"]
MESSAGE = load_model()["DmMessage"]


def mapped(
    entity: Entity, document: Mapping[str, object], limits: DialectLimits = POSTGRES
) -> MappedRow:
    """Map a document of Python values."""
    return map_document(entity, encode_fields(document), limits)


def stored(
    entity: Entity, field: str, value: object, limits: DialectLimits = POSTGRES
) -> tuple[JsonScalar, bool]:
    """Give what one field becomes, and whether that is only the nearest value."""
    row = mapped(entity, {field: value}, limits)
    return row.columns[f"{field}Column"], f"{field}Column" in row.lossy_fields


def conversation(**fields: object) -> dict[str, object]:
    """Give canonical fields of a conversation."""
    created_at = {"createdAt": {"timestampValue": "2026-01-01T00:00:00Z"}}
    return dict(canonical_fields({**created_at, **fields}))


def test_a_message_becomes_its_row() -> None:
    """The whole happy path, spelled out."""
    fields = {
        "senderId": {"stringValue": "ada"},
        "body": {"stringValue": "hi"},
        "sentAt": {"timestampValue": "2026-01-01T00:00:00.000000Z"},
        "editedAt": {"nullValue": None},
        "attachments": {"arrayValue": {"values": [{"stringValue": "a.png"}]}},
        "unknown": {"stringValue": "is not mirrored"},
    }
    assert map_document(MESSAGE, fields, POSTGRES) == MappedRow(
        columns={
            "senderId": "ada",
            "body": "hi",
            "sentAt": "2026-01-01T00:00:00.000000Z",
            "editedAt": None,
            "attachments": '["a.png"]',
        },
        children={},
        raw=None,
        lossy_fields=(),
    )


@pytest.mark.parametrize("limits", [POSTGRES, SQL_SERVER], ids=["postgres", "sqlserver"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("declared", [t.value for t in ColumnType if t is not ColumnType.JSON])
def test_a_column_takes_its_own_kind_and_no_other(
    thing: Entity, declared: str, kind: str, limits: DialectLimits
) -> None:
    """A value of another type is a dead letter that names field and both types, no contents."""
    value, takers = KINDS[kind]
    if declared in takers:
        row = map_document(thing, {declared: value}, limits)
        assert row.columns[f"{declared}Column"] is not None
        return
    with pytest.raises(MappingFailed) as caught:
        map_document(thing, {declared: value}, limits, event_id="e1", path="things/t1")
    assert str(caught.value) == (
        f"field {declared}: declared {declared}, found {kind} (event e1, document things/t1)"
    )
    assert (caught.value.event_id, caught.value.path) == ("e1", "things/t1")


@pytest.mark.parametrize("declared", [t.value for t in ColumnType])
def test_null_and_missing_are_both_null(thing: Entity, declared: str) -> None:
    """SQL has one NULL; `raw` keeps the difference."""
    for fields in ({}, {declared: {"nullValue": None}}):
        row = map_document(thing, fields, POSTGRES)
        assert row.columns[f"{declared}Column"] is None
        assert len(row.columns) == len(thing.columns)


@pytest.mark.parametrize("fields", [{}, {"sentAt": {"nullValue": None}}])
def test_a_required_field_must_be_there(fields: dict[str, object]) -> None:
    """Else the database would refuse the row, and its batch with it."""
    document = {"senderId": {"stringValue": SECRET}, **fields}
    with pytest.raises(MappingFailed, match=r"^field sentAt: required \(timestamp\), and there"):
        map_document(MESSAGE, document, POSTGRES)


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_integers_keep_all_64_bits(thing: Entity, value: int, column: str) -> None:
    """A JSON number would lose what lies above 2^53."""
    assert stored(thing, "integer", value) == (column, False)


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (3, "3.0"),
        (2**53, "9007199254740992.0"),
        (-(2**63), "-9.223372036854776e+18"),
    ],
)
def test_doubles_travel_as_their_shortest_exact_text(
    thing: Entity, value: float, column: str
) -> None:
    """Firestore's clients write whole doubles as integers."""
    assert stored(thing, "double", value) == (column, False)


@pytest.mark.parametrize("value", [2**53 + 1, 2**63 - 1])
def test_an_integer_that_no_double_holds_is_refused(thing: Entity, value: int) -> None:
    """It would be another number in SQL, and nobody would know."""
    with pytest.raises(MappingFailed, match="declared double, found integer that no double holds"):
        stored(thing, "double", value)


@pytest.mark.parametrize(
    ("value", "in_postgres", "in_sql_server"),
    [
        (math.nan, ("NaN", False), (None, True)),
        (math.inf, ("Infinity", False), ("1.7976931348623157e+308", True)),
        (-math.inf, ("-Infinity", False), ("-1.7976931348623157e+308", True)),
        (-0.0, ("-0.0", False), ("0.0", True)),
        (0.0, ("0.0", False), ("0.0", False)),
    ],
)
def test_a_double_that_the_database_cannot_hold_becomes_the_nearest(
    thing: Entity,
    value: float,
    in_postgres: tuple[str, bool],
    in_sql_server: tuple[str | None, bool],
) -> None:
    """The checker must know that the row is not what the document says."""
    assert stored(thing, "double", value) == in_postgres
    assert stored(thing, "double", value, SQL_SERVER) == in_sql_server


def test_nan_in_a_required_column_that_cannot_hold_it_is_refused(reading: Entity) -> None:
    """NULL would break the table's own rule."""
    assert mapped(reading, {"degrees": math.nan}).columns == {"degrees": "NaN"}
    with pytest.raises(MappingFailed, match="there is nothing to store"):
        mapped(reading, {"degrees": math.nan}, SQL_SERVER)


@pytest.mark.parametrize("field", ["string", "text"])
def test_nul_in_text_is_replaced_where_it_cannot_be_held(thing: Entity, field: str) -> None:
    """One character must not let a user block the mirror."""
    assert stored(thing, field, "a\0b") == ("a\ufffdb", True)
    assert stored(thing, field, "a\0b", SQL_SERVER) == ("a\0b", False)


def test_nul_in_a_reference_is_replaced_where_it_cannot_be_held(thing: Entity) -> None:
    """Ids may hold any character."""
    assert stored(thing, "reference", Reference("x/\0")) == ("x/\ufffd", True)
    assert stored(thing, "reference", Reference("x/\0"), SQL_SERVER) == ("x/\0", False)


def test_lossy_fields_are_sorted(thing: Entity) -> None:
    """Two mappings of one document must give the same row."""
    row = mapped(thing, {"text": "\0", "json": math.nan, "string": "\0"})
    assert row.lossy_fields == ("jsonColumn", "stringColumn", "textColumn")


def test_a_geopoint_becomes_json(thing: Entity) -> None:
    """SQL has no common type for it."""
    text = '{"latitude":48.2,"longitude":16.4}'
    assert stored(thing, "geopoint", GeoPoint(48.2, 16.4)) == (text, False)
    zero = '{"latitude":0.0,"longitude":16.4}'
    assert stored(thing, "geopoint", GeoPoint(-0.0, 16.4)) == (zero, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"stringValue": "hi"}, '"hi"'),
        ({"booleanValue": True}, "true"),
        ({"integerValue": "9007199254740993"}, "9007199254740993"),
        ({"integerValue": "-9223372036854775808"}, "-9223372036854775808"),
        ({"doubleValue": 1.0}, "1.0"),
        ({"timestampValue": "2026-01-01T00:00:00.000001Z"}, '"2026-01-01T00:00:00.000001Z"'),
        ({"bytesValue": "AAE="}, '"AAE="'),
        ({"referenceValue": "projects/p"}, '"projects/p"'),
        ({"arrayValue": {"values": [{"nullValue": None}]}}, "[null]"),
        (
            {"geoPointValue": {"latitude": 1.5, "longitude": 2.5}},
            '{"latitude":1.5,"longitude":2.5}',
        ),
        (
            {
                "mapValue": {
                    "fields": {"b": {"integerValue": "1"}, "a": {"mapValue": {"fields": {}}}}
                }
            },
            '{"a":{},"b":1}',
        ),
    ],
)
def test_json_columns_take_any_value_as_plain_json(
    thing: Entity, value: dict[str, object], text: str
) -> None:
    """SQL's JSON functions work on plain JSON, not on Firestore's typed form."""
    row = map_document(thing, {"json": value}, POSTGRES)
    assert (row.columns["jsonColumn"], row.lossy_fields) == (text, ())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        ([math.inf, -math.inf], "[null,null]"),
        ([-0.0], "[0.0]"),
        ({"a\0": "b\0"}, '{"a\ufffd":"b\ufffd"}'),
        ([{"deep": ["\0"]}], '[{"deep":["\ufffd"]}]'),
    ],
)
def test_json_that_cannot_hold_a_value_says_so(thing: Entity, value: object, text: str) -> None:
    """JSON has no NaN, jsonb no negative zero and no NUL."""
    assert stored(thing, "json", value) == (text, True)


def test_json_keeps_nul_where_it_can_be_held(thing: Entity) -> None:
    """What is not lost is not called lossy."""
    text, is_lossy = stored(thing, "json", {"a\0": "\0"}, SQL_SERVER)
    assert (json.loads(str(text)), is_lossy) == ({"a\0": "\0"}, False)


@pytest.mark.parametrize(
    ("profile", "city"),
    [
        (
            {
                "mapValue": {
                    "fields": {"home": {"mapValue": {"fields": {"city": {"stringValue": "Graz"}}}}}
                }
            },
            "Graz",
        ),
        ({"mapValue": {"fields": {"home": {"mapValue": {"fields": {}}}}}}, None),
        ({"mapValue": {"fields": {"home": {"nullValue": None}}}}, None),
        ({"mapValue": {"fields": {}}}, None),
        ({"nullValue": None}, None),
    ],
)
def test_a_field_may_lie_in_maps(
    thing: Entity, profile: dict[str, object], city: str | None
) -> None:
    """A missing map is a missing field."""
    assert map_document(thing, {"profile": profile}, POSTGRES).columns["city"] == city


def test_what_should_be_a_map_and_is_none_is_named(thing: Entity) -> None:
    """The field on the way is at fault, not the one that was looked for."""
    fields = {"profile": {"mapValue": {"fields": {"home": {"stringValue": SECRET}}}}}
    with pytest.raises(MappingFailed, match=r"^field profile\.home: declared map, found string"):
        map_document(thing, fields, POSTGRES)


def test_a_nested_field_of_another_kind_is_named_in_full(thing: Entity) -> None:
    """`city` alone would not say where to look."""
    home = {"mapValue": {"fields": {"city": {"integerValue": "1"}}}}
    fields = {"profile": {"mapValue": {"fields": {"home": home}}}}
    with pytest.raises(MappingFailed, match=r"^field profile\.home\.city: declared string, found"):
        map_document(thing, fields, POSTGRES)


def test_raw_is_the_whole_document_in_canonical_form(thing: Entity) -> None:
    """Fields that no column takes are kept as well, in one spelling."""
    fields = {"b": {"doubleValue": -0.0}, "a": {"stringValue": "\0"}}
    row = map_document(thing, fields, POSTGRES)
    assert row.raw == '{"a":{"stringValue":"\\u0000"},"b":{"doubleValue":-0.0}}'
    assert row.lossy_fields == ()


def test_one_row_an_element_in_the_arrays_order() -> None:
    """An element twice is one participant."""
    fields = conversation(
        participantIds={"arrayValue": {"values": [{"stringValue": s} for s in "baab"]}},
        lastReadAt={
            "mapValue": {
                "fields": {
                    "a": {"timestampValue": "2026-01-02T00:00:00Z"},
                    "b": {"nullValue": None},
                    "gone": {"timestampValue": "2026-01-03T00:00:00Z"},
                }
            }
        },
    )
    row = map_document(CONVERSATION, fields, POSTGRES)
    assert row.children == {
        "DmParticipant": [
            {"userId": "b", "lastReadAt": None},
            {"userId": "a", "lastReadAt": "2026-01-02T00:00:00.000000Z"},
        ]
    }


def test_one_row_a_key_of_a_map() -> None:
    """Apps keep participants as a map as often as an array."""
    fields = conversation(participantIds={"mapValue": {"fields": {"a": {"booleanValue": True}}}})
    row = map_document(CONVERSATION, fields, POSTGRES)
    assert row.children == {"DmParticipant": [{"userId": "a", "lastReadAt": None}]}


@pytest.mark.parametrize(
    "fields",
    [{}, {"participantIds": {"nullValue": None}}, {"participantIds": {"arrayValue": {}}}],
)
def test_no_elements_are_no_rows(fields: dict[str, object]) -> None:
    """The table is still named: rows that are there must go."""
    row = map_document(CONVERSATION, conversation(**fields), POSTGRES)
    assert row.children == {"DmParticipant": []}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"stringValue": SECRET}, "field participantIds: declared array of strings, or map, found"),
        (
            {"arrayValue": {"values": [{"stringValue": "a"}, {"integerValue": "7"}]}},
            "field participantIds[1]: declared string, found integer",
        ),
        ({"arrayValue": {"values": [{"stringValue": ""}]}}, "userId of DmParticipant, is empty"),
        (
            {"arrayValue": {"values": [{"stringValue": "a\0"}]}},
            "userId of DmParticipant, holds U+0000",
        ),
        (
            {"mapValue": {"fields": {"x" * 129: {"nullValue": None}}}},
            "has 129 characters, and at most 128 are declared",
        ),
    ],
)
def test_what_cannot_be_the_key_of_a_child_is_refused(
    value: dict[str, object], message: str
) -> None:
    """A key cannot be replaced by the nearest one: it would be another row's."""
    with pytest.raises(MappingFailed) as caught:
        map_document(CONVERSATION, conversation(participantIds=value), POSTGRES)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_childs_column_of_another_kind_is_named_without_its_key() -> None:
    """Keys of maps are contents: user ids, often."""
    fields = conversation(
        participantIds={"arrayValue": {"values": [{"stringValue": SECRET}]}},
        lastReadAt={"mapValue": {"fields": {SECRET: {"stringValue": SECRET}}}},
    )
    with pytest.raises(MappingFailed) as caught:
        map_document(CONVERSATION, fields, POSTGRES)
    assert "field lastReadAt.<userId>: declared timestamp, found string" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_childs_lossy_column_is_named_with_its_table(tmp_path: Path) -> None:
    """The entity may have a column of the same name."""
    text = """\
[[entity]]
name = "Room"
check = "rooms"
path = "rooms/{roomId}"
category = "rooms"
[[entity.children]]
name = "RoomGuest"
key = "userId"
from = "guests"
[entity.children.columns]
nick = { type = "string", from_map = "nicks" }
"""
    room = model_of(tmp_path, text)["Room"]
    row = mapped(room, {"guests": ["a", "b"], "nicks": {"a": "\0", "b": "\0"}})
    assert row.children["RoomGuest"][1] == {"userId": "b", "nick": "\ufffd"}
    assert row.lossy_fields == ("RoomGuest.nick",)


@pytest.mark.parametrize(
    ("key", "limits", "fault"),
    [
        (("c1", ""), POSTGRES, "key part messageId is empty"),
        (("c1", "x" * 129), POSTGRES, "key part messageId has 129 characters"),
        (("c\0", "m1"), POSTGRES, "key part conversationId holds U+0000"),
        (("c\0", "m1"), SQL_SERVER, "key part conversationId holds U+0000"),
        (("c1 ", "m1"), SQL_SERVER, "key part conversationId ends in a space"),
    ],
)
def test_an_id_that_cannot_be_a_key_is_refused(
    key: tuple[str, str], limits: DialectLimits, fault: str
) -> None:
    """Cut or trimmed it would be another document's key."""
    with pytest.raises(KeyRefused, match=re.escape(fault)) as caught:
        check_key(MESSAGE, key, limits, event_id="e1", path="conversations/c1/messages/m1")
    assert caught.value.event_id == "e1"


def test_ids_are_measured_in_code_points() -> None:
    """A database that counts code points takes 128 of them, however long they are in bytes."""
    check_key(MESSAGE, ("😀" * 128, "m1 "), POSTGRES)


def test_a_key_of_another_entity_is_a_bug() -> None:
    """It must not pass half-checked."""
    with pytest.raises(ValueError, match="zip"):
        check_key(MESSAGE, ("c1",), POSTGRES)
