"""SQL Server for the contract suite; see `tests.contract.sql.side_door`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import pytest

from storemirror.clock import datetime_from_us, us_from_datetime
from storemirror.errors import SqlUnavailable, StoreMirrorError
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import JsonScalar
from storemirror.model.types import ColumnType
from storemirror.sql.names import pascal_case
from storemirror.sql.port import RebaseStep, RowEvent
from storemirror.sql.sqlserver.batch import BatchEncoder
from storemirror.sql.sqlserver.connection import (
    CALL_TIMEOUT_S,
    Database,
    Parameter,
    Row,
    Sql,
    in_utc,
)
from storemirror.sql.sqlserver.facts import read_facts
from storemirror.sql.sqlserver.locks import text
from storemirror.sql.sqlserver.mirror import SqlServerMirror
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.reads import SqlServerReads
from storemirror.sql.sqlserver.rebase import SqlServerRebaseLedger
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.schema import SqlServerSchema
from tests.support.mirrors import assert_equal, declared_tables, rebased
from tests.support.planted import planted
from tests.support.reference import Key, Reference

#: A row whose lock is not had in this time is somebody else's.
_HELD_AFTER_S = 0.1
#: What a text of batches has between two of them.
BETWEEN = "\nGO\n"


class SqlServerSpelling:
    """See `Spelling`."""

    call_limit = "1 to 1,000"
    retyped = ("int", "nvarchar(max)")

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self.schema_name = rendering.schema_name

    def column(self, name: str) -> str:
        return ".".join(pascal_case(part) for part in name.split("."))

    def procedure(self, name: str) -> str:
        return ".".join(self._rendering.procedure_parts(name))

    def index(self, table: str, what: str) -> str:
        return f"IX_{table}_{what}"

    def required(self, table: str) -> str:
        return f"CK_{table}_Required"


class SqlServerInstalled:
    """See `Installed`."""

    def __init__(
        self,
        model: Model,
        dsn: str,
        schema_name: str,
        *,
        project: str,
        store: str,
        procedures: Mapping[str, str],
    ) -> None:
        self.model = model
        self.honours_locks = True
        self.dsn = dsn
        self._project, self._store = project, store
        self._procedures = procedures
        self.rendering = Rendering(model, schema_name=schema_name, procedures=procedures)
        self.spelling = SqlServerSpelling(self.rendering)
        self.database = Database(dsn)
        self.mirror = SqlServerMirror(self.database, self.rendering, project=project, store=store)
        self.schema = SqlServerSchema(self.database, self.rendering, project=project, store=store)
        self.ledger = SqlServerRebaseLedger(self.database, self.rendering)
        self.reads = SqlServerReads(self.database, self.rendering)

    async def rebased(
        self, mark_us: int, *, run: str = "r1", until: RebaseStep = RebaseStep.DONE
    ) -> None:
        await rebased(self.ledger, mark_us, run=run, until=until)

    def rank(self, name: str) -> bytes:
        # Of two messages of one moment the later id is the latest by the server's own order.
        return name.encode("utf-16-be") if self.honours_locks else name.encode()

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
        changes: dict[str, Parameter | None] = {
            "LastEventVersion": version,
            "MappingRevision": mapping_revision,
            "LastEventDigest": digest,
        }
        for column, value in changes.items():
            for key in keys if value is not None else ():
                assert value is not None
                await self._changed(
                    f"UPDATE {self._table(entity.name)} SET {quoted(column)} = ?"
                    f" WHERE {_is_key(entity)};",
                    (value, *key),
                )

    async def damage_rollup(self, entity: Entity, key: Key, column: str, value: object) -> None:
        given = () if value is None else (value,)
        assert all(isinstance(one, str | int) for one in given)
        changed = await self._changed(
            f"UPDATE {self._table(entity.name)} SET {quoted(pascal_case(column))} ="
            f" {'?' if given else 'NULL'} WHERE {_is_key(entity)};",
            (*given, *key),
        )
        assert changed == 1

    async def damage_contents(
        self, entity: Entity, key: Key, columns: Mapping[str, JsonScalar]
    ) -> None:
        moments = {c.name for c in entity.columns if c.type is ColumnType.TIMESTAMP}
        changes, given = [], []
        for column, value in columns.items():
            place = "CAST(LEFT(?, 26) AS DATETIME2(6))" if column in moments else "?"
            if value is not None:
                assert isinstance(value, str | int)
                given.append(value)
            changes.append(f"{quoted(pascal_case(column))} = {'NULL' if value is None else place}")
        changed = await self._changed(
            f"UPDATE {self._table(entity.name)} SET {', '.join(changes)} WHERE {_is_key(entity)};",
            (*given, *key),
        )
        assert changed == 1

    async def set_applied_at(self, entity: Entity, moments: Mapping[Key, int]) -> None:
        for key, moment_us in moments.items():
            await self._changed(
                f"DECLARE @At DATETIME2(6) = ?;\nUPDATE {self._table(entity.name)}"
                f" SET AppliedAt = @At WHERE {_is_key(entity)};",
                (_moment(moment_us), *key),
            )

    async def damage_children(self, entity: Entity, key: Key) -> None:
        for child in entity.children:
            await self._changed(
                f"DELETE FROM {self._table(child.name)} WHERE {_is_key(entity)};", key
            )

    async def clear(self) -> None:
        for name in (*declared_tables(self.model), "StoreMirrorPurgeHorizon"):
            await self._changed(f"DELETE FROM {self._table(name)};")

    async def make_stubs(self, entity: Entity, keys: Iterable[Key]) -> None:
        names = ", ".join(quoted(pascal_case(k.name)) for k in entity.keys)
        places = ", ".join("?" for _ in entity.keys)
        for key in keys:
            await self._changed(
                f"INSERT INTO {self._table(entity.name)} ({names}, RowState)"
                f" VALUES ({places}, N'stub');",
                key,
            )

    async def age(self, entity: Entity, age_s: float) -> None:
        await self._changed(
            f"DECLARE @AgeMs INT = ?;\nUPDATE {self._table(entity.name)}"
            " SET AppliedAt = DATEADD(MILLISECOND, -@AgeMs, SYSUTCDATETIME());",
            (round(age_s * 1_000),),
        )

    async def set_horizon(self, entity: Entity, at_us: int) -> None:
        table = self._table("StoreMirrorPurgeHorizon")
        await self._changed(
            "DECLARE @Entity NVARCHAR(200) = ?, @At DATETIME2(6) = ?;\n"
            f"UPDATE {table} SET HorizonAt = @At WHERE Entity = @Entity;\n"
            f"IF @@ROWCOUNT = 0 INSERT INTO {table} (Entity, HorizonAt) VALUES (@Entity, @At);",
            (entity.name, _moment(at_us)),
        )

    async def horizon_us(self, entity: Entity) -> int | None:
        table = self._table("StoreMirrorPurgeHorizon")
        found = await self._rows(f"SELECT HorizonAt FROM {table} WHERE Entity = ?;", (entity.name,))
        return us_from_datetime(in_utc(found[0][0])) if found else None

    async def child_marks(self, child: str) -> Mapping[Key, object]:
        """Count what was written of each row since the first call: a trigger keeps a log."""
        [(entity, table)] = [(e, t) for e in self.model for t in e.children if t.name == child]
        names = [quoted(pascal_case(k.name)) for k in (*entity.keys, table.key)]
        keys = ", ".join(names)
        source, log = self._table(child), self._table("TestLog")
        if not await self.column_names("TestLog"):
            await self._alone(f"SELECT {keys} INTO {log} FROM {source} WHERE 1 = 0;")
            await self._alone(
                f"CREATE TRIGGER {self._table('TestLogged')} ON {source} AFTER INSERT, UPDATE AS"
                f" BEGIN SET NOCOUNT ON; INSERT INTO {log} ({keys})"
                f" SELECT {keys} FROM inserted; END;"
            )
        marks = {tuple(row): 0 for row in await self._rows(f"SELECT {keys} FROM {source};")}
        for row in await self._rows(f"SELECT {keys} FROM {log};"):
            marks[tuple(row)] = marks.get(tuple(row), 0) + 1
        return marks

    async def audit_ids(self, entity: Entity) -> list[str]:
        table = self._table(f"{entity.name}Audit")
        return [row[0] for row in await self._rows(f"SELECT LastEventId FROM {table};")]

    async def audit_rows(self, entity: Entity) -> list[Mapping[str, object]]:
        names = [
            *(k.name for k in entity.keys),
            *("lastEventId", "lastEventType", "lastEventTime", "lastEventVersion"),
        ]
        assert await self.column_names(f"{entity.name}Audit") == {pascal_case(n) for n in names}
        listed = ", ".join(quoted(pascal_case(name)) for name in names)
        table = self._table(f"{entity.name}Audit")
        found = await self._rows(f"SELECT {listed} FROM {table};")
        return [dict(zip(names, row, strict=True)) for row in found]

    async def rejected(self, procedure: str, argument: str) -> str:
        name = self.rendering.procedure(procedure)
        with pytest.raises(StoreMirrorError) as caught:
            async with self.database.session() as session:
                await session.run(Sql(f"EXEC {name} @Events = ?;"), (argument,), CALL_TIMEOUT_S)
        return str(caught.value)

    def encoded(self, events: Sequence[RowEvent]) -> str:
        return BatchEncoder(self.model, {e.name: 1 for e in self.model}).events_json(events)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        async with self.database.session() as session:
            await session.run_alone("BEGIN TRANSACTION;", CALL_TIMEOUT_S)
            lock = f"EXEC {self.rendering.procedure('LockRows')} @Rows = N'{{}}', @IsSilent = 1;"
            await session.run(Sql(lock), (), CALL_TIMEOUT_S)
            try:
                yield
            finally:
                await session.run_alone("ROLLBACK TRANSACTION;", CALL_TIMEOUT_S)

    def holding(self, entity: Entity, key: Key) -> contextlib.AbstractAsyncContextManager[None]:
        table = self._table(entity.name)
        write = f"UPDATE {table} SET RowState = RowState WHERE {_is_key(entity)};"
        return self._in_transaction(write, key)

    @contextlib.asynccontextmanager
    async def _in_transaction(self, batch: str, key: Key) -> AsyncIterator[None]:
        async with self.database.session() as session:
            await session.run_alone("BEGIN TRANSACTION;", CALL_TIMEOUT_S)
            await session.run(Sql(batch), key, CALL_TIMEOUT_S)
            try:
                yield
            finally:
                await session.run_alone("ROLLBACK TRANSACTION;", CALL_TIMEOUT_S)

    async def is_held(self, entity: Entity, key: Key) -> bool:
        table = self._table(entity.name)
        batch = (
            f"BEGIN TRANSACTION;\nUPDATE {table} SET RowState = RowState WHERE {_is_key(entity)};\n"
            "ROLLBACK TRANSACTION;"
        )
        # One that waits for no lock is refused by the lock alone.
        asking = Database(self.dsn, max_size=1, lock_timeout_s=_HELD_AFTER_S)
        try:
            await asking.run(Sql(batch), key)
        except SqlUnavailable:
            return True
        finally:
            await asking.aclose()
        return False

    async def kill_purge(self, entity: Entity, key: Key, *, older_than_s: float) -> None:
        # Its own wait for the lock ends it: to kill a session takes a right over the whole server.
        dying = Database(self.dsn, max_size=1, lock_timeout_s=_HELD_AFTER_S)
        mirror = SqlServerMirror(dying, self.rendering, project=self._project, store=self._store)
        try:
            async with self._keeping(entity, key):
                with pytest.raises(SqlUnavailable):
                    await mirror.purge(entity, older_than_s=older_than_s, max_count=10)
        finally:
            await dying.aclose()

    def _keeping(self, entity: Entity, key: Key) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep a row from being removed, and let it be read: without snapshots that are two."""
        if not self.honours_locks:
            return self.holding(entity, key)
        query = f"SELECT RowState FROM {self._table(entity.name)} WITH (UPDLOCK, HOLDLOCK, ROWLOCK)"
        return self._in_transaction(f"{query} WHERE {_is_key(entity)};", key)

    async def execute_text(self, batch: str) -> None:
        await self._alone(batch)

    async def plant(self, *changes: tuple[str, str]) -> None:
        made = await self.deployed()
        text = planted(BETWEEN.join(made.procedures_batches()), *changes)
        await self.install(text.split(BETWEEN))

    async def deployed(self) -> Rendering:
        """Give the texts that the server takes: only Microsoft's knows CREATE OR ALTER."""
        async with self.database.session() as session:
            facts = await read_facts(session)
        return self.rendering if facts.is_microsofts else self.rendering.with_drop_create()

    async def install(self, batches: Sequence[str]) -> None:
        """Run batches, one after the other."""
        for batch in batches:
            await self._alone(batch)

    def impatient(self, apply_timeout_s: float) -> SqlServerMirror:
        return SqlServerMirror(
            self.database,
            self.rendering,
            project=self._project,
            store=self._store,
            apply_timeout_s=apply_timeout_s,
        )

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[SqlServerInstalled]:
        other = SqlServerInstalled(
            self.model,
            self.dsn,
            self.rendering.schema_name,
            project=self._project,
            store=self._store,
            procedures=self._procedures,
        )
        other.honours_locks = self.honours_locks
        try:
            yield other
        finally:
            await other.database.aclose()

    async def column_names(self, table: str) -> set[str]:
        found = await self._rows(
            "SELECT c.name FROM sys.columns AS c"
            f" WHERE c.object_id = OBJECT_ID({text(self._table(table))});"
        )
        return {row[0] for row in found}

    async def retype(self, entity: Entity, column: str) -> None:
        table, name = self._table(entity.name), quoted(pascal_case(column))
        await self._alone(f"ALTER TABLE {table} DROP COLUMN {name};")
        await self._alone(f"ALTER TABLE {table} ADD {name} INT NULL;")

    async def spoil_procedure(self, procedure: str) -> None:
        name = self.rendering.procedure(procedure)
        await self._alone(f"DROP PROCEDURE {name};")
        await self._alone(
            f"CREATE PROCEDURE {name} @OlderThanSeconds INT, @MaxCount INT, @IsSilent BIT = 0,\n"
            "    @Purged BIGINT = NULL OUTPUT\nAS\nBEGIN\n    SET @Purged = 0;\nEND;"
        )

    async def set_schema_version(self, version: int) -> None:
        table = self._table("StoreMirrorSchemaInfo")
        await self._changed(f"UPDATE {table} SET SchemaVersion = ?;", (version,))

    def _table(self, name: str) -> str:
        return f"{quoted(self.rendering.schema_name)}.{quoted(name)}"

    async def _rows(self, batch: str, parameters: Sequence[Parameter] = ()) -> list[Row]:
        return await self.database.fetch(Sql(batch), parameters)

    async def _changed(self, batch: str, parameters: Sequence[Parameter] = ()) -> int:
        [(count,)] = await self._rows(f"{batch}\nSELECT CAST(@@ROWCOUNT AS INT);", parameters)
        return int(count)

    async def _alone(self, batch: str) -> None:
        async with self.database.session() as session:
            await session.run_alone(Sql(batch), CALL_TIMEOUT_S)


def _moment(at_us: int) -> str:
    """Write a moment as a DATETIME2 is read."""
    return datetime_from_us(at_us).replace(tzinfo=None).isoformat()


def _is_key(entity: Entity) -> str:
    return " AND ".join(f"{quoted(pascal_case(k.name))} = ?" for k in entity.keys)
