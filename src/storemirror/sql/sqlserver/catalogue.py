"""Reads what is installed from SQL Server's catalogue.  Takes no lock that a writer would meet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

from storemirror.sql.catalogue import (
    FoundColumn,
    FoundForeignKey,
    FoundIndex,
    FoundSchema,
    FoundTable,
    Registered,
    WantedSchema,
    WantedTable,
)
from storemirror.sql.sqlserver.connection import CALL_TIMEOUT_S, Row, Session, composed
from storemirror.sql.sqlserver.facts import ServerFacts
from storemirror.sql.sqlserver.locks import text
from storemirror.sql.sqlserver.naming import DIGEST_LENGTH, KEPT_OF_NAME, quoted
from storemirror.sql.sqlserver.tables import expression_of
from storemirror.sql.sqlserver.types import COLLATION, spelled_type
from storemirror.sql.sqlserver.wanted import routine_definition

_IDS: Final = "SELECT w.Place, OBJECT_ID(w.Name) FROM (VALUES {names}) AS w (Place, Name);"
#: Of the objects that there are: their kinds, columns, indexes, constraints and texts.
_OBJECTS: Final = """
SELECT o.object_id, RTRIM(o.type) FROM sys.objects AS o WHERE o.object_id IN ({ids});
SELECT c.object_id, c.name, y.name AS type_name, CAST(c.max_length AS INT),
       CAST(c.[precision] AS INT), CAST(c.[scale] AS INT), CAST(c.is_nullable AS INT),
       CASE WHEN c.default_object_id <> 0 THEN 1 ELSE 0 END, c.collation_name,
       CAST(c.is_identity AS INT), k.[definition]
FROM sys.columns AS c
JOIN sys.types AS y ON y.user_type_id = c.user_type_id
LEFT JOIN sys.computed_columns AS k ON k.object_id = c.object_id AND k.column_id = c.column_id
WHERE c.object_id IN ({ids})
ORDER BY c.object_id, c.column_id;
SELECT i.object_id, i.name, CAST(i.is_unique AS INT), CAST(i.has_filter AS INT),
       CAST(i.is_disabled AS INT), c.name AS column_name, CAST(k.is_descending_key AS INT),
       CAST(k.is_included_column AS INT)
FROM sys.indexes AS i
JOIN sys.index_columns AS k ON k.object_id = i.object_id AND k.index_id = i.index_id
JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id
WHERE i.object_id IN ({ids}) AND (k.key_ordinal > 0 OR k.is_included_column = 1)
ORDER BY i.object_id, i.index_id, k.is_included_column, k.key_ordinal, k.index_column_id;
SELECT o.parent_object_id, o.name, o.[definition]
FROM sys.[check_constraints] AS o WHERE o.parent_object_id IN ({ids});
SELECT f.parent_object_id, f.name, t.name AS target_name, c.name AS column_name
FROM sys.foreign_keys AS f
JOIN sys.foreign_key_columns AS k ON k.constraint_object_id = f.object_id
JOIN sys.columns AS c ON c.object_id = k.parent_object_id AND c.column_id = k.parent_column_id
JOIN sys.objects AS t ON t.object_id = f.referenced_object_id
WHERE f.parent_object_id IN ({ids})
ORDER BY f.object_id, k.constraint_column_id;
SELECT m.object_id, m.[definition] FROM sys.sql_modules AS m WHERE m.object_id IN ({ids});
"""
_INFO: Final = """
IF OBJECT_ID({name}, N'U') IS NOT NULL
    SELECT SchemaVersion, Project, StoreDatabase FROM {table};
"""
_REGISTERED: Final = """
IF OBJECT_ID({name}, N'U') IS NOT NULL
    SELECT Entity, MappingRevision, Digest FROM {table} ORDER BY MappingRevision;
"""
_LITERAL: Final = re.compile(r"N?'(?:[^']|'')*'")
_BRACKETED: Final = re.compile(r"\[((?:[^\]]|\]\])+)\]")
_WORD: Final = re.compile(r"\w+")
#: The type behind a value, as PostgreSQL and T-SQL write it.
_CAST: Final = re.compile(r"(?:::|\bAS )\s*[\w.\"]+(?:\([^()]*\))?", re.IGNORECASE)
#: Characters of a routine that Babelfish's catalogue of before 2024 tells.
_TOLD_LENGTH: Final = 4_000
#: Types whose length is told in bytes, two for each character of the first pair.
_TWO_BYTES: Final = ("nvarchar", "nchar")
_BOUNDED: Final = (*_TWO_BYTES, "varchar", "char", "varbinary", "binary")
_SCALED: Final = ("datetime2", "datetimeoffset", "time")


async def read_catalogue(session: Session, wanted: WantedSchema, facts: ServerFacts) -> FoundSchema:
    """Read what there is of what is wanted, in the spelling of what is wanted."""
    tables = {table.name: table for table in wanted.tables}
    names = [*tables, *wanted.own_tables]
    ids = await _ids(session, [(wanted.name, name) for name in names])
    routine_ids = await _ids(session, [tuple(name.split(".", 1)) for name in wanted.routines])
    by_id = {number: names[place] for place, number in ids.items()}
    routine_names = list(wanted.routines)
    routines = {number: routine_names[place] for place, number in routine_ids.items()}
    kinds, columns, indexes, checks, keys, texts = await _objects(session, [*by_id, *routines])
    found: dict[str, FoundTable] = {}
    for number, kind in kinds:
        name = by_id.get(number)
        if name is not None:
            found[name] = _Reading(tables.get(name), facts).table(
                is_table=kind == "U",
                columns=_of(columns, number),
                indexes=_of(indexes, number),
                checks=_of(checks, number),
                foreign_keys=_of(keys, number),
            )
    info = await _rows_if_there(session, wanted.name, "StoreMirrorSchemaInfo", _INFO)
    version, project, store = info[0] if info else (None, None, None)
    definitions: dict[int, str | None] = dict(texts)
    return FoundSchema(
        version=version,
        project=project,
        database=store,
        tables=found,
        routines={
            name: frozenset(
                {
                    _definition(
                        definitions.get(number) or "",
                        "" if facts.is_microsofts else wanted.routines[name],
                    )
                }
            )
            for number, name in routines.items()
        },
        registered=await _registered(session, wanted.name),
    )


class _Reading:
    """Spells what was found of one table as what is wanted of it."""

    def __init__(self, wanted: WantedTable | None, facts: ServerFacts) -> None:
        self._wanted = wanted
        self._facts = facts
        self._columns = {c.name: c.type for c in wanted} if wanted else {}
        self._indexes = wanted.indexes if wanted else {}
        self._named = [*self._indexes, *(wanted.replacements.values() if wanted else ())]

    def table(
        self,
        *,
        is_table: bool,
        columns: Sequence[Row],
        indexes: Sequence[Row],
        checks: Sequence[Row],
        foreign_keys: Sequence[Row],
    ) -> FoundTable:
        """Give one relation as it is."""
        named = {self._column(name): self._found_column(name, rest) for name, *rest in columns}
        return FoundTable(
            is_table=is_table,
            columns=named,
            indexes=self._found_indexes(indexes),
            foreign_keys=self._found_keys(foreign_keys),
            checks={
                self._check(name): _named_in(
                    definition, named, is_bracketed=self._facts.is_microsofts
                )
                for name, definition in checks
            },
        )

    def _check(self, name: str) -> str:
        wanted = [self._wanted.required_name] if self._wanted else []
        return spelled(name, wanted, may_go_on=True)

    def _column(self, name: str) -> str:
        return spelled(name, self._columns)

    def _found_column(self, name: str, record: Sequence[Any]) -> FoundColumn:
        kind, length, _, scale, is_nullable, has_default, collation, is_identity, text_ = record
        length = length // 2 if kind.lower() in _TWO_BYTES and length > 0 else length
        computed = None if text_ is None else expression_of(text_)
        return FoundColumn(
            type=spelled_type(
                kind, length, scale, wanted=self._columns.get(self._column(name), "")
            ),
            is_nullable=bool(is_nullable),
            has_default=bool(has_default or is_identity),
            is_binary=collation is None or self._is_binary(collation),
            expression="an identity" if is_identity else computed,
        )

    def _is_binary(self, collation: str) -> bool:
        """Tell whether a collation compares unit by unit; others spell the same one otherwise."""
        if self._facts.is_microsofts:
            return collation.lower() == COLLATION.lower()
        return "bin2" in collation.lower()

    def _found_indexes(self, records: Sequence[Row]) -> Mapping[str, FoundIndex]:
        parts: dict[str, list[str]] = {}
        about: dict[str, tuple[int, int, int]] = {}
        spelling: dict[str, list[str]] = {}
        covered: dict[str, list[str]] = {}
        for name, is_unique, has_filter, is_disabled, column, is_descending, is_included in records:
            index = spelled(name, self._named, may_go_on=True)
            if is_included:
                covered.setdefault(index, []).append(self._column(column))
                continue
            about[index] = (is_unique, has_filter, is_disabled)
            parts.setdefault(index, []).append(self._column(column))
            down = " DESC" if is_descending else ""
            spelling.setdefault(index, []).append(f"{self._column(column)}{down}")
        found = {}
        for index, (is_unique, has_filter, is_disabled) in about.items():
            plain = ", ".join(spelling[index])
            if index in covered:
                plain += f" including {', '.join(covered[index])}"
            is_partial = has_filter or self._is_untold(index, plain)
            found[index] = FoundIndex(
                definition=f"{plain} (partial)" if is_partial else plain,
                columns=tuple(parts[index]),
                is_unique=bool(is_unique),
                is_plain=not is_partial and not is_disabled,
            )
        return found

    def _is_untold(self, index: str, definition: str) -> bool:
        """Tell whether an index of ours may be a partial one: not every server's catalogue says."""
        is_wanted = self._indexes.get(index) == f"{definition} (partial)"
        return is_wanted and not self._facts.is_microsofts

    def _found_keys(self, records: Sequence[Row]) -> Mapping[str, FoundForeignKey]:
        columns: dict[str, list[str]] = {}
        targets: dict[str, str] = {}
        parent = [self._wanted.parent[0]] if self._wanted and self._wanted.parent else []
        for name, target, column in records:
            columns.setdefault(name, []).append(self._column(column))
            targets[name] = spelled(target, parent)
        return {
            name: FoundForeignKey(columns=tuple(names), target=targets[name])
            for name, names in columns.items()
        }


def spelled(name: str, wanted: Iterable[str], *, may_go_on: bool = False) -> str:
    """
    Spell a name as it is wanted: most databases compare names without case.

    Args:
        name: as the catalogue has it.
        wanted: the names that it may be.
        may_go_on: Babelfish lets the names of indexes and constraints go on with their table's and
            a digest.

    >>> spelled("senderid", ["SenderId"]), spelled("other", ["SenderId"])
    ('SenderId', 'other')
    >>> spelled("ix_order_purgeorder" + 32 * "f", ["IX_Order_Purge"], may_go_on=True)
    'IX_Order_Purge'
    """
    known = list(wanted)
    if name in known:
        return name
    lower = name.lower()
    for candidate in known:
        if lower == candidate.lower():
            return candidate
    for candidate in known if may_go_on else ():
        kept = candidate.lower()[:KEPT_OF_NAME]
        if kept and lower.startswith(kept) and len(lower) >= len(kept) + DIGEST_LENGTH:
            return candidate
    return name


def type_of(name: str, max_length: int, precision: int, scale: int) -> str:
    """
    Write a type as T-SQL has it.

    >>> type_of("nvarchar", 256, 0, 0), type_of("varbinary", -1, 0, 0), type_of("bit", 1, 1, 0)
    ('nvarchar(128)', 'varbinary(max)', 'bit')
    >>> type_of("datetime2", 8, 26, 6), type_of("decimal", 9, 18, 2)
    ('datetime2(6)', 'decimal(18,2)')
    """
    kind = name.lower()
    if kind in _BOUNDED:
        size = max_length // 2 if kind in _TWO_BYTES else max_length
        return f"{kind}({'max' if max_length == -1 else size})"
    if kind in _SCALED:
        return f"{kind}({scale})"
    return f"{kind}({precision},{scale})" if kind in ("decimal", "numeric") else kind


def _named_in(
    definition: str | None, columns: Iterable[str], *, is_bracketed: bool
) -> frozenset[str]:
    """
    Give the columns that a constraint speaks of; its texts may hold their names too.

    Args:
        definition: as the catalogue has it.
        columns: the names that may be among it.
        is_bracketed: SQL Server writes every name in brackets.  PostgreSQL writes an array of the
            values of IN, and types behind them.
    """
    plain = _LITERAL.sub("", definition or "")
    found = _BRACKETED.findall(plain) if is_bracketed else _WORD.findall(_CAST.sub(" ", plain))
    words = {name.replace("]]", "]").lower() for name in found}
    return frozenset(column for column in columns if column.lower() in words)


def _definition(told: str, wanted: str) -> str:
    """
    Spell what a routine does as it is wanted.

    Args:
        told: by the catalogue.
        wanted: of a server that may tell the beginning alone; empty of one that tells all.
    """
    found = routine_definition(told)
    is_cut = len(told) == _TOLD_LENGTH and wanted.startswith(found)
    return wanted if wanted and is_cut else found


def _of(records: Sequence[Row], number: int) -> list[Row]:
    return [record[1:] for record in records if record[0] == number]


async def _ids(session: Session, names: Sequence[tuple[str, ...]]) -> dict[int, int]:
    """Give place among the names -> object id, of those that there are."""
    if not names:
        return {}
    listed = ", ".join(
        f"({place}, {text('.'.join(quoted(part) for part in name))})"
        for place, name in enumerate(names)
    )
    batch = composed(_IDS, names=listed)
    [found] = await session.run(batch, (), CALL_TIMEOUT_S)
    return {place: number for place, number in found if number is not None}


async def _objects(session: Session, ids: Sequence[int]) -> list[list[Row]]:
    listed = ", ".join(str(number) for number in ids) or "0"
    return await session.run(composed(_OBJECTS, ids=listed), (), CALL_TIMEOUT_S)


async def _rows_if_there(
    session: Session, schema: str, table: str, query: LiteralString
) -> list[Row]:
    name = f"{quoted(schema)}.{quoted(table)}"
    batch = composed(query, name=text(name), table=name)
    results = await session.run(batch, (), CALL_TIMEOUT_S)
    return results[0] if results else []


async def _registered(session: Session, schema: str) -> Mapping[str, tuple[Registered, ...]]:
    found: dict[str, tuple[Registered, ...]] = {}
    for entity, revision, digest in await _rows_if_there(
        session, schema, "StoreMirrorDeclaration", _REGISTERED
    ):
        known = Registered(mapping_revision=revision, digest=digest)
        found[entity] = (*found.get(entity, ()), known)
    return found
