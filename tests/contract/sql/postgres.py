"""PostgreSQL for the contract suite; see `tests.contract.sql.side_door`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

import pytest

from storemirror.clock import SystemClock, us_from_datetime
from storemirror.errors import SqlUnavailable, StoreMirrorError
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import JsonScalar
from storemirror.sql.names import snake_case
from storemirror.sql.port import RowEvent
from storemirror.sql.postgres.batch import BatchEncoder
from storemirror.sql.postgres.connection import sql
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.sql.postgres.reads import PostgresReads, reading_database
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.schema import PostgresSchema
from tests.support.databases import Databases
from tests.support.mirrors import (
    PROJECT,
    SCHEMA,
    STORE,
    MirrorUnderTest,
    assert_equal,
    declared_tables,
    new_mirror_dsn,
)
from tests.support.planted import plant
from tests.support.reference import Key, Reference

_WAITING_PURGE: Final = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL%%purge%%'"
    " AND datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
)


class PostgresSpelling:
    """See `Spelling`."""

    call_limit = "1 to 2,000"
    retyped = ("jsonb", "text")
    schema_name = SCHEMA

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering

    def column(self, name: str) -> str:
        return snake_case(name)

    def procedure(self, name: str) -> str:
        return ".".join(self._rendering.procedure_parts(name))

    def index(self, table: str, what: str) -> str:
        return f"{snake_case(table)}_{what.lower()}"

    def required(self, table: str) -> str:
        return f"{snake_case(table)}_required"


class PostgresInstalled(MirrorUnderTest):
    """See `Installed`."""

    honours_locks = True

    def __init__(
        self, model: Model, dsn: str, *, project: str, store: str, procedures: Mapping[str, str]
    ) -> None:
        super().__init__(model, dsn)
        self.rendering = Rendering(model, schema_name=SCHEMA, procedures=procedures)
        self.spelling = PostgresSpelling(self.rendering)
        self.mirror = PostgresMirror(self.database, self.rendering, project=project, store=store)
        self.schema = PostgresSchema(self.database, self.rendering, project=project, store=store)
        self.reading = reading_database(dsn)
        self.reads = PostgresReads(self.reading, self.rendering)

    async def open(self) -> None:
        await self.database.open()
        await self.reading.open()

    async def aclose(self) -> None:
        await self.reading.aclose()
        await self.database.aclose()

    def rank(self, name: str) -> bytes:
        return name.encode()

    async def assert_equal(self, reference: Reference) -> None:
        await assert_equal(self, reference)

    async def damage(
        self,
        entity: Entity,
        keys: Sequence[Key],
        *,
        version: int | None = None,
        mapping_revision: int | None = None,
        digest: str | None = None,
    ) -> None:
        changes = {
            "last_event_version": version,
            "mapping_revision": mapping_revision,
            "last_event_digest": digest,
        }
        for column, value in changes.items():
            if value is not None:
                query = sql.SQL("UPDATE {} SET {} = %s WHERE {} = ANY (%s)").format(
                    _table(entity.name), sql.Identifier(column), _joined_key(entity)
                )
                await self.execute(query, (value, ["/".join(key) for key in keys]))

    async def damage_rollup(self, entity: Entity, key: Key, column: str, value: object) -> None:
        query = sql.SQL("UPDATE {} SET {} = %s WHERE {} = %s").format(
            _table(entity.name), sql.Identifier(snake_case(column)), _joined_key(entity)
        )
        assert await self.execute(query, (value, "/".join(key))) == 1

    async def damage_contents(
        self, entity: Entity, key: Key, columns: Mapping[str, JsonScalar]
    ) -> None:
        changes = [
            sql.SQL("{} = %s").format(sql.Identifier(snake_case(column))) for column in columns
        ]
        query = sql.SQL("UPDATE {} SET {} WHERE {} = %s").format(
            _table(entity.name), sql.SQL(", ").join(changes), _joined_key(entity)
        )
        assert await self.execute(query, (*columns.values(), "/".join(key))) == 1

    async def set_applied_at(self, entity: Entity, moments: Mapping[Key, int]) -> None:
        query = sql.SQL(
            "UPDATE {} SET applied_at = timestamptz 'epoch' + %s * interval '1 microsecond'"
            " WHERE {} = %s"
        ).format(_table(entity.name), _joined_key(entity))
        for key, moment_us in moments.items():
            await self.execute(query, (moment_us, "/".join(key)))

    async def damage_children(self, entity: Entity, key: Key) -> None:
        for child in entity.children:
            query = sql.SQL("DELETE FROM {} WHERE {} = %s").format(
                _table(child.name), _joined_key(entity)
            )
            await self.execute(query, ("/".join(key),))

    async def clear(self) -> None:
        tables = [snake_case(name) for name in declared_tables(self.model)]
        await self.execute_text(
            "; ".join(f"DELETE FROM {SCHEMA}.{name}" for name in (*tables, "purge_horizon"))
        )

    async def make_stubs(self, entity: Entity, keys: Iterable[Key]) -> None:
        names = [sql.Identifier(snake_case(k.name)) for k in entity.keys]
        query = sql.SQL("INSERT INTO {} ({}, row_state) VALUES ({}, 'stub')").format(
            _table(entity.name),
            sql.SQL(", ").join(names),
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
        )
        async with self.database.connection() as conn, conn.cursor() as cursor:
            await cursor.executemany(query, list(keys))

    async def age(self, entity: Entity, age_s: float) -> None:
        query = sql.SQL(
            "UPDATE {} SET applied_at = clock_timestamp() - make_interval(secs => %s)"
        ).format(_table(entity.name))
        await self.execute(query, (age_s,))

    async def set_horizon(self, entity: Entity, at_us: int) -> None:
        query = sql.SQL(
            "INSERT INTO {} VALUES (%s, timestamptz 'epoch' + %s * interval '1 microsecond')"
            " ON CONFLICT (entity) DO UPDATE SET horizon_at = EXCLUDED.horizon_at"
        ).format(sql.Identifier(SCHEMA, "purge_horizon"))
        await self.execute(query, (entity.name, at_us))

    async def horizon_us(self, entity: Entity) -> int | None:
        query = sql.SQL("SELECT horizon_at FROM {} WHERE entity = %s").format(
            sql.Identifier(SCHEMA, "purge_horizon")
        )
        found = await self.database.fetch(query, (entity.name,))
        return us_from_datetime(found[0][0]) if found else None

    async def child_marks(self, child: str) -> Mapping[Key, object]:
        [(entity, table)] = [(e, t) for e in self.model for t in e.children if t.name == child]
        names = [*(k.name for k in entity.keys), table.key.name]
        query = sql.SQL("SELECT {}, xmin::text, ctid::text FROM {}").format(
            sql.SQL(", ").join(sql.Identifier(snake_case(n)) for n in names), _table(child)
        )
        found = await self.database.fetch(query)
        return {tuple(row[: len(names)]): row[len(names) :] for row in found}

    async def audit_rows(self, entity: Entity) -> list[Mapping[str, object]]:
        query = sql.SQL("SELECT * FROM {}").format(_table(f"{entity.name}Audit"))
        async with self.database.connection() as conn:
            cursor = await conn.execute(query)
            names = [_camel_case(c.name) for c in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]

    async def rejected(self, procedure: str, argument: str) -> str:
        query = sql.SQL("SELECT * FROM {}(%s::jsonb)").format(
            sql.Identifier(*self.rendering.procedure_parts(procedure))
        )
        with pytest.raises(StoreMirrorError) as caught:
            await self.database.fetch(query, (argument,))
        return str(caught.value)

    def encoded(self, events: Sequence[RowEvent]) -> str:
        return BatchEncoder(self.model, {e.name: 1 for e in self.model}).events_json(events)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        query = sql.SQL("SELECT {}('{{}}'::jsonb)").format(
            sql.Identifier(*self.rendering.procedure_parts("LockRows"))
        )
        async with self.database.transaction() as conn:
            await conn.execute(query)
            yield

    @contextlib.asynccontextmanager
    async def holding(self, entity: Entity, key: Key) -> AsyncIterator[None]:
        query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s FOR UPDATE").format(
            _table(entity.name), _joined_key(entity)
        )
        async with self.database.transaction() as conn:
            assert await (await conn.execute(query, ("/".join(key),))).fetchall() == [(1,)]
            yield

    async def is_held(self, entity: Entity, key: Key) -> bool:
        query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s FOR UPDATE SKIP LOCKED").format(
            _table(entity.name), _joined_key(entity)
        )
        return await self.database.fetch(query, ("/".join(key),)) == []

    async def kill_purge(self, entity: Entity, key: Key, *, older_than_s: float) -> None:
        # The row lock is a reader's, of which the purge knows nothing: it waits in its DELETE.
        async with self.holding(entity, key):
            purging = asyncio.create_task(
                self.mirror.purge(entity, older_than_s=older_than_s, max_count=10)
            )
            clock = SystemClock()
            async with asyncio.timeout(30):
                while not (found := await self.database.fetch(_WAITING_PURGE)):
                    await clock.sleep(0.005)
            await self.database.fetch("SELECT pg_terminate_backend(%s)", found[0])
            with pytest.raises(SqlUnavailable):
                await purging

    async def execute_text(self, batch: str) -> None:
        # As bytes: what is put together here is no literal.
        async with self.database.connection() as conn:
            await conn.execute(batch.encode())

    async def plant(self, *changes: tuple[str, str]) -> None:
        await plant(self, *changes)

    def impatient(self, apply_timeout_s: float) -> PostgresMirror:
        return PostgresMirror(
            self.database,
            self.rendering,
            project=PROJECT,
            store=STORE,
            apply_timeout_s=apply_timeout_s,
        )

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[PostgresInstalled]:
        other = PostgresInstalled(self.model, self.dsn, project=PROJECT, store=STORE, procedures={})
        await other.open()
        try:
            yield other
        finally:
            await other.aclose()

    async def column_names(self, table: str) -> set[str]:
        found = await self.database.fetch(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, snake_case(table)),
        )
        return {row[0] for row in found}

    async def retype(self, entity: Entity, column: str) -> None:
        name = sql.Identifier(snake_case(column))
        await self.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE jsonb USING to_jsonb({})").format(
                _table(entity.name), name, name
            )
        )

    async def spoil_procedure(self, procedure: str) -> None:
        query = sql.SQL(
            "CREATE OR REPLACE PROCEDURE {}("
            "p_older_than interval, p_max_count integer, INOUT p_purged bigint DEFAULT 0"
            ") LANGUAGE plpgsql AS $$BEGIN p_purged := 0; END$$"
        ).format(sql.Identifier(*self.rendering.procedure_parts(procedure)))
        await self.execute(query)

    async def set_schema_version(self, version: int) -> None:
        query = sql.SQL("UPDATE {} SET schema_version = %s").format(
            sql.Identifier(SCHEMA, "schema_info")
        )
        await self.execute(query, (version,))


class PostgresServer:
    """See `Server`."""

    def __init__(self, databases: Databases, until_end: contextlib.AsyncExitStack) -> None:
        self._databases = databases
        self._until_end = until_end

    async def new_database(self) -> str:
        return await self._databases()

    def schema_name(self, address: str) -> str:
        del address
        return SCHEMA

    async def absent_database(self) -> str:
        return (await self.new_database()).replace("/test_", "/absent_")

    async def opened(
        self,
        address: str,
        model: Model,
        *,
        project: str = "demo",
        store: str = "(default)",
        procedures: Mapping[str, str] | None = None,
    ) -> PostgresInstalled:
        installed = PostgresInstalled(
            model, address, project=project, store=store, procedures=procedures or {}
        )
        await installed.open()
        self._until_end.push_async_callback(installed.aclose)
        return installed

    async def installed(self, model: Model) -> PostgresInstalled:
        made = await self.opened(await new_mirror_dsn(self._databases, model), model)
        await made.mirror.verify_schema()
        return made


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(SCHEMA, snake_case(name))


def _joined_key(entity: Entity) -> sql.Composed:
    parts = [sql.Identifier(snake_case(k.name)) for k in entity.keys]
    return sql.SQL("concat_ws('/', {})").format(sql.SQL(", ").join(parts))


def _camel_case(column: str) -> str:
    first, *rest = column.split("_")
    return first + "".join(part.capitalize() for part in rest)
