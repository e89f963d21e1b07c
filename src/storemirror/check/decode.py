"""
What the row of a document must hold, worked out from the declaration alone.

A second reading of the same declaration, on a path of its own: were the writer's mapping or its
digest used here, a mistake in them would show on both sides and never be seen.  A house test
refuses the imports.  Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, cast

from storemirror.event.change import Fields, Value
from storemirror.model.entity import ChildTable, Column, Entity, KeyPart
from storemirror.model.types import ColumnType, DialectLimits

#: Stands where U+0000 was, in databases whose text cannot hold it.
REPLACEMENT: Final = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRow:
    """What a live row must hold, as Python has it; see `storemirror.sql.port.MirrorRow`."""

    #: Declared columns only: not the roll-up's, not derived ones.
    columns: Mapping[str, object]
    #: Child table name -> key of the child -> its columns.
    children: Mapping[str, Mapping[str, Mapping[str, object]]]
    #: The whole document, REST `Value` JSON; None where the entity does not keep it.
    raw: Fields | None
    #: Columns, and "Table.column" of children, that hold only the nearest value; sorted.
    lossy_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undeliverable:
    """The document does not fit its declaration: a dead letter is expected, and no row."""

    #: Key part, column, or child table ("DmParticipant.lastReadAt") that cannot be filled.
    field: str


class _Misfit(Exception):
    """A value does not fit where it belongs."""

    def __init__(self, field: str) -> None:
        """Keep the field; never the value."""
        super().__init__(field)
        self.field = field


class _Held(NamedTuple):
    """A value as the database holds it, and whether that is only the nearest one."""

    value: object
    is_lossy: bool = False


def decode_document(
    entity: Entity, key: Sequence[str], fields: Fields, limits: DialectLimits
) -> ExpectedRow | Undeliverable:
    """
    Work out what the row of a document must hold.

    Args:
        entity: the document's declaration.
        key: one string a key part.
        fields: canonical REST `Value` JSON (`storemirror.event.value`).
        limits: what the database cannot hold.

    Returns:
        The row, or the first field that keeps the document from having one.
    """
    refused = refused_key_part(entity, key, limits)
    if refused is not None:
        return Undeliverable(field=refused)
    lossy: set[str] = set()
    try:
        columns = {c.name: _column(c, fields, limits, lossy) for c in entity.columns}
        children = {c.name: _children(c, fields, limits, lossy) for c in entity.children}
    except _Misfit as misfit:
        return Undeliverable(field=misfit.field)
    return ExpectedRow(
        columns=columns,
        children=children,
        raw=fields if entity.has_raw else None,
        lossy_fields=tuple(sorted(lossy)),
    )


def refused_key_part(entity: Entity, key: Sequence[str], limits: DialectLimits) -> str | None:
    """Give the first key part whose id cannot be a key in this database; None when all can."""
    for part, text in zip(entity.keys, key, strict=True):
        if not _can_be_key(part, text, limits):
            return part.name
    return None


def _can_be_key(part: KeyPart, text: str, limits: DialectLimits) -> bool:
    if not 0 < len(text) <= part.max_length or "\0" in text:
        return False
    return not (limits.ignores_trailing_space and text.endswith(" "))


def _column(column: Column, fields: Fields, limits: DialectLimits, lossy: set[str]) -> object:
    value = _at(fields, column.field, column.name)
    held = _Held(None) if value is None else _held(column.type, value, limits, column.name)
    # A JSON column tells null from NULL: NaN becomes null, and that is a value.
    is_null = value is None or (held.value is None and column.type is not ColumnType.JSON)
    if column.is_required and is_null:
        raise _Misfit(column.name)
    if held.is_lossy:
        lossy.add(column.name)
    return held.value


def _children(
    table: ChildTable, fields: Fields, limits: DialectLimits, lossy: set[str]
) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {key: {} for key in _child_keys(table, fields, limits)}
    if not rows:
        return rows
    for column in table.columns:
        name = f"{table.name}.{column.name}"
        values = _map_at(fields, column.from_map, name)
        for key, row in rows.items():
            value = _unless_null(values.get(key))
            held = _Held(None) if value is None else _held(column.type, value, limits, name)
            row[column.name] = held.value
            if held.is_lossy:
                lossy.add(name)
    return rows


def _child_keys(table: ChildTable, fields: Fields, limits: DialectLimits) -> Iterator[str]:
    """Give the keys of the child rows: an array's elements, or a map's names."""
    name = f"{table.name}.{table.key.name}"
    value = _at(fields, table.field, name)
    kind, content = ("arrayValue", {"values": []}) if value is None else _opened(value)
    if kind == "arrayValue":
        elements = [_string(item, name) for item in _items(content)]
    elif kind == "mapValue":
        elements = list(_entries(content))
    else:
        raise _Misfit(name)
    for element in elements:
        if not _can_be_key(table.key, element, limits):
            raise _Misfit(name)
        yield element


def _at(fields: Fields, names: Sequence[str], where: str) -> Value | None:
    """Give the value at the end of a way through maps; None when it is null or missing."""
    *outer, last = names
    for name in outer:
        fields = _map_at(fields, (name,), where)
    return _unless_null(fields.get(last))


def _map_at(fields: Fields, names: Sequence[str], where: str) -> Fields:
    """Give the entries of the map at the end of a way; none when it is null or missing."""
    value = _at(fields, names, where)
    if value is None:
        return {}
    kind, content = _opened(value)
    if kind != "mapValue":
        raise _Misfit(where)
    return _entries(content)


def _unless_null(value: Value | None) -> Value | None:
    return None if value is None or "nullValue" in value else value


def _opened(value: Value) -> tuple[str, object]:
    """Split a value into its kind and its content."""
    return next(iter(value.items()))


def _items(content: object) -> Sequence[Value]:
    return cast("Mapping[str, Sequence[Value]]", content)["values"]


def _entries(content: object) -> Fields:
    return cast("Mapping[str, Fields]", content)["fields"]


def _string(value: Value, where: str) -> str:
    kind, content = _opened(value)
    if kind != "stringValue":
        raise _Misfit(where)
    return cast("str", content)


def _held(column_type: ColumnType, value: Value, limits: DialectLimits, where: str) -> _Held:
    """Give what a column of this type holds of a value that is not null."""
    if column_type is ColumnType.JSON:
        return _plain(value, limits)
    kind, content = _opened(value)
    decode = _BY_TYPE[column_type].get(kind)
    held = None if decode is None else decode(content, limits)
    if held is None:
        raise _Misfit(where)
    return held


def _text(content: object, limits: DialectLimits) -> _Held:
    text = cast("str", content)
    if limits.holds_nul or "\0" not in text:
        return _Held(text)
    return _Held(text.replace("\0", REPLACEMENT), is_lossy=True)


def _integer(content: object, _: DialectLimits) -> _Held:
    return _Held(int(cast("str", content)))


def _double(content: object, limits: DialectLimits) -> _Held:
    number = float(cast("float | str", content))
    if not limits.holds_nan and not math.isfinite(number):
        nearest = None if math.isnan(number) else math.copysign(sys.float_info.max, number)
        return _Held(nearest, is_lossy=True)
    if not limits.holds_negative_zero and _is_negative_zero(number):
        return _Held(0.0, is_lossy=True)
    return _Held(number)


def _double_of_integer(content: object, _: DialectLimits) -> _Held | None:
    """Give the double that is this integer; None when there is none."""
    number = int(cast("str", content))
    return _Held(float(number)) if int(float(number)) == number else None


def _boolean(content: object, _: DialectLimits) -> _Held:
    return _Held(content)


def _timestamp(content: object, _: DialectLimits) -> _Held:
    return _Held(datetime.fromisoformat(cast("str", content)))


def _bytes(content: object, _: DialectLimits) -> _Held:
    return _Held(base64.b64decode(cast("str", content)))


def _geo_point(content: object, _: DialectLimits) -> _Held:
    point = cast("Mapping[str, float]", content)
    held = {name: _json_double(point[name]) for name in ("latitude", "longitude")}
    return _Held(
        {name: number.value for name, number in held.items()},
        is_lossy=any(number.is_lossy for number in held.values()),
    )


def _json_double(content: object) -> _Held:
    """Give a double as JSON has it: no NaN, no infinity, and no -0.0 in PostgreSQL's jsonb."""
    number = float(cast("float | str", content))
    if not math.isfinite(number):
        return _Held(None, is_lossy=True)
    return _Held(0.0, is_lossy=True) if _is_negative_zero(number) else _Held(number)


def _is_negative_zero(number: float) -> bool:
    return number == 0.0 and math.copysign(1.0, number) < 0


def _plain(value: Value, limits: DialectLimits) -> _Held:
    """Give any value as plain JSON; times, bytes and references are strings in it."""
    kind, content = _opened(value)
    match kind:
        case "arrayValue":
            items = [_plain(item, limits) for item in _items(content)]
            return _Held([item.value for item in items], any(item.is_lossy for item in items))
        case "mapValue":
            return _plain_map(_entries(content), limits)
        case "stringValue" | "referenceValue":
            return _text(content, limits)
        case "integerValue":
            return _integer(content, limits)
        case "doubleValue":
            return _json_double(content)
        case "geoPointValue":
            return _geo_point(content, limits)
    return _Held(content)


def _plain_map(entries: Fields, limits: DialectLimits) -> _Held:
    plain: dict[str, object] = {}
    is_lossy = False
    for name, value in entries.items():
        held_name, held = _text(name, limits), _plain(value, limits)
        plain[cast("str", held_name.value)] = held.value
        is_lossy = is_lossy or held_name.is_lossy or held.is_lossy
    return _Held(plain, is_lossy)


_Decode = Callable[[object, DialectLimits], _Held | None]

#: Column type -> kind of value -> how it is held.  JSON columns take any kind, by `_plain`.
_BY_TYPE: Final[Mapping[ColumnType, Mapping[str, _Decode]]] = {
    ColumnType.STRING: {"stringValue": _text},
    ColumnType.TEXT: {"stringValue": _text},
    ColumnType.INTEGER: {"integerValue": _integer},
    ColumnType.DOUBLE: {"doubleValue": _double, "integerValue": _double_of_integer},
    ColumnType.BOOLEAN: {"booleanValue": _boolean},
    ColumnType.TIMESTAMP: {"timestampValue": _timestamp},
    ColumnType.BYTES: {"bytesValue": _bytes},
    ColumnType.REFERENCE: {"referenceValue": _text},
    ColumnType.GEOPOINT: {"geoPointValue": _geo_point},
}
