"""The tables that are installed, as SQL Server's catalogue spells them.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from storemirror.errors import ConfigError
from storemirror.model.entity import ChildTable, Column, Entity, KeyPart, Model
from storemirror.model.social import covered_by_latest
from storemirror.model.types import ColumnType
from storemirror.sql.catalogue import ColumnRole, TableRole, WantedColumn, WantedTable
from storemirror.sql.names import pascal_case
from storemirror.sql.sqlserver.types import (
    COLLATION,
    MAX_CLUSTERED_UNITS,
    MAX_INDEX_UNITS,
    MAX_ORDERED_LENGTH,
    TYPES,
    SqlType,
    text_type,
)

_TIME: Final = "datetime2(6)"
_EMPTY_ARRAY: Final = "[]"
#: Types of which every value is kept when a column is given the type on the left; of a text in
#: the words of `spelled_type`.
_WIDENS: Final[Mapping[str, frozenset[str]]] = {
    "bigint": frozenset({"tinyint", "smallint", "int"}),
    "float": frozenset({"real"}),
    "nvarchar": frozenset({"nvarchar", "varchar"}),
}
#: Columns of every row: name, type, may it be NULL, default (empty for none), compared byte by
#: byte.
META: Final[Sequence[tuple[str, str, bool, str, bool]]] = (
    ("RowState", "nvarchar(16)", False, "", True),
    ("LastEventId", "nvarchar(64)", False, "N''", True),
    ("LastEventType", "nvarchar(64)", False, "N''", False),
    ("LastEventTime", _TIME, True, "", False),
    ("LastEventVersion", "bigint", False, "0", False),
    ("LastEventOrigin", "nvarchar(32)", False, "N''", False),
    ("LastEventDigest", "nvarchar(64)", False, "N''", True),
    ("MappingRevision", "int", False, "0", False),
    ("AppliedAt", _TIME, False, "SYSUTCDATETIME()", False),
    ("LossyFields", "nvarchar(max)", False, f"N'{_EMPTY_ARRAY}'", False),
)
#: Beside the document's keys in the key of an audit table: a version and an event's id.
_AUDIT_KEY_UNITS: Final = 4 + 64
_CASE_OF_TWO: Final = re.compile(r"^case when (.+?) is not null then \1 else (.+) end$")


def wanted_tables(model: Model) -> tuple[WantedTable, ...]:
    """
    Give every table of a model, those of an entity together.

    Raises:
        ConfigError: a key is too long for an index.
    """
    return tuple(table for entity in model for table in _tables(model, entity))


def key_units(keys: Sequence[KeyPart]) -> int:
    """Give the UTF-16 units that a key has at most."""
    return sum(part.max_length for part in keys)


def clustering(table: str, units: int) -> str:
    """
    Tell how the primary key of a table is kept.

    Args:
        table: for the error.
        units: UTF-16 units that its columns have at most; two bytes each.

    Raises:
        ConfigError: no index takes so long a key.
    """
    if units > MAX_INDEX_UNITS:
        raise ConfigError(
            f"{table}: its key has up to {units} UTF-16 code units, and SQL Server's index entries "
            f"end at {MAX_INDEX_UNITS}; declare a shorter key_length"
        )
    return "CLUSTERED" if units <= MAX_CLUSTERED_UNITS else "NONCLUSTERED"


def audit_units(entity: Entity) -> int:
    """Give the units of an audit table's key."""
    return key_units(entity.keys) + _AUDIT_KEY_UNITS


def column_type(entity: Entity, column: Column) -> SqlType:
    """
    Give the type of a declared column.

    Raises:
        ConfigError: the latest row is looked for by a text, and there is no room for it beside
            the key.
    """
    latest_by = None if entity.rollup is None else entity.rollup.latest_by
    if column.type is not ColumnType.STRING or column.name != latest_by:
        return TYPES[column.type]
    room = min(MAX_ORDERED_LENGTH, MAX_INDEX_UNITS - key_units(entity.keys))
    if room < 1:
        raise ConfigError(f"{entity.name}: no index takes {column.name} beside so long a key")
    return text_type(room)


def expression_of(text: str) -> str:
    """
    Spell the expression of a computed column as both sides compare it.

    >>> expression_of("(coalesce([LastMessageAt],[CreatedAt]))")
    'coalesce(lastmessageat,createdat)'
    >>> expression_of("(case when [A] IS NOT NULL then [A] else [B] end)")
    'coalesce(a,b)'
    """
    plain = " ".join(re.sub(r'[\[\]"]', "", text).lower().split())
    while plain.startswith("(") and _closes_last(plain):
        plain = plain[1:-1].strip()
    found = _CASE_OF_TWO.match(plain)
    if found is not None:
        rest = expression_of(found[2])
        rest = rest.removeprefix("coalesce(").removesuffix(")") if rest != found[2] else rest
        plain = f"coalesce({found[1]},{rest})"
    return plain.replace(", ", ",")


def _closes_last(text: str) -> bool:
    """Tell whether the first parenthesis is closed by the last character."""
    depth = 0
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return place == len(text) - 1
    return False


def _tables(model: Model, entity: Entity) -> Iterator[WantedTable]:
    keys = tuple(pascal_case(k.name) for k in entity.keys)
    name = pascal_case(entity.name)
    clustering(name, key_units(entity.keys))
    yield WantedTable(
        name=name,
        declared=entity.name,
        role=TableRole.ENTITY,
        entity=entity.name,
        columns=tuple(_entity_columns(model, entity)),
        key=keys,
        indexes=_indexes(entity),
        replacements=_replacements(entity),
        required_name=f"CK_{name}_Required",
        required=frozenset(pascal_case(c.name) for c in entity.columns if c.is_required),
        parent=None
        if entity.rollup is None
        else (pascal_case(entity.rollup.into), entity.parent_key_count),
    )
    for child in entity.children:
        yield _child_table(entity, child, keys)
    if entity.has_audit:
        yield _audit_table(entity, keys)


def _entity_columns(model: Model, entity: Entity) -> Iterator[WantedColumn]:
    yield from (_key(k) for k in entity.keys)
    for name, kind, is_nullable, default, is_binary in META:
        yield WantedColumn(
            name=name,
            type=kind,
            role=ColumnRole.META,
            is_nullable=is_nullable,
            has_default=bool(default),
            is_checked=name == "RowState",
            is_binary=is_binary,
        )
    for column in entity.columns:
        yield _filled(column, column_type(entity, column), ColumnRole.DOCUMENT)
    child = model.rollup_child_of(entity)
    count = None if child is None or child.rollup is None else child.rollup.count
    for column in entity.rollup_columns:
        is_nullable = column.name != count
        yield _filled(column, TYPES[column.type], ColumnRole.ROLLUP, is_nullable=is_nullable)
    for derived in entity.derived:
        yield WantedColumn(
            name=pascal_case(derived.name),
            type=plain_type(TYPES[derived.type]),
            role=ColumnRole.DERIVED,
            declared=derived.name,
            expression=expression_of(
                f"COALESCE({', '.join(pascal_case(s) for s in derived.sources)})"
            ),
        )
    if entity.has_raw:
        yield WantedColumn(
            name="RawDocument", type="nvarchar(max)", role=ColumnRole.DOCUMENT, declared="raw"
        )


def _child_table(entity: Entity, child: ChildTable, keys: tuple[str, ...]) -> WantedTable:
    name, key = pascal_case(child.name), pascal_case(child.key.name)
    clustering(name, key_units((*entity.keys, child.key)))
    return WantedTable(
        name=name,
        declared=child.name,
        role=TableRole.CHILD,
        entity=entity.name,
        columns=(
            *(_key(k) for k in (*entity.keys, child.key)),
            *(
                WantedColumn(
                    name=pascal_case(c.name),
                    type=plain_type(TYPES[c.type]),
                    role=ColumnRole.DOCUMENT,
                    declared=f"{child.name}.{c.name}",
                    widens=_widens(plain_type(TYPES[c.type])),
                )
                for c in child.columns
            ),
        ),
        key=(*keys, key),
        indexes={f"IX_{name}_By{key}": ", ".join((key, *keys))},
        parent=(pascal_case(entity.name), len(keys)),
    )


def _audit_table(entity: Entity, keys: tuple[str, ...]) -> WantedTable:
    fixed = (
        ("LastEventVersion", "bigint", False),
        ("LastEventId", "nvarchar(64)", True),
        ("LastEventType", "nvarchar(64)", False),
        ("LastEventTime", _TIME, False),
    )
    name = f"{pascal_case(entity.name)}Audit"
    clustering(name, audit_units(entity))
    return WantedTable(
        name=name,
        declared=f"{entity.name}Audit",
        role=TableRole.AUDIT,
        entity=entity.name,
        columns=(
            *(_key(k) for k in entity.keys),
            *(
                WantedColumn(
                    name=column,
                    type=kind,
                    role=ColumnRole.META,
                    is_nullable=False,
                    is_binary=is_binary,
                )
                for column, kind, is_binary in fixed
            ),
        ),
        key=(*keys, "LastEventVersion", "LastEventId"),
    )


def _key(part: KeyPart) -> WantedColumn:
    return WantedColumn(
        name=pascal_case(part.name),
        type=f"nvarchar({part.max_length})",
        role=ColumnRole.KEY,
        declared=part.name,
        widens=_WIDENS["nvarchar"],
        is_binary=True,
        is_nullable=False,
    )


def _filled(
    column: Column, kind: SqlType, role: ColumnRole, *, is_nullable: bool = True
) -> WantedColumn:
    plain = plain_type(kind)
    return WantedColumn(
        name=pascal_case(column.name),
        type=plain,
        role=role,
        declared=column.name,
        widens=_widens(plain),
        is_nullable=is_nullable,
        # What an index orders must be ordered as the procedures do.
        is_binary=plain.startswith("nvarchar") and plain != "nvarchar(max)",
    )


def _indexes(entity: Entity) -> Mapping[str, str]:
    name = pascal_case(entity.name)
    indexes = {f"IX_{name}_Purge": "AppliedAt (partial)"}
    if entity.rollup is not None and entity.rollup.latest_by is not None:
        keys = [pascal_case(k.name) for k in entity.keys]
        order = [*keys[:-1], f"{pascal_case(entity.rollup.latest_by)} DESC", f"{keys[-1]} DESC"]
        covered = [pascal_case(c) for c in covered_by_latest(entity)]
        besides = f" including {', '.join(covered)}" if covered else ""
        indexes[f"IX_{name}_Latest"] = f"{', '.join(order)}{besides} (partial)"
    return indexes


def _replacements(entity: Entity) -> Mapping[str, str]:
    latest = f"IX_{pascal_case(entity.name)}_Latest"
    return {latest: f"{latest}_Next"} if latest in _indexes(entity) else {}


def _widens(plain: str) -> frozenset[str]:
    return _WIDENS.get(plain.partition("(")[0], frozenset())


def plain_type(kind: SqlType) -> str:
    """Give a type as the catalogue spells it: without collation, in lower case."""
    return kind.column.removesuffix(f" COLLATE {COLLATION}").lower()
