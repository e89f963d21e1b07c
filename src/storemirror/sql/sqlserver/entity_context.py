"""What SQL Server's templates see of an entity: names spelled and quoted, types written.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, Protocol

from storemirror.model.entity import ChildTable, Column, Entity, KeyPart, LatestColumn, Model
from storemirror.model.social import covered_by_latest
from storemirror.model.types import ColumnType
from storemirror.sql.catalogue import rollup_entry
from storemirror.sql.names import pascal_case
from storemirror.sql.render import rollup_digest
from storemirror.sql.sqlserver.naming import child_index, latest_index, next_index, quoted
from storemirror.sql.sqlserver.tables import (
    META,
    audit_units,
    clustering,
    column_type,
    key_units,
)
from storemirror.sql.sqlserver.types import COLLATION, TYPES, SqlType

#: Of events of one key: the newest first, what the server returned before what a client sent.
_WINDOW: Final = (
    "PARTITION BY {keys} ORDER BY a.LastEventVersion DESC, "
    "CASE WHEN a.LastEventOrigin IN (N'dual-write', N'repair') THEN 1 ELSE 0 END, a._Position"
)


class Names(Protocol):
    """How a rendering spells what is in its schema."""

    model: Model

    def table(self, name: str) -> str:
        """Give a declared table's qualified, quoted name."""
        ...

    def procedure(self, name: str) -> str:
        """Give a procedure's qualified, quoted name."""
        ...

    def qualified(self, name: str) -> str:
        """Give the qualified, quoted name of something in the schema."""
        ...


def entity_context(names: Names, entity: Entity) -> SimpleNamespace:
    """
    Give what the templates see of an entity; `rollup_child` is set by the caller.

    Raises:
        ConfigError: a name or a key is too long.
    """
    name = pascal_case(entity.name)
    keys = [
        _key(part, is_parent=index < entity.parent_key_count)
        for index, part in enumerate(entity.keys)
    ]
    audit = f"{name}Audit"
    return SimpleNamespace(
        name=entity.name,
        pattern=entity.pattern,
        table=names.table(entity.name),
        keys=keys,
        last_key=keys[-1]["column"],
        parent_keys=keys[: entity.parent_key_count],
        clustering=clustering(name, key_units(entity.keys)),
        window=_WINDOW.format(keys=", ".join(f"a.{k['column']}" for k in keys)),
        declared=_declared(names.model, entity),
        written=_written(entity),
        # Of what is read from JSON.
        texts=[
            *(k["column"] for k in keys),
            *(c["column"] for c in _written(entity) if c["type"].is_text),
            "LossyFields",
        ],
        required=[quoted(pascal_case(c.name)) for c in entity.columns if c.is_required],
        defaulted=_defaulted(name),
        has_audit=entity.has_audit,
        audit_table=names.qualified(audit),
        audit_pk=quoted(f"PK_{audit}"),
        audit_clustering=clustering(audit, audit_units(entity)) if entity.has_audit else "",
        pk=quoted(f"PK_{name}"),
        required_check=quoted(f"CK_{name}_Required"),
        state_check=quoted(f"CK_{name}_RowState"),
        purge_index=quoted(f"IX_{name}_Purge"),
        latest_index=latest_index(name),
        latest_next=next_index(name),
        latest_columns=_latest_columns(entity, keys),
        latest_covers=[quoted(pascal_case(c)) for c in covered_by_latest(entity)],
        rollup_entry=rollup_entry(entity.name),
        rollup_digest=rollup_digest(entity),
        children=[_child(names, entity, t, i) for i, t in enumerate(entity.children, start=1)],
        rollup=_rollup(names, entity),
        rollup_child=None,
        apply=names.qualified(f"sp_StoreMirror_Apply{name}"),
        upsert=names.procedure(f"Upsert{entity.name}"),
        delete=names.procedure(f"Delete{entity.name}"),
        purge=names.procedure(f"Purge{entity.name}"),
        recompute=entity.rollup and names.procedure(f"Recompute{entity.name}Rollup"),
        find_differences=entity.rollup and names.procedure(f"Find{entity.name}RollupDifferences"),
    )


def _key(part: KeyPart, *, is_parent: bool) -> dict[str, Any]:
    name = pascal_case(part.name)
    return {
        "column": quoted(name),
        "name": name,
        "type": f"NVARCHAR({part.max_length}) COLLATE {COLLATION}",
        "units": part.max_length,
        "is_parent": is_parent,
    }


def _column(entity: Entity, column: Column) -> dict[str, Any]:
    name = pascal_case(column.name)
    return {
        "column": quoted(name),
        "name": name,
        "type": column_type(entity, column),
        "is_json": column.type in (ColumnType.JSON, ColumnType.GEOPOINT),
    }


def _written(entity: Entity) -> Sequence[Mapping[str, Any]]:
    """List the columns that an event writes: the declared ones, and the raw document."""
    written = [_column(entity, column) for column in entity.columns]
    if entity.has_raw:
        name = "RawDocument"
        written.append(
            {
                "column": quoted(name),
                "name": name,
                "type": TYPES[ColumnType.JSON],
                "is_json": True,
            }
        )
    return written


def _defaulted(table: str) -> list[tuple[str, str]]:
    """List the columns of every row, as they are added to a table that has none of them."""
    columns = []
    for name, kind, is_nullable, default, is_binary in META:
        words = [kind.upper()]
        if is_binary:
            words.append(f"COLLATE {COLLATION}")
        words.append("NULL" if is_nullable else "NOT NULL")
        if name == "RowState":
            default = "N'live'"  # noqa: PLW2901
        if default:
            words.append(f"CONSTRAINT {quoted(f'DF_{table}_{name}')} DEFAULT ({default})")
        columns.append((name, " ".join(words)))
    return columns


def _declared(model: Model, entity: Entity) -> list[tuple[str, str]]:
    """List the columns that the declaration makes, as they are defined; computed ones last."""
    written = [(c["column"], f"{c['type'].column} NULL") for c in _written(entity)]
    computed = []
    for derived in entity.derived:
        sources = ", ".join(quoted(pascal_case(source)) for source in derived.sources)
        computed.append((quoted(pascal_case(derived.name)), f"AS (COALESCE({sources})) PERSISTED"))
    return [*written, *_rollup_columns(model, entity), *computed]


def _rollup_columns(model: Model, entity: Entity) -> Iterator[tuple[str, str]]:
    child = model.rollup_child_of(entity)
    count = None if child is None or child.rollup is None else child.rollup.count
    for column in entity.rollup_columns:
        name, kind = pascal_case(column.name), TYPES[column.type].column
        default = quoted(f"DF_{pascal_case(entity.name)}_{name}")
        is_count = column.name == count
        rest = f"NOT NULL CONSTRAINT {default} DEFAULT (0)" if is_count else "NULL"
        yield quoted(name), f"{kind} {rest}"


def _latest_columns(entity: Entity, keys: Sequence[Mapping[str, Any]]) -> str:
    by = None if entity.rollup is None else entity.rollup.latest_by
    if by is None:
        return ""
    parents = [k["column"] for k in keys[:-1]]
    order = [*parents, f"{quoted(pascal_case(by))} DESC", f"{keys[-1]['column']} DESC"]
    return ", ".join(order)


def _child(names: Names, entity: Entity, child: ChildTable, number: int) -> dict[str, Any]:
    name, key = pascal_case(child.name), pascal_case(child.key.name)
    return {
        "name": name,
        "staged": f"#Child{number}",
        "table": names.table(child.name),
        "key": quoted(key),
        "key_name": key,
        "key_type": f"NVARCHAR({child.key.max_length}) COLLATE {COLLATION}",
        "pk": quoted(f"PK_{name}"),
        "clustering": clustering(name, key_units((*entity.keys, child.key))),
        "index": child_index(name, key),
        "texts": [
            quoted(key),
            *(quoted(pascal_case(c.name)) for c in child.columns if TYPES[c.type].is_text),
        ],
        "columns": [
            {
                "column": quoted(pascal_case(c.name)),
                "name": pascal_case(c.name),
                "type": TYPES[c.type],
            }
            for c in child.columns
        ],
    }


def _rollup(names: Names, entity: Entity) -> dict[str, Any] | None:
    rollup = entity.rollup
    if rollup is None:
        return None
    parent = names.model[rollup.into]
    latest = [_latest(column) for column in rollup.latest]
    count = TYPES[ColumnType.INTEGER]
    counts = [] if rollup.count is None else [_assignment(rollup.count, count, is_count=True)]
    return {
        "parent_name": parent.name,
        "parent_table": names.table(parent.name),
        "by": rollup.latest_by and quoted(pascal_case(rollup.latest_by)),
        "clustering": clustering(pascal_case(parent.name), key_units(parent.keys)),
        "assignments": counts + latest,
        "latest": latest,
    }


def _assignment(name: str, kind: SqlType, *, is_count: bool) -> dict[str, Any]:
    """Describe one column of the parent."""
    return {
        "name": name,
        "target": quoted(pascal_case(name)),
        "type": kind,
        "is_count": is_count,
        "max_code_points": None,
    }


def _latest(column: LatestColumn) -> dict[str, Any]:
    """Describe a column that is copied from the latest row, `m` in the statement."""
    source = f"m.{quoted(pascal_case(column.source))}"
    cut = column.max_code_points
    # A code point has two units at most; what is cut is cut to code points afterwards.
    first = source if cut is None else f"LEFT({source}, {2 * cut})"
    described = _assignment(column.target, TYPES[column.type], is_count=False)
    return described | {"source": first, "max_code_points": cut}
