"""Values: one canonical form whoever the sender is, and a named field for whatever is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import cast

import msgspec
import pytest
from hypothesis import given

from storemirror.event.change import Fields, Value
from storemirror.event.value import (
    MAX_DEPTH,
    GeoPoint,
    Reference,
    ValueInvalid,
    canonical_fields,
    canonical_value,
    encode_fields,
    encode_value,
)
from tests.unit.event.documents import DOCUMENT, VALUE


def as_sent(fields: Fields) -> Fields:
    """Send fields through JSON, as a bus does."""
    return msgspec.json.decode(msgspec.json.encode(fields), type=dict[str, dict[str, object]])


def nested(depth: int) -> Value:
    """Give a value with so many arrays around it."""
    value: Value = {"nullValue": None}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def python_of(value: Value) -> object:
    """Read a canonical value back, by rules written down a second time."""
    (kind, content), *_ = value.items()
    match kind, content:
        case "arrayValue", {"values": list(items)}:
            return [python_of(item) for item in items]
        case "mapValue", {"fields": dict(fields)}:
            return {name: python_of(item) for name, item in fields.items()}
        case "integerValue", str(digits):
            return int(digits)
        case "doubleValue", number:
            return float(cast("float | str", number))
        case "timestampValue", str(text):
            return datetime.fromisoformat(text)
        case "bytesValue", str(text):
            return msgspec.json.decode(f'"{text}"', type=bytes)
        case "referenceValue", str(name):
            return Reference(name)
        case "geoPointValue", {"latitude": float(latitude), "longitude": float(longitude)}:
            return GeoPoint(latitude, longitude)
    return content


def same(left: object, right: object) -> bool:
    """Compare exactly: NaN equals NaN, -0.0 is not 0.0, 1 is not True."""
    if isinstance(left, float) and isinstance(right, float):
        return repr(left) == repr(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return type(left) is type(right) and left == right


@given(VALUE)
def test_every_value_comes_back_exactly_as_it_was(value: object) -> None:
    """int64, microseconds, NaN, -0.0, bytes, references and places survive."""
    assert same(python_of(encode_value(value)), value)


@given(DOCUMENT)
def test_what_is_encoded_is_canonical_already(document: dict[str, object]) -> None:
    """A dual write and the trigger must send the same bytes, hence the same digest."""
    fields = encode_fields(document)
    assert same(canonical_fields(fields), fields)


@given(DOCUMENT)
def test_the_canonical_form_survives_json(document: dict[str, object]) -> None:
    """What a writer decodes has the digest that the trigger took."""
    fields = encode_fields(document)
    assert same(canonical_fields(as_sent(fields)), fields)


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ({"nullValue": "NULL_VALUE"}, {"nullValue": None}),
        ({"integerValue": 7}, {"integerValue": "7"}),
        ({"integerValue": "-0"}, {"integerValue": "0"}),
        ({"integerValue": "007"}, {"integerValue": "7"}),
        ({"doubleValue": 3}, {"doubleValue": 3.0}),
        ({"doubleValue": math.nan}, {"doubleValue": "NaN"}),
        ({"doubleValue": math.inf}, {"doubleValue": "Infinity"}),
        ({"doubleValue": -math.inf}, {"doubleValue": "-Infinity"}),
        ({"doubleValue": "NaN"}, {"doubleValue": "NaN"}),
        (
            {"timestampValue": "2026-01-01T01:00:00.123456789+01:00"},
            {"timestampValue": "2026-01-01T00:00:00.123456Z"},
        ),
        ({"bytesValue": "YR=="}, {"bytesValue": "YQ=="}),
        ({"arrayValue": {}}, {"arrayValue": {"values": []}}),
        ({"mapValue": {}}, {"mapValue": {"fields": {}}}),
        ({"geoPointValue": {}}, {"geoPointValue": {"latitude": 0.0, "longitude": 0.0}}),
        (
            {"geoPointValue": {"latitude": 1, "longitude": -0.0}},
            {"geoPointValue": {"latitude": 1.0, "longitude": -0.0}},
        ),
        ({"referenceValue": "projects/p"}, {"referenceValue": "projects/p"}),
        ({"stringValue": "\u0000é"}, {"stringValue": "\u0000é"}),
        ({"booleanValue": False}, {"booleanValue": False}),
    ],
    ids=str,
)
def test_spellings_of_one_value_have_one_form(sent: Value, canonical: Value) -> None:
    """REST, gRPC and emulator spell the same value differently; its digest must be one."""
    assert same(canonical_value(sent), canonical)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (3, "a value is an object with exactly one key"),
        ({}, "a value is an object with exactly one key"),
        ({"nullValue": None, "booleanValue": True}, "a value is an object with exactly one key"),
        ({"moneyValue": 3}, "unknown kind of value 'moneyValue'"),
        ({3: 3}, "unknown kind of value 3"),
        ({"nullValue": 0}, "a nullValue is null"),
        ({"booleanValue": 1}, "a booleanValue is true or false"),
        ({"integerValue": True}, "an integerValue is a decimal string"),
        ({"integerValue": 1.0}, "an integerValue is a decimal string"),
        ({"integerValue": "1_000"}, "an integerValue is a decimal string"),
        ({"integerValue": " 1"}, "an integerValue is a decimal string"),
        ({"integerValue": "\u0661"}, "an integerValue is a decimal string"),
        ({"integerValue": "9" * 5000}, "an integerValue is a decimal string"),
        ({"integerValue": str(2**63)}, "an integerValue has 64 bits"),
        ({"integerValue": -(2**63) - 1}, "an integerValue has 64 bits"),
        ({"doubleValue": True}, "a doubleValue is a number, NaN, Infinity or -Infinity"),
        ({"doubleValue": "1.5"}, "a doubleValue is a number, NaN, Infinity or -Infinity"),
        ({"doubleValue": 10**400}, "a doubleValue has 64 bits"),
        ({"stringValue": 3}, "a string was expected"),
        ({"stringValue": "\ud800"}, "half of a surrogate pair is no character"),
        ({"referenceValue": None}, "a string was expected"),
        ({"timestampValue": 3}, "a timestampValue is an RFC 3339 time"),
        ({"timestampValue": "2026-01-01T00:00:00"}, "a timestampValue is an RFC 3339 time"),
        ({"timestampValue": "2026-01-01"}, "a timestampValue is an RFC 3339 time"),
        ({"timestampValue": "0001-01-01T00:00:00+01:00"}, "a timestampValue is an RFC 3339 time"),
        ({"bytesValue": "a"}, "a bytesValue is base64"),
        ({"bytesValue": "-_-_"}, "a bytesValue is base64"),
        ({"geoPointValue": 3}, "a geoPointValue has latitude and longitude"),
        ({"geoPointValue": {"latitude": "NaN"}}, "a geoPointValue has finite coordinates"),
        ({"geoPointValue": {"latitude": None}}, "a doubleValue is a number"),
        ({"arrayValue": []}, "expected an object with 'values'"),
        ({"arrayValue": {"values": {}}}, "expected an object with 'values'"),
        ({"mapValue": {"fields": []}}, "expected an object with 'fields'"),
        ({"mapValue": {"fields": {3: {"nullValue": None}}}}, "the name of a field is a string"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_what_is_no_value_is_refused_with_its_field(sent: object, message: str) -> None:
    """Such an event is dead-lettered; a person must find the field from the message."""
    with pytest.raises(ValueInvalid, match=f"^body: {re.escape(message)}"):
        canonical_fields({"body": sent})


def test_the_message_names_the_innermost_field() -> None:
    """A document may hold hundreds of values; the path to the wrong one is what helps."""
    inner = {"arrayValue": {"values": [{"nullValue": None}, {"booleanValue": "yes"}]}}
    with pytest.raises(ValueInvalid, match=r"^a\.b\[1\]: a booleanValue"):
        canonical_fields({"a": {"mapValue": {"fields": {"b": inner}}}})


def test_a_refusal_never_shows_contents() -> None:
    """Messages end in logs and dead letters; what users wrote must not."""
    for kind in ("timestampValue", "bytesValue", "integerValue", "doubleValue", "booleanValue"):
        with pytest.raises(ValueInvalid) as caught:
            canonical_value({kind: "secret!"})
        assert "secret" not in str(caught.value)


def test_half_a_surrogate_pair_in_a_name_is_refused() -> None:
    """JSON cannot carry it: the digest would fail long after the document was taken."""
    for refused in (
        {"\ud800": {"nullValue": None}},
        {"m": {"mapValue": {"fields": {"\ud800": 1}}}},
    ):
        with pytest.raises(ValueInvalid, match="half of a surrogate pair"):
            canonical_fields(refused)


def test_nesting_is_bounded_both_ways() -> None:
    """A hostile document must end in a refusal, not in the interpreter's stack."""
    assert canonical_value(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(ValueInvalid, match=f"nested deeper than {MAX_DEPTH}"):
        canonical_value(nested(MAX_DEPTH + 1))
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ValueInvalid, match=f"nested deeper than {MAX_DEPTH}"):
        encode_value(endless)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (..., "v: Firestore has no value of type ellipsis"),
        (bytearray(b"x"), "v: Firestore has no value of type bytearray"),
        ({1, 2}, "v: Firestore has no value of type set"),
        (2**63, "v: an integerValue has 64 bits"),
        ("\udfff", "v: half of a surrogate pair"),
        (Reference("\udfff"), "v: half of a surrogate pair"),
        (GeoPoint(math.nan, 0.0), "v: a geoPointValue has finite coordinates"),
        (datetime(2026, 1, 1), "v: a time needs a time zone"),  # noqa: DTZ001 - the planted fault
        ({1: "a", "1": "b"}, "v: the name of a field is a string"),
        ([[...]], r"v\[0\]\[0\]: Firestore has no value of type ellipsis"),
        ({"w": ...}, r"v\.w: Firestore has no value of type ellipsis"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_a_python_value_that_firestore_has_not_is_refused(value: object, message: str) -> None:
    """Guessing a type would mangle it silently."""
    with pytest.raises(ValueInvalid, match=f"^{message}"):
        encode_fields({"v": value})


def test_booleans_are_no_integers() -> None:
    """In Python they are; in Firestore they are another type."""
    assert encode_value(True) == {"booleanValue": True}


def test_a_tuple_is_an_array_and_a_time_of_any_zone_is_utc() -> None:
    """The documents of a program come in the types that it has."""
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert encode_value((moment,)) == {
        "arrayValue": {"values": [{"timestampValue": "2026-01-01T00:00:00.000000Z"}]}
    }
