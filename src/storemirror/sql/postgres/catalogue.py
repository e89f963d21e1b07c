"""Reads what is installed from PostgreSQL's catalogue.  Takes no lock that a writer would meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from storemirror.sql.catalogue import (
    FoundColumn,
    FoundForeignKey,
    FoundIndex,
    FoundSchema,
    FoundTable,
    Registered,
    WantedSchema,
)
from storemirror.sql.postgres.connection import Connection, sql
from storemirror.sql.postgres.rendering import quoted
from storemirror.sql.postgres.wanted import routine_definition

#: `relname = ANY` keeps out what else lies in a schema that is not ours alone, such as `public`.
_RELATIONS: Final = """
SELECT c.relname, c.relkind IN ('r', 'p')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s)
"""
_COLUMNS: Final = """
SELECT c.relname, a.attname,
       CASE WHEN a.atttypid = 'varchar'::regtype THEN 'character varying'
            ELSE format_type(a.atttypid, a.atttypmod) END,
       CASE WHEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
       NOT a.attnotnull,
       (a.atthasdef AND a.attgenerated = '') OR a.attidentity <> '',
       COALESCE(l.collname = 'C', true),
       CASE WHEN a.attgenerated <> '' THEN replace(pg_get_expr(d.adbin, d.adrelid), '"', '')
            WHEN a.attidentity = 'a' THEN 'a sequence' END
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE n.nspname = %s AND c.relname = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
_INDEXES: Final = """
SELECT t.relname, i.relname, x.indisunique,
       x.indimmediate AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL,
       array_agg(a.attname::text ORDER BY k.place)
           FILTER (WHERE a.attname IS NOT NULL AND k.place <= x.indnkeyatts),
       string_agg(
           COALESCE(a.attname::text, '(expression)')
           || CASE WHEN x.indoption[k.place - 1] & 1 = 1 THEN ' DESC' ELSE '' END,
           ', ' ORDER BY k.place
       ) FILTER (WHERE k.place <= x.indnkeyatts)
       || COALESCE(' including ' || string_agg(a.attname::text, ', ' ORDER BY k.place)
           FILTER (WHERE k.place > x.indnkeyatts), '')
       || CASE WHEN x.indpred IS NULL THEN '' ELSE ' (partial)' END,
       x.indisvalid
FROM pg_index x
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place)
LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number AND k.number > 0
WHERE n.nspname = %s AND t.relname = ANY (%s)
GROUP BY t.relname, i.relname, x.indisunique, x.indimmediate, x.indisvalid, x.indpred, x.indexprs
"""
_CONSTRAINTS: Final = """
SELECT t.relname, o.conname, o.contype::text, f.relname,
       ARRAY(
           SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY AS k (number, place)
           JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.number
           ORDER BY k.place
       )
FROM pg_constraint o
JOIN pg_class t ON t.oid = o.conrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_class f ON f.oid = o.confrelid
WHERE n.nspname = %s AND t.relname = ANY (%s) AND o.contype IN ('c', 'f')
"""
_ROUTINES: Final = """
SELECT n.nspname || '.' || p.proname, p.prosrc, COALESCE(p.proconfig, '{}')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname || '.' || p.proname = ANY (%s)
"""


async def read_catalogue(conn: Connection, wanted: WantedSchema) -> FoundSchema:
    """Read what there is of what is wanted."""
    names = [*(table.name for table in wanted.tables), *wanted.own_tables]
    bound = (wanted.name, names)
    relations = await _rows(conn, _RELATIONS, bound)
    columns: dict[str, dict[str, FoundColumn]] = {}
    for table, name, kind, length, is_nullable, has_default, is_binary, expression in await _rows(
        conn, _COLUMNS, bound
    ):
        columns.setdefault(table, {})[name] = FoundColumn(
            type=kind,
            max_length=length,
            is_nullable=is_nullable,
            has_default=has_default,
            is_binary=is_binary,
            expression=expression,
        )
    indexes: dict[str, dict[str, FoundIndex]] = {}
    for table, name, is_unique, is_plain, parts, definition, is_whole in await _rows(
        conn, _INDEXES, bound
    ):
        indexes.setdefault(table, {})[name] = FoundIndex(
            definition=definition,
            columns=tuple(parts or ()),
            is_unique=is_unique,
            is_plain=is_plain,
            is_whole=is_whole,
        )
    checks, foreign_keys = await _constraints(conn, bound)
    info = await _info(conn, wanted.name)
    return FoundSchema(
        version=info[0] if info else None,
        project=info[1] if info else None,
        database=info[2] if info else None,
        tables={
            name: FoundTable(
                is_table=is_table,
                columns=columns.get(name, {}),
                indexes=indexes.get(name, {}),
                foreign_keys=foreign_keys.get(name, {}),
                checks=checks.get(name, {}),
            )
            for name, is_table in relations
        },
        routines=await _routines(conn, wanted),
        registered=await _registered(conn, wanted.name),
    )


async def _constraints(
    conn: Connection, bound: tuple[str, list[str]]
) -> tuple[Mapping[str, dict[str, frozenset[str]]], Mapping[str, dict[str, FoundForeignKey]]]:
    checks: dict[str, dict[str, frozenset[str]]] = {}
    foreign_keys: dict[str, dict[str, FoundForeignKey]] = {}
    for table, name, kind, target, parts in await _rows(conn, _CONSTRAINTS, bound):
        if kind == "c":
            checks.setdefault(table, {})[name] = frozenset(parts)
        else:
            key = FoundForeignKey(columns=tuple(parts), target=target)
            foreign_keys.setdefault(table, {})[name] = key
    return checks, foreign_keys


async def _routines(conn: Connection, wanted: WantedSchema) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for name, body, config in await _rows(conn, _ROUTINES, (list(wanted.routines),)):
        settings = dict(setting.split("=", 1) for setting in config)
        known = frozenset({routine_definition(body, settings)})
        found[name] = found.get(name, frozenset()) | known
    return found


async def _info(conn: Connection, schema: str) -> tuple[int, str, str] | None:
    """Give version, project and database of the installed schema."""
    if not await _is_there(conn, schema, "schema_info"):
        return None
    query = sql.SQL("SELECT schema_version, project, database FROM {}").format(
        sql.Identifier(schema, "schema_info")
    )
    record = await (await conn.execute(query)).fetchone()
    return None if record is None else (record[0], record[1], record[2])


async def _registered(conn: Connection, schema: str) -> Mapping[str, tuple[Registered, ...]]:
    if not await _is_there(conn, schema, "declaration"):
        return {}
    query = sql.SQL(
        "SELECT entity, mapping_revision, digest FROM {} ORDER BY mapping_revision"
    ).format(sql.Identifier(schema, "declaration"))
    found: dict[str, tuple[Registered, ...]] = {}
    async for entity, revision, digest in await conn.execute(query):
        known = Registered(mapping_revision=revision, digest=digest)
        found[entity] = (*found.get(entity, ()), known)
    return found


async def _is_there(conn: Connection, schema: str, table: str) -> bool:
    name = f"{quoted(schema)}.{quoted(table)}"
    record = await (await conn.execute("SELECT to_regclass(%s)", (name,))).fetchone()
    return record is not None and record[0] is not None


async def _rows(conn: Connection, query: Any, bound: Sequence[object]) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query, bound)).fetchall()
