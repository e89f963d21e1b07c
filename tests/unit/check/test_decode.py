"""The checker's own reading of a document: what its row must hold."""

from __future__ import annotations

import dataclasses
import math
import sys

import pytest

from storemirror.check.decode import (
    ExpectedRow,
    Undeliverable,
    decode_document,
    refused_key_part,
)
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.model.types import DialectLimits
from tests.unit.check.samples import (
    KEY,
    MOMENT,
    ORDER,
    POOREST,
    POSTGRES,
    RICHEST,
    full_children,
    full_columns,
    full_fields,
)


def decoded(document: dict[str, object], limits: DialectLimits = POSTGRES) -> ExpectedRow:
    """Decode a document that must fit; a buyer is added."""
    found = decode_document(ORDER, KEY, encode_fields({"buyer": "ann"} | document), limits)
    assert isinstance(found, ExpectedRow)
    return found


def misfit(document: dict[str, object], limits: DialectLimits = POSTGRES) -> str:
    """Decode a document that must not fit, and give the field that keeps it out."""
    found = decode_document(ORDER, KEY, encode_fields({"buyer": "ann"} | document), limits)
    assert isinstance(found, Undeliverable)
    return found.field


def test_every_type_has_its_python_value() -> None:
    """The row is compared value by value; a wrong reading here would accuse every row."""
    found = decode_document(ORDER, KEY, full_fields(), POSTGRES)
    assert found == ExpectedRow(
        columns=full_columns(), children=full_children(), raw=full_fields(), lossy_fields=()
    )


def test_an_entity_without_raw_expects_none() -> None:
    """The whole document is only kept where that was declared."""
    entity = dataclasses.replace(ORDER, has_raw=False)
    found = decode_document(entity, KEY, full_fields(), POSTGRES)
    assert isinstance(found, ExpectedRow)
    assert found.raw is None


def test_null_and_missing_are_both_null() -> None:
    """A column cannot tell them apart; the raw document can."""
    found = decoded({"note": None, "address": {"home": None}, "tags": None, "weights": None})
    assert found.columns["note"] is None
    assert found.columns["count"] is None
    assert found.columns["city"] is None
    assert found.children == {"OrderTag": {}, "OrderLine": {}}


def test_a_null_in_a_childs_map_is_null() -> None:
    """Null in the map and no entry in the map read the same."""
    found = decoded({"tags": ["a"], "weights": {"a": None}})
    assert found.children["OrderTag"] == {"a": {"weight": None, "label": None}}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"buyer": None}, "buyer"),
        ({"buyer": 1}, "buyer"),
        ({"note": True}, "note"),
        ({"count": 1.0}, "count"),
        ({"price": "12"}, "price"),
        ({"price": 2**53 + 1}, "price"),
        ({"isPaid": 1}, "isPaid"),
        ({"paidAt": "2026-01-01T00:00:00Z"}, "paidAt"),
        ({"proof": "x"}, "proof"),
        ({"product": "products/1"}, "product"),
        ({"place": {"latitude": 1.0, "longitude": 2.0}}, "place"),
        ({"address": {"home": "Bern"}}, "city"),
        ({"tags": "new"}, "OrderTag.tag"),
        ({"tags": ["new", 1]}, "OrderTag.tag"),
        ({"tags": ["much too long"]}, "OrderTag.tag"),
        ({"tags": ["\0"]}, "OrderTag.tag"),
        ({"tags": ["a"], "weights": {"a": "x"}}, "OrderTag.weight"),
        ({"tags": ["a"], "weights": ["a"]}, "OrderTag.weight"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_makes_the_document_undeliverable(
    document: dict[str, object], field: str
) -> None:
    """Such a document has a dead letter; a row without the field would be a silent loss."""
    assert misfit(document) == field


def test_a_missing_required_field_makes_the_document_undeliverable() -> None:
    """A live row must have it."""
    found = decode_document(ORDER, KEY, {}, POSTGRES)
    assert found == Undeliverable(field="buyer")


@pytest.mark.parametrize(
    ("key", "limits", "refused"),
    [
        (("s1", "o1"), POSTGRES, None),
        (("s" * 128, "o" * 8), POSTGRES, None),
        (("s" * 129, "o1"), POSTGRES, "shopId"),
        (("s1", "o" * 9), POSTGRES, "orderId"),
        (("s1", "\U0001f600" * 8), POSTGRES, None),
        (("s\0", "o1"), POSTGRES, "shopId"),
        (("s\0", "o1"), RICHEST, "shopId"),
        (("s1", "o "), POSTGRES, None),
        (("s1", "o "), POOREST, "orderId"),
        (("s1", ""), RICHEST, "orderId"),
    ],
    ids=str,
)
def test_an_id_that_cannot_be_a_key_is_named(
    key: tuple[str, str], limits: DialectLimits, refused: str | None
) -> None:
    """Lengths are counted in code points, as the database counts them."""
    assert refused_key_part(ORDER, key, limits) == refused
    found = decode_document(ORDER, key, full_fields(), limits)
    assert (found.field if isinstance(found, Undeliverable) else None) == refused


def test_nul_in_text_becomes_the_replacement_character() -> None:
    """PostgreSQL refuses U+0000; one character must not keep a message out of the mirror."""
    name = Reference("a\0b")
    found = decoded(
        {"note": "a\0b\0", "product": name, "tags": ["a"], "info": {"labels": {"a": "\0"}}}
    )
    assert found.columns["note"] == "a\ufffdb\ufffd"
    assert found.columns["product"] == "a\ufffdb"
    assert found.children["OrderTag"]["a"]["label"] == "\ufffd"
    assert found.lossy_fields == ("OrderTag.label", "note", "product")


def test_a_database_that_holds_nul_gets_it() -> None:
    """What can be held is not replaced."""
    found = decoded({"note": "a\0b"}, RICHEST)
    assert (found.columns["note"], found.lossy_fields) == ("a\0b", ())


@pytest.mark.parametrize(
    ("number", "nearest"),
    [
        (math.inf, sys.float_info.max),
        (-math.inf, -sys.float_info.max),
        (math.nan, None),
        (-0.0, 0.0),
    ],
    ids=str,
)
def test_a_double_that_cannot_be_held_has_a_nearest_value(
    number: float, nearest: float | None
) -> None:
    """The checker knows the loss by itself, and expects the row to own up to it."""
    found = decoded({"price": number}, POOREST)
    assert repr(found.columns["price"]) == repr(nearest)
    assert found.lossy_fields == ("price",)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, -0.0, 5e-324], ids=str)
def test_a_double_that_can_be_held_is_kept(number: float) -> None:
    """PostgreSQL's double precision holds every double."""
    found = decoded({"price": number})
    assert repr(found.columns["price"]) == repr(number)
    assert found.lossy_fields == ()


def test_an_integer_in_a_double_column_becomes_the_double() -> None:
    """Firestore clients write 12 where they mean 12.0."""
    assert repr(decoded({"price": 12}).columns["price"]) == "12.0"


def test_json_keeps_what_json_can_hold() -> None:
    """Integers stay exact, beyond 2^53 as well; a double stays a double."""
    value = {"n": 2**63 - 1, "d": 3.0, "g": GeoPoint(1.0, -2.0), "r": Reference("a/b")}
    found = decoded({"extra": value})
    assert found.columns["extra"] == {
        "n": 2**63 - 1,
        "d": 3.0,
        "g": {"latitude": 1.0, "longitude": -2.0},
        "r": "a/b",
    }
    assert found.lossy_fields == ()


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (math.nan, None),
        (math.inf, None),
        ([1, -0.0], [1, 0.0]),
        ({"a": {"b": "x\0"}}, {"a": {"b": "x\ufffd"}}),
        ({"a\0": 1}, {"a\ufffd": 1}),
        ({"a": GeoPoint(-0.0, 1.0)}, {"a": {"latitude": 0.0, "longitude": 1.0}}),
        (Reference("a\0"), "a\ufffd"),
    ],
    ids=str,
)
def test_what_json_cannot_hold_is_the_nearest_value(value: object, held: object) -> None:
    """However deep the loss lies, the column is named."""
    found = decoded({"extra": value})
    assert repr(found.columns["extra"]) == repr(held)
    assert found.lossy_fields == ("extra",)


def test_a_json_column_takes_any_kind_of_value() -> None:
    """Attachments are whatever the application made of them."""
    assert decoded({"extra": MOMENT}).columns["extra"] == "2026-03-01T12:00:00.123456Z"
    assert decoded({"extra": "x"}).columns["extra"] == "x"
    assert decoded({"extra": False}).columns["extra"] is False


def test_a_negative_zero_in_a_geopoint_is_a_loss() -> None:
    """PostgreSQL's jsonb drops its sign."""
    found = decoded({"place": GeoPoint(-0.0, 8.0)})
    assert repr(found.columns["place"]) == "{'latitude': 0.0, 'longitude': 8.0}"
    assert found.lossy_fields == ("place",)


def test_a_required_double_whose_nearest_value_is_null_is_undeliverable() -> None:
    """Where the database holds no NaN there is nothing to store."""
    entity = dataclasses.replace(
        ORDER,
        columns=tuple(dataclasses.replace(c, is_required=c.name == "price") for c in ORDER.columns),
    )
    fields = encode_fields({"price": math.nan})
    assert decode_document(entity, KEY, fields, POOREST) == Undeliverable(field="price")


def test_a_map_for_children_that_are_not_there_is_not_read() -> None:
    """No child row, nothing to fill: what lies in the map does not matter."""
    assert decoded({"weights": "x"}).children["OrderTag"] == {}


def test_a_required_json_value_that_became_null_is_a_loss() -> None:
    """NaN in a required JSON column is a value, if one that JSON cannot hold."""
    entity = dataclasses.replace(
        ORDER,
        columns=tuple(dataclasses.replace(c, is_required=c.name == "extra") for c in ORDER.columns),
    )
    found = decode_document(entity, KEY, encode_fields({"extra": math.nan}), POSTGRES)
    assert isinstance(found, ExpectedRow)
    assert found.lossy_fields == ("extra",)
