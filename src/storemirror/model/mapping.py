"""
A document as a row: which field goes into which column, and what does not fit.

Takes canonical fields (`storemirror.event.value`).  Messages name fields and types, never
contents.  Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import msgspec

from storemirror.errors import KeyRefused, MappingFailed
from storemirror.model.conversion import Conversion, Misfit, Value, conversion_of, kind_of
from storemirror.model.entity import ChildColumn, ChildTable, Column, Entity, KeyPart
from storemirror.model.types import DialectLimits

#: A column's value on its way into a procedure: what JSON can carry without loss.  64-bit integers
#: and doubles are strings, times RFC 3339, bytes base64, JSON columns JSON text.
JsonScalar = str | bool | None


class MappedRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The contents of one live row."""

    #: Column name -> value; every declared column is there.
    columns: Mapping[str, JsonScalar]
    #: Child table name -> its rows, as column name -> value, the child's key included.
    children: Mapping[str, Sequence[Mapping[str, JsonScalar]]]
    #: The whole document as canonical JSON text, when the entity keeps it.
    raw: str | None
    #: Columns (and "Table.column" of children) stored as the nearest value, sorted.
    lossy_fields: tuple[str, ...]


_Fields = Mapping[str, object]
#: Gives one column's value; adds the column's name to the set when it is only the nearest one.
_Read = Callable[[_Fields, set[str]], JsonScalar]
_ReadTable = Callable[[_Fields, set[str]], list[dict[str, JsonScalar]]]


class _ColumnReader(NamedTuple):
    """How one column gets its value: from a field at the root as it stands, or by `read`."""

    name: str
    root_field: str
    plain_kind: str
    #: The type of which a content is that `is_sound` is asked about.
    plain_type: Any
    is_sound: Callable[[Any], object]
    #: Whether the column is empty without further questions when there is no such field.
    may_be_absent: bool
    read: _Read


#: Nobody writes into a row's mappings, so that rows may share it.
_NO_CHILDREN: Final[Mapping[str, list[dict[str, JsonScalar]]]] = {}
_RAW: Final = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class CompiledMapping:
    """The mapping of one entity into one dialect, with everything decided that can be before."""

    readers: tuple[_ColumnReader, ...]
    table_readers: tuple[tuple[str, _ReadTable], ...]
    has_raw: bool

    def row_of(self, fields: _Fields, *, event_id: str = "", path: str = "") -> MappedRow:
        """See `map_document`."""
        lossy: set[str] = set()
        try:
            columns: dict[str, JsonScalar] = {}
            # The usual case stands here and in no function of its own: this loop is run for every
            # column of every event.
            for name, field, kind, plain_type, is_sound, may_be_absent, read in self.readers:
                value: Any = fields.get(field)
                if value is not None:
                    content = value.get(kind)
                    if content.__class__ is plain_type and is_sound(content):
                        columns[name] = content
                        continue
                elif may_be_absent:
                    columns[name] = None
                    continue
                columns[name] = read(fields, lossy)
            children: Mapping[str, list[dict[str, JsonScalar]]] = _NO_CHILDREN
            if self.table_readers:
                children = {name: read(fields, lossy) for name, read in self.table_readers}
        except Misfit as misfit:
            raise MappingFailed(str(misfit), event_id=event_id, path=path) from None
        return MappedRow(
            columns=columns,
            children=children,
            raw=_RAW.encode(fields).decode() if self.has_raw else None,
            lossy_fields=tuple(sorted(lossy)) if lossy else (),
        )


def map_document(
    entity: Entity,
    fields: _Fields,
    limits: DialectLimits,
    *,
    event_id: str = "",
    path: str = "",
) -> MappedRow:
    """
    Turn a document into the row that stands for it.

    Args:
        entity: the document's entity.
        fields: the document, canonical (`storemirror.event.value.canonical_fields`).
        limits: what the database cannot hold; there the nearest value is taken instead.
        event_id: named in errors.
        path: named in errors.

    Raises:
        MappingFailed: a required field is missing, a value is of another type than its column, or
            an element cannot be the key of a child row.
    """
    compiled = _compiled_once(_ByIdentity(entity), limits)
    return compiled.row_of(fields, event_id=event_id, path=path)


def compiled_mapping(entity: Entity, limits: DialectLimits) -> CompiledMapping:
    """Prepare the mapping of an entity's documents; see `map_document`."""
    return CompiledMapping(
        readers=tuple(_column_reader(c, limits) for c in entity.columns),
        table_readers=tuple((t.name, _table_reader(t, limits)) for t in entity.children),
        has_raw=entity.has_raw,
    )


class _ByIdentity:
    """An entity as a cache key: hashing all of a declaration costs more than mapping a row."""

    __slots__ = ("entity",)

    def __init__(self, entity: Entity) -> None:
        self.entity = entity

    def __hash__(self) -> int:
        return id(self.entity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.entity is self.entity


@functools.lru_cache(maxsize=256)
def _compiled_once(key: _ByIdentity, limits: DialectLimits) -> CompiledMapping:
    return compiled_mapping(key.entity, limits)


def check_key(
    entity: Entity,
    key: Sequence[str],
    limits: DialectLimits,
    *,
    event_id: str = "",
    path: str = "",
) -> None:
    """
    See that a document's ids can be the key of a row.

    Raises:
        KeyRefused: one is empty, longer than declared, holds U+0000, or ends in a space where the
            database compares without it.
        ValueError: the key has not one part for each parameter.
    """
    for part, value in zip(entity.keys, key, strict=True):
        if 0 < len(value) <= part.max_length and "\0" not in value and value[-1] != " ":
            continue
        fault = key_fault(part, value, limits)
        if fault is not None:
            raise KeyRefused(f"key part {part.name} {fault}", event_id=event_id, path=path)


def key_fault(part: KeyPart, value: str, limits: DialectLimits) -> str | None:
    """Say why an id cannot be this part of a key; None: it can."""
    if not value:
        return "is empty"
    if len(value) > part.max_length:
        return f"has {len(value)} characters, and at most {part.max_length} are declared"
    if "\0" in value:
        return "holds U+0000, which no key may"
    if limits.ignores_trailing_space and value[-1] == " ":
        return "ends in a space, and the database compares without it"
    return None


def _column_reader(column: Column, limits: DialectLimits) -> _ColumnReader:
    conversion = conversion_of(column.type, limits)
    read = _field_reader(column, conversion)
    if column.is_required:
        read = _required_reader(column, read)
    is_at_root = len(column.field) == 1
    return _ColumnReader(
        name=column.name,
        # A field in a map is reached by `read` alone: no kind of value has an empty name.
        root_field=column.field[0] if is_at_root else "",
        plain_kind=conversion.plain_kind if is_at_root else "",
        plain_type=conversion.plain_type,
        is_sound=conversion.is_sound,
        may_be_absent=is_at_root and not column.is_required,
        read=read,
    )


def _required_reader(column: Column, read: _Read) -> _Read:
    where = ".".join(column.field)

    def read_required(fields: _Fields, lossy: set[str]) -> JsonScalar:
        scalar = read(fields, lossy)
        if scalar is None:
            raise Misfit(f"field {where}: required ({column.type}), and there is nothing to store")
        return scalar

    return read_required


def _field_reader(column: Column, conversion: Conversion) -> _Read:
    where = ".".join(column.field)

    def read(fields: _Fields, lossy: set[str]) -> JsonScalar:
        value = _value_at(fields, column.field)
        if value is None:
            return None
        return _converted(value, conversion, column.name, where, lossy)

    return read


def _converted(
    value: Value, conversion: Conversion, name: str, where: str, lossy: set[str]
) -> JsonScalar:
    content = value.get(conversion.plain_kind)
    if content.__class__ is conversion.plain_type and conversion.is_sound(content):
        return cast("JsonScalar", content)
    if "nullValue" in value:
        return None
    scalar, is_lossy = conversion.convert(value, where)
    if is_lossy:
        lossy.add(name)
    return scalar


def _value_at(fields: _Fields, field: tuple[str, ...]) -> Value | None:
    """Give the value of a field that may lie in maps; None when it, or a map, is not there."""
    if len(field) == 1:
        found: Any = fields.get(field[0])
        return found  # type: ignore[no-any-return]
    here = fields
    for depth, part in enumerate(field[:-1], start=1):
        inner = _map_of(cast("Value | None", here.get(part)), field[:depth])
        if inner is None:
            return None
        here = inner
    return cast("Value | None", here.get(field[-1]))


def _map_of(value: Value | None, field: tuple[str, ...]) -> _Fields | None:
    if value is None or "nullValue" in value:
        return None
    if "mapValue" not in value:
        raise Misfit.between(".".join(field), "map", kind_of(value))
    return cast("Mapping[str, _Fields]", value["mapValue"])["fields"]


def _table_reader(table: ChildTable, limits: DialectLimits) -> _ReadTable:
    columns = [(c, conversion_of(c.type, limits)) for c in table.columns]

    def read(fields: _Fields, lossy: set[str]) -> list[dict[str, JsonScalar]]:
        keys = _child_keys(_value_at(fields, table.field), table, limits)
        if not keys:
            return []
        rows: list[dict[str, JsonScalar]] = [{table.key.name: key} for key in keys]
        for column, conversion in columns:
            _fill(rows, table, column, conversion, fields, lossy)
        return rows

    return read


def _child_keys(value: Value | None, table: ChildTable, limits: DialectLimits) -> list[str]:
    if value is None or "nullValue" in value:
        return []
    where = ".".join(table.field)
    if "mapValue" in value:
        keys = list(cast("_Fields", _map_of(value, table.field)))
    elif "arrayValue" in value:
        values = cast("Mapping[str, Sequence[Value]]", value["arrayValue"])["values"]
        keys = [_element(item, f"{where}[{index}]") for index, item in enumerate(values)]
    else:
        raise Misfit.between(where, "array of strings, or map", kind_of(value))
    distinct = list(dict.fromkeys(keys))
    for key in distinct:
        fault = key_fault(table.key, key, limits)
        if fault is not None:
            raise Misfit(
                f"field {where}: an element, key {table.key.name} of {table.name}, {fault}"
            )
    return distinct


def _element(value: Value, where: str) -> str:
    content = value.get("stringValue")
    if content is None:
        raise Misfit.between(where, "string", kind_of(value))
    return cast("str", content)


def _fill(
    rows: Sequence[dict[str, JsonScalar]],
    table: ChildTable,
    column: ChildColumn,
    conversion: Conversion,
    fields: _Fields,
    lossy: set[str],
) -> None:
    """Look a column up for each row, in a map by the row's key."""
    values = _map_of(_value_at(fields, column.from_map), column.from_map) or {}
    where = f"{'.'.join(column.from_map)}.<{table.key.name}>"
    name = f"{table.name}.{column.name}"
    for row in rows:
        value = cast("Value | None", values.get(cast("str", row[table.key.name])))
        row[column.name] = (
            None if value is None else _converted(value, conversion, name, where, lossy)
        )
