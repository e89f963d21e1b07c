"""Installs tables and procedures in PostgreSQL, and tells what is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from storemirror.errors import SchemaBoundElsewhere, SchemaMismatch
from storemirror.sql.names import procedures_of
from storemirror.sql.port import SchemaStatus
from storemirror.sql.postgres.connection import (
    Connection,
    Database,
    described,
    psycopg,
    sql,
)
from storemirror.sql.postgres.rendering import DEPLOY_FILE, Rendering, quoted
from storemirror.sql.render import SCHEMA_VERSION, SUPPORTED_VERSIONS

_BOUND_ELSEWHERE: Final = ("SM010", "SM011")


class PostgresSchema:
    """See `storemirror.sql.port.SchemaAdmin`."""

    def __init__(
        self, database: Database, rendering: Rendering, *, project: str, store: str
    ) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: opened with kind MIRROR.
            rendering: what is to be installed.
            project: Firestore project that this mirror is of.
            store: Firestore database in it.
        """
        self._database = database
        self._rendering = rendering
        self._project = project
        self._store = store

    def render(self) -> Mapping[str, str]:
        """See `SchemaAdmin.render`."""
        return {DEPLOY_FILE: self._rendering.deploy_sql()}

    async def apply(self) -> SchemaStatus:
        """See `SchemaAdmin.apply`."""
        async with self._database.transaction() as conn:
            # Two deployments at once would meet in the catalogue and one would fail.
            await conn.execute("SELECT pg_advisory_xact_lock(%s)", (self._rendering.deploy_lock,))
            await conn.execute("SET LOCAL client_min_messages = warning")
            info = await self._info(conn)
            if elsewhere := self._other_firestore(info):
                raise SchemaBoundElsewhere(f"{_listed(elsewhere)}; nothing was changed")
            refusals = self._later_version(info)
            refusals += await self._destructive(conn)
            if refusals:
                raise SchemaMismatch(f"{_listed(refusals)}; nothing was changed")
            await conn.execute(self._rendering.tables_sql().encode())
            await conn.execute(self._rendering.procedures_sql().encode())
            await self._register(conn)
            await conn.execute(self._rendering.constraints_sql().encode())
        return await self.status()

    async def status(self) -> SchemaStatus:
        """See `SchemaAdmin.status`."""
        async with self._database.connection() as conn:
            info = await self._info(conn)
            revisions = await self._revisions(conn) if info else {}
            differences = self._other_firestore(info)
            if info is None:
                differences.append(f"schema {self._rendering.schema_name} is not installed")
            else:
                differences += self._other_version(info[0])
                differences += [
                    f"the declaration of {name} is not the one installed"
                    for name, revision in revisions.items()
                    if revision is None
                ]
                differences += await self._missing(conn)
                differences += await self._destructive(conn)
        return SchemaStatus(
            is_installed=info is not None,
            installed_version=info[0] if info else None,
            expected_version=SCHEMA_VERSION,
            project=info[1] if info else None,
            database=info[2] if info else None,
            mapping_revisions=revisions,
            differences=tuple(differences),
        )

    async def verified_revisions(self) -> Mapping[str, int]:
        """
        Give entity name -> mapping revision of this code's declaration.

        Raises:
            SchemaMismatch: a writer must not run on what is installed.
        """
        status = await self.status()
        if status.differences:
            is_elsewhere = (status.project, status.database) != (self._project, self._store)
            kind = SchemaBoundElsewhere if status.is_installed and is_elsewhere else SchemaMismatch
            raise kind(_listed(status.differences))
        return {name: rev for name, rev in status.mapping_revisions.items() if rev is not None}

    async def aclose(self) -> None:
        """See `SchemaAdmin.aclose`."""
        await self._database.aclose()

    def _other_firestore(self, info: tuple[int, str, str] | None) -> list[str]:
        if info is None or info[1:] == (self._project, self._store):
            return []
        return [
            f"the schema mirrors project {info[1]}, database {info[2]}, "
            f"and the settings say project {self._project}, database {self._store}"
        ]

    def _later_version(self, info: tuple[int, str, str] | None) -> list[str]:
        if info is None or info[0] <= SCHEMA_VERSION:
            return []
        return [f"schema version {info[0]} is installed, later than this code's {SCHEMA_VERSION}"]

    def _other_version(self, installed: int) -> list[str]:
        if installed in SUPPORTED_VERSIONS:
            return []
        return [f"schema version {installed} is installed, this code works on {SCHEMA_VERSION}"]

    async def _info(self, conn: Connection) -> tuple[int, str, str] | None:
        """Give version, project and database of the installed schema."""
        table = f"{quoted(self._rendering.schema_name)}.schema_info"
        found = await (await conn.execute("SELECT to_regclass(%s)", (table,))).fetchone()
        if found is None or found[0] is None:
            return None
        query = sql.SQL("SELECT schema_version, project, database FROM {}").format(
            sql.Identifier(self._rendering.schema_name, "schema_info")
        )
        record = await (await conn.execute(query)).fetchone()
        return None if record is None else (record[0], record[1], record[2])

    async def _revisions(self, conn: Connection) -> Mapping[str, int | None]:
        """Give entity name -> newest mapping revision of exactly this code's declaration."""
        query = sql.SQL(
            "SELECT max(mapping_revision) FROM {} WHERE entity = %s AND digest = %s"
        ).format(sql.Identifier(self._rendering.schema_name, "declaration"))
        revisions: dict[str, int | None] = {}
        for entity in self._rendering.model:
            found = await (await conn.execute(query, (entity.name, entity.digest))).fetchone()
            revisions[entity.name] = found[0] if found else None
        return revisions

    async def _missing(self, conn: Connection) -> list[str]:
        """Name procedures and columns that are not there."""
        missing = []
        for procedure in procedures_of(self._rendering.model):
            parts = self._rendering.procedure_parts(procedure.name)
            found = await (
                await conn.execute(
                    "SELECT 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
                    " WHERE n.nspname = %s AND p.proname = %s",
                    parts,
                )
            ).fetchone()
            if found is None:
                missing.append(f"procedure {'.'.join(parts)} is missing")
        installed = await self._columns(conn)
        for table, columns in self._rendering.expected_columns().items():
            if table not in installed:
                missing.append(f"table {table} is missing")
                continue
            absent = sorted(set(columns) - set(installed[table]))
            if absent:
                missing.append(f"table {table} lacks {', '.join(absent)}")
        return missing

    async def _destructive(self, conn: Connection) -> list[str]:
        """Name what could only be brought about by changing what rows hold."""
        installed = await self._columns(conn)
        return [
            f"column {table}.{column} is {installed[table][column]} and is declared as {kind}, "
            "which would change rows"
            for table, columns in self._rendering.expected_columns().items()
            for column, kind in columns.items()
            if table in installed and installed[table].get(column, kind) != kind
        ] + await self._derived_otherwise(conn)

    async def _derived_otherwise(self, conn: Connection) -> list[str]:
        """Name derived columns that the database computes in another way than declared."""
        wanted = self._rendering.expected_expressions()
        found = await conn.execute(
            "SELECT c.relname, a.attname, replace(pg_get_expr(d.adbin, d.adrelid), '\"', '')"
            " FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid"
            " JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND a.attgenerated <> ''",
            (self._rendering.schema_name,),
        )
        return [
            f"column {table}.{column} is {expression} and is declared as "
            f"{wanted[table, column]}, which would change rows"
            async for table, column, expression in found
            if wanted.get((table, column), expression) != expression
        ]

    async def _columns(self, conn: Connection) -> Mapping[str, Mapping[str, str]]:
        """Give table -> column -> type, as installed."""
        columns: dict[str, dict[str, str]] = {}
        async for table, column, kind in await conn.execute(
            "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND a.attnum > 0"
            " AND NOT a.attisdropped",
            (self._rendering.schema_name,),
        ):
            columns.setdefault(table, {})[column] = kind
        return columns

    async def _register(self, conn: Connection) -> None:
        query = sql.SQL("SELECT {}(%s, %s, %s, %s::jsonb)").format(
            sql.Identifier(self._rendering.schema_name, "register_deployment")
        )
        declarations = self._rendering.declarations_json()
        try:
            await conn.execute(query, (self._project, self._store, SCHEMA_VERSION, declarations))
        except psycopg.Error as exc:
            if exc.sqlstate in _BOUND_ELSEWHERE:
                raise SchemaBoundElsewhere(described(exc)) from exc
            raise


def _listed(sentences: Sequence[str]) -> str:
    """Write one sentence as it is, several a line each."""
    return sentences[0] if len(sentences) == 1 else "".join(f"\n  {s}" for s in sentences)
