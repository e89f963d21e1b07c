"""Fields by path, wherever an app keeps them."""

from __future__ import annotations

from storemirror.event.value import encode_fields
from storemirror.gateway.fields import elements_of, text_at, with_value
from storemirror.gateway.social import DirectMessages
from storemirror.model.load import load_model
from storemirror.source.queries import value_at

DOCUMENT = encode_fields({"a": {"b": {"c": "deep"}}, "other": 1})


def test_a_change_leaves_everything_else_as_it_was() -> None:
    """Apps keep more in a document than is declared."""
    changed = with_value(DOCUMENT, ("a", "b", "c"), {"stringValue": "new"})
    assert changed == encode_fields({"a": {"b": {"c": "new"}}, "other": 1})
    assert text_at(DOCUMENT, ("a", "b", "c")) == "deep", "the old one is not touched"


def test_maps_on_the_way_are_made() -> None:
    """The first mark of what was read has no map to go into."""
    assert with_value({}, ("x", "y"), {"booleanValue": True}) == encode_fields({"x": {"y": True}})


def test_what_is_no_map_on_the_way_is_replaced() -> None:
    """A null where a map should be must not end the call."""
    assert with_value(encode_fields({"x": None}), ("x", "y"), {"integerValue": "1"}) == (
        encode_fields({"x": {"y": 1}})
    )


def test_none_takes_a_field_out() -> None:
    """Also one that is not there."""
    assert with_value(DOCUMENT, ("other",), None) == encode_fields({"a": {"b": {"c": "deep"}}})
    assert with_value(DOCUMENT, ("none",), None) == DOCUMENT


def test_a_path_through_what_is_no_map_leads_nowhere() -> None:
    """None, and no error."""
    assert value_at(DOCUMENT, ("other", "b", "c")) is None
    assert value_at(DOCUMENT, ("none", "b")) is None


def test_participants_are_read_from_an_array_or_a_map() -> None:
    """A declaration takes both."""
    table = DirectMessages.of(load_model()).participants
    for people in (["a", "b"], {"a": True, "b": False}):
        assert elements_of(encode_fields({"participantIds": people}), table) == {"a", "b"}
    for nobody in ({}, {"participantIds": None}, {"participantIds": "a"}, {"participantIds": [1]}):
        assert elements_of(encode_fields(nobody), table) == set()
