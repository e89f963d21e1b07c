"""
Decides what `storemirror schema apply` does, and what it refuses.

Changes are additive on their own.  What would lose a value is refused and stays a person's own;
what only changes the form of a column, and keeps every value, is done on an explicit word.
Nothing is ever dropped, except an index that is made anew.  Pure: values in, values out.

Source:
    docs/adr/0006-adopted-tables.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from storemirror.sql.catalogue import (
    ColumnRole,
    FoundSchema,
    FoundTable,
    TableRole,
    WantedEntity,
    WantedSchema,
    WantedTable,
    is_rollup_entry,
    rollup_entry,
)
from storemirror.sql.plan import NeededBackfill, PlannedChange, SchemaPlan, Step
from storemirror.sql.shape import Refusal, own_columns, refusals_of


def decide_plan(
    wanted: WantedSchema, found: FoundSchema, *, may_alter_columns: bool = False
) -> SchemaPlan:
    """
    Tell what brings a database to what is declared.

    Args:
        wanted: of this code's declarations.
        found: of the same Firestore, or of none; another one is the caller's to refuse.
        may_alter_columns: the explicit word: columns that are there may get another form, where
            every value is kept.
    """
    shape = [
        refusal
        for table in wanted.tables
        if table.name in found.tables
        for refusal in refusals_of(table, found.tables[table.name])
    ]
    alterations = [r for r in shape if may_alter_columns and r.alteration is not None]
    refusals = [*_later_version(wanted, found), *(r for r in shape if r not in alterations)]
    return SchemaPlan(
        changes=tuple(_changes(wanted, found, alterations)),
        refusals=tuple(refusals),
        alterations=tuple(alterations),
        backfills=tuple(_backfills(wanted, found)),
        kept=tuple(_kept(wanted, found)),
        notes=tuple(_notes(wanted, found)),
    )


def decide_differences(wanted: WantedSchema, found: FoundSchema) -> list[str]:
    """
    Say why a writer of this code must not run on what is installed, a sentence each.

    What is installed may be newer than the code: what it has besides is no difference.
    """
    differences = other_firestore(wanted, found)
    if found.version is None:
        return [*differences, f"schema {wanted.name} is not installed"]
    if found.version not in wanted.supported_versions:
        differences.append(
            f"schema version {found.version} is installed, this code works on {wanted.version}"
        )
    differences += [
        f"the declaration of {entity.name} is not the one installed"
        for entity in wanted.entities
        if found.revision_of(entity.name, entity.digest) is None
    ]
    differences += [
        f"procedure {name} is missing"
        for name in wanted.routines
        if name in wanted.procedures and name not in found.routines
    ]
    differences += [
        f"table {name} is missing" for name in wanted.own_tables if name not in found.tables
    ]
    for table in wanted.tables:
        at = found.tables.get(table.name)
        if at is None:
            differences.append(f"table {table.name} is missing")
            continue
        absent = sorted(column.name for column in table if column.name not in at.columns)
        if absent and at.is_table:
            differences.append(f"table {table.name} lacks {', '.join(absent)}")
        differences += [str(refusal) for refusal in refusals_of(table, at)]
    return differences


def other_firestore(wanted: WantedSchema, found: FoundSchema) -> list[str]:
    """Say that the schema mirrors another Firestore; empty when it does not."""
    if found.version is None or (found.project, found.database) == (
        wanted.project,
        wanted.database,
    ):
        return []
    return [
        f"the schema mirrors project {found.project}, database {found.database}, "
        f"and the settings say project {wanted.project}, database {wanted.database}"
    ]


def _later_version(wanted: WantedSchema, found: FoundSchema) -> Iterator[Refusal]:
    if found.version is not None and found.version > wanted.version:
        yield Refusal(
            what=f"schema version {found.version} is installed, later than this code's "
            f"{wanted.version}",
            cure="use the release that installed it, or a later one",
        )


def _changes(
    wanted: WantedSchema, found: FoundSchema, alterations: Sequence[Refusal]
) -> Iterator[PlannedChange]:
    if found.version != wanted.version:
        step = Step.ADD if found.version is None else Step.REPLACE
        yield PlannedChange(
            step=step, kind="schema", name=wanted.name, detail=f"version {wanted.version}"
        )
    for name in wanted.own_tables:
        if name not in found.tables:
            yield PlannedChange(step=Step.ADD, kind="table", name=name)
    unregistered = {e.name for e in wanted.entities if found.newest(e.name) is None}
    for table in wanted.tables:
        at = found.tables.get(table.name)
        if at is None:
            yield PlannedChange(
                step=Step.ADD, kind="table", name=table.name, detail=f"({_listed(table)})"
            )
            yield from _index_changes(table, FoundTable())
        else:
            if table.entity in unregistered and table.role is TableRole.ENTITY:
                yield PlannedChange(
                    step=Step.ADOPT,
                    kind="table",
                    name=table.name,
                    detail="with its rows: live, at version 0",
                )
            yield from _column_changes(table, at, alterations)
            yield from _index_changes(table, at)
        yield from _required_changes(table, at or FoundTable())
    yield from _routine_changes(wanted, found)
    for entity in wanted.entities:
        yield from _registrations(wanted, entity, found)


def _listed(table: WantedTable) -> str:
    return ", ".join(f"{c.name} {c.type}" for c in table if c.role is not ColumnRole.META)


def _column_changes(
    table: WantedTable, at: FoundTable, alterations: Sequence[Refusal]
) -> Iterator[PlannedChange]:
    for column in table:
        name = f"{table.name}.{column.name}"
        if column.name not in at.columns:
            rewrites = " (computed; the table is rewritten, and locked meanwhile)"
            detail = column.type + (rewrites if column.role is ColumnRole.DERIVED else "")
            yield PlannedChange(step=Step.ADD, kind="column", name=name, detail=detail)
    for refusal in alterations:
        if refusal.table == table.name:
            detail = f"{refusal.alteration}: {_wanted_form(table, refusal.column)}"
            name = f"{refusal.table}.{refusal.column}"
            yield PlannedChange(step=Step.ALTER, kind="column", name=name, detail=detail)


def _wanted_form(table: WantedTable, name: str) -> str:
    [column] = [c for c in table if c.name == name]
    form = f"{column.type}{', compared byte by byte' if column.is_binary else ''}"
    return f"{form}, may be NULL" if column.is_nullable else form


def _index_changes(table: WantedTable, at: FoundTable) -> Iterator[PlannedChange]:
    for name, definition in table.indexes.items():
        known = at.indexes.get(name)
        if known is None or known.definition != definition:
            step = Step.ADD if known is None else Step.REPLACE
            detail = f"on {table.name} ({definition})"
            yield PlannedChange(step=step, kind="index", name=name, detail=detail)


def _required_changes(table: WantedTable, at: FoundTable) -> Iterator[PlannedChange]:
    if not table.required_name:
        return
    known = _known_required(table, at)
    if known != table.required:
        step = Step.ADD if not known else Step.REPLACE
        columns = ", ".join(sorted(table.required)) or "nothing"
        yield PlannedChange(
            step=step,
            kind="constraint",
            name=table.required_name,
            detail=f"on {table.name}: {columns} required",
        )


def _known_required(table: WantedTable, at: FoundTable) -> frozenset[str]:
    """Give the columns that the installed constraint asks for."""
    meta = {column.name for column in table if column.role is ColumnRole.META}
    return at.checks.get(table.required_name, frozenset()) - meta


def _routine_changes(wanted: WantedSchema, found: FoundSchema) -> Iterator[PlannedChange]:
    for name, definition in wanted.routines.items():
        known = found.routines.get(name, frozenset())
        if definition not in known:
            step = Step.REPLACE if known else Step.ADD
            yield PlannedChange(step=step, kind="procedure", name=name)


def _registrations(
    wanted: WantedSchema, entity: WantedEntity, found: FoundSchema
) -> Iterator[PlannedChange]:
    newest = found.newest(entity.name)
    if newest is None or newest.digest != entity.digest:
        yield PlannedChange(
            step=Step.REGISTER,
            kind="declaration",
            name=entity.name,
            detail=f"mapping revision {_next_revision(entity, found)}",
        )
    rolled_up = found.newest(rollup_entry(entity.name))
    known = "" if rolled_up is None else rolled_up.digest
    if known == entity.rollup_digest:
        return
    if not entity.rollup_digest:
        yield PlannedChange(
            step=Step.REGISTER,
            kind="roll-up",
            name=entity.name,
            detail="as ended: its columns stay, with what they hold",
        )
    elif any(
        t.name in found.tables
        for t in wanted.tables
        if t.entity in (entity.name, entity.rollup_into)
    ):
        yield PlannedChange(
            step=Step.RECOMPUTE,
            kind="roll-up",
            name=entity.name,
            detail=f"into {entity.rollup_into}; writers wait meanwhile",
        )


def _next_revision(entity: WantedEntity, found: FoundSchema) -> int:
    newest = found.newest(entity.name)
    return 1 if newest is None else newest.mapping_revision + 1


def _backfills(wanted: WantedSchema, found: FoundSchema) -> Iterator[NeededBackfill]:
    for entity in wanted.entities:
        newest = found.newest(entity.name)
        tables = [t for t in wanted.tables if t.entity == entity.name]
        is_there = any(t.name in found.tables for t in tables if t.role is not TableRole.AUDIT)
        if (newest is not None and newest.digest == entity.digest) or not is_there:
            continue
        yield NeededBackfill(
            entity=entity.name,
            check=entity.check,
            mapping_revision=_next_revision(entity, found),
            fills=tuple(_filled_by_backfill(tables, found)),
            is_adoption=newest is None,
        )


def _filled_by_backfill(tables: list[WantedTable], found: FoundSchema) -> Iterator[str]:
    for table in tables:
        at = found.tables.get(table.name)
        if at is None:
            if table.role is TableRole.CHILD:
                yield table.declared
            continue
        for column in table:
            if column.role is ColumnRole.DOCUMENT and column.name not in at.columns:
                yield column.declared or column.name


def _kept(wanted: WantedSchema, found: FoundSchema) -> Iterator[str]:
    for table in wanted.tables:
        at = found.tables.get(table.name)
        if at is not None and at.is_table:
            yield from (f"{table.name}.{name}" for name in own_columns(table, at))


def _notes(wanted: WantedSchema, found: FoundSchema) -> Iterator[str]:
    declared = {entity.name for entity in wanted.entities}
    for name in found.registered:
        if name not in declared and not is_rollup_entry(name):
            yield f"{name} is no longer declared; its tables stay, and nothing writes them"
    for table in wanted.tables:
        at = found.tables.get(table.name)
        if at is None:
            continue
        new = table.required - _known_required(table, at)
        names = sorted(c.declared for c in table if c.name in new)
        if names:
            yield (
                f"{table.entity}: {', '.join(names)} required from now on; rows that are there "
                "stand until they are mapped anew, and a document without it becomes a dead letter"
            )
