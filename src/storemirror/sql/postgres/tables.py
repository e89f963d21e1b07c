"""The tables that are installed, as PostgreSQL's catalogue spells them.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from storemirror.model.entity import ChildTable, Column, Entity, KeyPart, Model
from storemirror.model.social import covered_by_latest
from storemirror.model.types import ColumnType
from storemirror.sql.catalogue import ColumnRole, TableRole, WantedColumn, WantedTable
from storemirror.sql.names import snake_case
from storemirror.sql.postgres.types import TYPES, SqlType

_TIME: Final = "timestamp with time zone"
#: Types of which every value is kept when a column is given the type on the left.  A text of
#: another name would not do as it is: rows are compared by their stored images, type by type.
_WIDENS: Final[Mapping[str, frozenset[str]]] = {
    "bigint": frozenset({"smallint", "integer"}),
    "double precision": frozenset({"real"}),
    "text": frozenset({"character varying"}),
}
#: Columns of every row, as templates/tables.sql.j2 makes them: type, may it be NULL, default.
_META: Final[Sequence[tuple[str, str, bool, bool]]] = (
    ("row_state", "text", False, False),
    ("last_event_id", "text", False, True),
    ("last_event_type", "text", False, True),
    ("last_event_time", _TIME, True, False),
    ("last_event_version", "bigint", False, True),
    ("last_event_origin", "text", False, True),
    ("last_event_digest", "text", False, True),
    ("mapping_revision", "integer", False, True),
    ("applied_at", _TIME, False, True),
    ("lossy_fields", "text[]", False, True),
)


def wanted_tables(model: Model) -> tuple[WantedTable, ...]:
    """Give every table of a model, those of an entity together."""
    return tuple(table for entity in model for table in _tables(model, entity))


def _tables(model: Model, entity: Entity) -> Iterator[WantedTable]:
    keys = tuple(snake_case(k.name) for k in entity.keys)
    name = snake_case(entity.name)
    yield WantedTable(
        name=name,
        declared=entity.name,
        role=TableRole.ENTITY,
        entity=entity.name,
        columns=tuple(_entity_columns(model, entity)),
        key=keys,
        indexes=_indexes(entity),
        replacements=_replacements(entity),
        required_name=f"{name}_required",
        required=frozenset(snake_case(c.name) for c in entity.columns if c.is_required),
        parent=None
        if entity.rollup is None
        else (snake_case(entity.rollup.into), entity.parent_key_count),
    )
    for child in entity.children:
        yield _child_table(entity, child, keys)
    if entity.has_audit:
        yield _audit_table(entity, keys)


def _entity_columns(model: Model, entity: Entity) -> Iterator[WantedColumn]:
    yield from (_key(k) for k in entity.keys)
    for name, kind, is_nullable, has_default in _META:
        yield WantedColumn(
            name=name,
            type=kind,
            role=ColumnRole.META,
            is_nullable=is_nullable,
            has_default=has_default,
            is_checked=name == "row_state",
        )
    latest_by = None if entity.rollup is None else entity.rollup.latest_by
    for column in entity.columns:
        yield _filled(column, ColumnRole.DOCUMENT, is_binary=column.name == latest_by)
    child = model.rollup_child_of(entity)
    count = None if child is None or child.rollup is None else child.rollup.count
    for column in entity.rollup_columns:
        yield _filled(column, ColumnRole.ROLLUP, is_nullable=column.name != count)
    for derived in entity.derived:
        yield WantedColumn(
            name=snake_case(derived.name),
            type=_plain_type(TYPES[derived.type]),
            role=ColumnRole.DERIVED,
            declared=derived.name,
            expression=f"COALESCE({', '.join(snake_case(s) for s in derived.sources)})",
        )
    if entity.has_raw:
        yield WantedColumn(
            name="raw_document", type="json", role=ColumnRole.DOCUMENT, declared="raw"
        )


def _child_table(entity: Entity, child: ChildTable, keys: tuple[str, ...]) -> WantedTable:
    name, key = snake_case(child.name), snake_case(child.key.name)
    return WantedTable(
        name=name,
        declared=child.name,
        role=TableRole.CHILD,
        entity=entity.name,
        columns=(
            *(_key(k) for k in (*entity.keys, child.key)),
            *(
                WantedColumn(
                    name=snake_case(c.name),
                    type=_plain_type(TYPES[c.type]),
                    role=ColumnRole.DOCUMENT,
                    declared=f"{child.name}.{c.name}",
                    widens=_WIDENS.get(_plain_type(TYPES[c.type]), frozenset()),
                )
                for c in child.columns
            ),
        ),
        key=(*keys, key),
        indexes={f"{name}_by_{key}": ", ".join((key, *keys))},
        parent=(snake_case(entity.name), len(keys)),
    )


def _audit_table(entity: Entity, keys: tuple[str, ...]) -> WantedTable:
    fixed = (
        ("last_event_version", "bigint"),
        ("last_event_id", "text"),
        ("last_event_type", "text"),
        ("last_event_time", _TIME),
    )
    return WantedTable(
        name=f"{snake_case(entity.name)}_audit",
        declared=f"{entity.name}Audit",
        role=TableRole.AUDIT,
        entity=entity.name,
        columns=(
            *(_key(k) for k in entity.keys),
            *(
                WantedColumn(name=name, type=kind, role=ColumnRole.META, is_nullable=False)
                for name, kind in fixed
            ),
        ),
        key=(*keys, "last_event_version", "last_event_id"),
    )


def _key(part: KeyPart) -> WantedColumn:
    return WantedColumn(
        name=snake_case(part.name),
        type="text",
        role=ColumnRole.KEY,
        declared=part.name,
        widens=_WIDENS["text"],
        is_binary=True,
        is_nullable=False,
    )


def _filled(
    column: Column, role: ColumnRole, *, is_nullable: bool = True, is_binary: bool = False
) -> WantedColumn:
    kind = _plain_type(TYPES[column.type])
    return WantedColumn(
        name=snake_case(column.name),
        type=kind,
        role=role,
        declared=column.name,
        widens=_WIDENS.get(kind, frozenset()),
        is_nullable=is_nullable,
        # Times and numbers have no collation.
        is_binary=is_binary and column.type is ColumnType.STRING,
    )


def _indexes(entity: Entity) -> Mapping[str, str]:
    name = snake_case(entity.name)
    indexes = {f"{name}_purge": "applied_at (partial)"}
    if entity.rollup is not None and entity.rollup.latest_by is not None:
        keys = [snake_case(k.name) for k in entity.keys]
        order = [*keys[:-1], f"{snake_case(entity.rollup.latest_by)} DESC", f"{keys[-1]} DESC"]
        covered = [snake_case(c) for c in covered_by_latest(entity)]
        besides = f" including {', '.join(covered)}" if covered else ""
        indexes[f"{name}_latest"] = f"{', '.join(order)}{besides} (partial)"
    return indexes


def _replacements(entity: Entity) -> Mapping[str, str]:
    latest = f"{snake_case(entity.name)}_latest"
    return {latest: next_index(latest)} if latest in _indexes(entity) else {}


def next_index(name: str) -> str:
    """
    Give the name under which the index is built that is to take the place of one.

    >>> next_index("dm_message_latest")
    'dm_message_latest_next'
    """
    return f"{name}_next"


def _plain_type(kind: SqlType) -> str:
    """Give a type as `format_type` spells it: without collation."""
    name = kind.column.removesuffix(' COLLATE "C"')
    return _TIME if name == "timestamptz" else name
