"""
Whether a table that is there can be mirrored into, and what to do where it cannot.

A table may be one that StoreMirror made, or one that a team made itself and that is adopted:
the same must hold of both.  Pure.

What it cannot see: triggers, and unique indexes over expressions, that refuse what is written.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from storemirror.sql.catalogue import (
    ColumnRole,
    FoundColumn,
    FoundTable,
    TableRole,
    WantedColumn,
    WantedTable,
)


class Alteration(enum.StrEnum):
    """A change of a column that keeps every value in it."""

    TYPE = "type"  #: give it the wanted type and collation
    NULLABLE = "nullable"  #: let it be NULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something that stands in the way; nothing is changed while there is one."""

    #: What is the matter: "column dm_message.body is jsonb and is declared as text, …".
    what: str
    #: What a person can do about it.
    cure: str
    table: str = ""
    column: str = ""
    #: What would mend it without losing a value; None: only a person can.
    alteration: Alteration | None = None

    def __str__(self) -> str:
        """Give it as one sentence."""
        return f"{self.what}; {self.cure}"


def refusals_of(wanted: WantedTable, found: FoundTable) -> Iterator[Refusal]:
    """Say what keeps rows from being written into a table, or from being found in it."""
    if not found.is_table:
        yield Refusal(
            what=f"{wanted.name} is there and is no table", cure="rename it", table=wanted.name
        )
        return
    for column in wanted:
        at = found.columns.get(column.name)
        if at is None:
            yield from _absent(wanted, column)
        else:
            yield from _column_refusals(wanted, column, at, found)
    if all(name in found.columns for name in wanted.key):
        yield from _key_refusals(wanted, found)
    yield from _constraint_refusals(wanted, found)
    yield from _own_columns(wanted, found)


def _absent(table: WantedTable, column: WantedColumn) -> Iterator[Refusal]:
    """A column that is missing is added, except where rows that are there would need a value."""
    if column.role is ColumnRole.KEY:
        yield Refusal(
            what=f"table {table.name} has no column {column.name}, which is part of its key",
            cure="add and fill it, or rename the table",
            table=table.name,
            column=column.name,
        )
    elif table.role is TableRole.AUDIT:
        yield Refusal(
            what=f"table {table.name} has no column {column.name}, so it is no audit table",
            cure="rename it",
            table=table.name,
            column=column.name,
        )


def _column_refusals(
    table: WantedTable, column: WantedColumn, at: FoundColumn, found: FoundTable
) -> Iterator[Refusal]:
    place = f"column {table.name}.{column.name}"

    def refusal(what: str, cure: str, alteration: Alteration | None = None) -> Refusal:
        return Refusal(
            what=f"{place} {what}",
            cure=cure,
            table=table.name,
            column=column.name,
            alteration=alteration,
        )

    if column.expression != at.expression:
        yield refusal(*_computed_otherwise(column, at))
        return
    if at.type != column.type:
        is_wider = at.type in column.widens
        declared = "declared as" if column.declared else "to be"
        limit = f"({at.max_length})" if at.max_length is not None else ""
        yield refusal(
            f"is {at.type}{limit} and is {declared} {column.type}, which would change rows",
            "every value would be kept"
            if is_wider
            else "declare it as it is, or put its values into a column of the declared type",
            Alteration.TYPE if is_wider else None,
        )
    elif column.is_binary and not at.is_binary:
        yield refusal(
            "is not compared byte by byte, so that its ids have another order and equality than "
            "Firestore's",
            "every value would be kept, and its indexes be made anew",
            Alteration.TYPE,
        )
    if column.role is ColumnRole.META:
        if _is_foreign_meta(column, at, found):
            yield refusal("has the name of one of StoreMirror's own and is another", "rename it")
    elif column.role is ColumnRole.KEY and at.is_nullable:
        yield refusal("is part of the key and may be NULL", "make it NOT NULL")
    if column.is_nullable and not at.is_nullable:
        yield refusal(
            "is NOT NULL, and tombstones and stubs have no value for it",
            "every value would be kept",
            Alteration.NULLABLE,
        )


def _computed_otherwise(column: WantedColumn, at: FoundColumn) -> tuple[str, str]:
    if column.expression is None:
        return f"is computed ({at.expression}), and documents fill it", "rename it"
    how = "not computed" if at.expression is None else at.expression
    return (
        f"is {how} and is declared as {column.expression}, which would change rows",
        "declare it under another name, or remove the column yourself",
    )


def _is_foreign_meta(column: WantedColumn, at: FoundColumn, found: FoundTable) -> bool:
    """Tell whether a column has only the name of one of ours."""
    if column.is_checked and frozenset({column.name}) not in found.checks.values():
        return True
    return (not column.is_nullable and at.is_nullable) or (
        column.has_default and not at.has_default
    )


def _key_refusals(table: WantedTable, found: FoundTable) -> Iterator[Refusal]:
    unique = [i.columns for i in found.indexes.values() if i.is_unique and i.is_plain]
    if table.key not in unique:
        yield Refusal(
            what=f"table {table.name} has no unique key on ({', '.join(table.key)})",
            cure="make one, on these columns in this order; of rows that are there twice all but "
            "one must go first",
            table=table.name,
        )


def _constraint_refusals(table: WantedTable, found: FoundTable) -> Iterator[Refusal]:
    """Say which constraints would refuse documents that Firestore has taken."""
    filled = {column.name for column in table}
    for name, index in found.indexes.items():
        columns = set(index.columns)
        if index.is_unique and columns and columns <= filled and not columns >= set(table.key):
            yield Refusal(
                what=f"unique index {name} on {table.name} ({', '.join(index.columns)}) would "
                "refuse a document that has the same values as another",
                cure="remove it, or make it one that is not unique",
                table=table.name,
            )
    for name, key in found.foreign_keys.items():
        if not filled.isdisjoint(key.columns) and not _is_kept_by_us(
            table, key.columns, key.target
        ):
            yield Refusal(
                what=f"foreign key {name} on {table.name} ({', '.join(key.columns)}) would refuse "
                "documents: they arrive in any order",
                cure="remove it",
                table=table.name,
            )


def _is_kept_by_us(table: WantedTable, columns: tuple[str, ...], target: str) -> bool:
    """Tell whether the row that a foreign key names is always written before."""
    return table.parent is not None and (target, columns) == (
        table.parent[0],
        table.key[: table.parent[1]],
    )


def _own_columns(table: WantedTable, found: FoundTable) -> Iterator[Refusal]:
    for name in own_columns(table, found):
        column = found.columns[name]
        if not column.is_nullable and not column.has_default and column.expression is None:
            yield Refusal(
                what=f"column {table.name}.{name} is not declared, is NOT NULL and has no default, "
                "so that no row could be written",
                cure="give it a default, let it be NULL, or declare it",
                table=table.name,
                column=name,
            )


def own_columns(table: WantedTable, found: FoundTable) -> list[str]:
    """Name the columns that no declaration has: a team's own, or declared once."""
    wanted = {column.name for column in table}
    return [name for name in found.columns if name not in wanted]
