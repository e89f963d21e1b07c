"""
Fields of a document by the path that a declaration gives them, wherever an app keeps them.

Documents are canonical (`storemirror.event.value`).  Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from storemirror.event.change import Fields, Value
from storemirror.model.entity import ChildTable, Entity
from storemirror.source.queries import value_at

FieldPath = Sequence[str]


def field_of(entity: Entity, column: str) -> FieldPath:
    """
    Give where a declared column's value lies in the document.

    Raises:
        KeyError: the entity has no such column.
    """
    for declared in entity.columns:
        if declared.name == column:
            return declared.field
    raise KeyError(column)


def with_value(fields: Fields, path: FieldPath, value: Value | None) -> Fields:
    """
    Give the document with one value changed, and everything else as it was.

    Args:
        fields: stays as it is.
        path: maps on the way are made where they are missing.
        value: None takes the field out.

    >>> with_value({"n": {"integerValue": "1"}}, ("a", "b"), {"booleanValue": True})["a"]
    {'mapValue': {'fields': {'b': {'booleanValue': True}}}}
    """
    name, *rest = path
    if rest:
        inner = with_value(map_of(fields.get(name)) or {}, rest, value)
        return {**fields, name: {"mapValue": {"fields": inner}}}
    if value is None:
        return {other: kept for other, kept in fields.items() if other != name}
    return {**fields, name: value}


def text_at(fields: Fields, path: FieldPath) -> str | None:
    """Give a string; None when there is none."""
    value = value_at(fields, path)
    return None if value is None else cast("str | None", value.get("stringValue"))


def elements_of(fields: Fields, table: ChildTable) -> frozenset[str]:
    """Give the keys of a child table's rows: the array's strings, or the map's names."""
    value = value_at(fields, table.field) or {}
    if "mapValue" in value:
        return frozenset(map_of(value) or {})
    array = cast("Mapping[str, Sequence[Mapping[str, Any]]]", value.get("arrayValue", {}))
    items = array.get("values", ())
    return frozenset(str(item["stringValue"]) for item in items if "stringValue" in item)


def map_of(value: Value | None) -> Mapping[str, Value] | None:
    """Give a map's fields; None when the value is no map."""
    if value is None or "mapValue" not in value:
        return None
    return cast("Mapping[str, Mapping[str, Value]]", value["mapValue"])["fields"]
