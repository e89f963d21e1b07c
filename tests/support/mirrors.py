"""Makes mirrors on real databases, and compares what they hold with the reference."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Protocol

from storemirror.clock import rfc3339_from_us, us_from_datetime
from storemirror.event.change import RowState
from storemirror.model.entity import Entity, Model
from storemirror.sql.names import snake_case
from storemirror.sql.port import MirrorRow, RebaseLedger, RebaseStep, SqlMirror
from storemirror.sql.postgres.connection import MIRROR, Database, psycopg, sql
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.sql.postgres.rebase import PostgresRebaseLedger
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.schema import PostgresSchema
from tests.support.databases import Databases
from tests.support.reference import Key, Reference, rollup_of

PROJECT = "demo"
STORE = "(default)"
SCHEMA = "storemirror"


class Audited(Protocol):
    """A mirror whose audit tables can be read past it, in any dialect."""

    @property
    def mirror(self) -> SqlMirror:
        """Give the adapter under test."""
        ...

    async def audit_ids(self, entity: Entity) -> list[str]:
        """Give the event ids in an audit table."""
        ...


class MirrorUnderTest:
    """A PostgreSQL mirror with an installed schema, and a way past the adapter to its tables."""

    def __init__(self, model: Model, dsn: str) -> None:
        self.model = model
        self.dsn = dsn
        self.rendering = Rendering(model, schema_name=SCHEMA, procedures={})
        self.database = Database(dsn, MIRROR, max_size=8)
        self.mirror = PostgresMirror(self.database, self.rendering, project=PROJECT, store=STORE)
        self.schema = PostgresSchema(self.database, self.rendering, project=PROJECT, store=STORE)
        self.ledger = PostgresRebaseLedger(self.database, self.rendering)

    async def rebased(
        self, mark_us: int, *, run: str = "r1", until: RebaseStep = RebaseStep.DONE
    ) -> None:
        """Go through a rebase up to a step, versions left as they are."""
        await rebased(self.ledger, mark_us, run=run, until=until)

    async def execute(self, statement: Any, parameters: tuple[Any, ...] = ()) -> int:
        """Run a statement past the adapter; gives how many rows it touched."""
        async with self.database.connection() as conn:
            return (await conn.execute(statement, parameters)).rowcount

    async def take_writes(self, *, are_taken: bool) -> None:
        """Let the mirror's database take writes, or none, from new connections; cut the others."""
        connected = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        async with connected as conn:
            await conn.execute("SET default_transaction_read_only = off")
            await conn.execute(
                sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format(
                    sql.Identifier(conn.info.dbname), sql.Literal("off" if are_taken else "on")
                )
            )
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    async def audit_ids(self, entity: Entity) -> list[str]:
        """Give the event ids in an audit table."""
        table = sql.Identifier(SCHEMA, f"{snake_case(entity.name)}_audit")
        query = sql.SQL("SELECT last_event_id FROM {}").format(table)
        return [row[0] for row in await self.database.fetch(query)]


@contextlib.asynccontextmanager
async def installed_mirror(model: Model, dsn: str) -> AsyncIterator[MirrorUnderTest]:
    """Install the schema and lend the mirror."""
    under_test = MirrorUnderTest(model, dsn)
    await under_test.database.open()
    try:
        await under_test.schema.apply()
        await under_test.mirror.verify_schema()
        yield under_test
    finally:
        await under_test.database.aclose()


async def new_mirror_dsn(databases: Databases, model: Model) -> str:
    """Make a database with the schema installed; gives its DSN."""

    async def install(dsn: str) -> None:
        async with installed_mirror(model, dsn):
            pass

    return await databases.filled(model, install)


@contextlib.asynccontextmanager
async def new_mirror(model: Model, databases: Databases) -> AsyncIterator[MirrorUnderTest]:
    """Lend a mirror in a new database."""
    under_test = MirrorUnderTest(model, await new_mirror_dsn(databases, model))
    await under_test.database.open()
    try:
        await under_test.mirror.verify_schema()
        yield under_test
    finally:
        await under_test.database.aclose()


async def rebased(ledger: RebaseLedger, mark_us: int, *, run: str, until: RebaseStep) -> None:
    """Go through a rebase up to a step, versions left as they are."""
    await ledger.close(run)
    steps = list(RebaseStep)
    for after, to in itertools.pairwise(steps[: steps.index(until) + 1]):
        mark = mark_us if to is RebaseStep.MARKED else None
        await ledger.advance(run, after=after, to=to, mark_us=mark)


def declared_tables(model: Model) -> list[str]:
    """Give the name of every table that a declaration makes."""
    return [
        name
        for entity in model
        for name in (
            entity.name,
            *(child.name for child in entity.children),
            *([f"{entity.name}Audit"] if entity.has_audit else []),
        )
    ]


async def all_rows(mirror: SqlMirror, entity: Entity) -> dict[Key, MirrorRow]:
    """Read a whole table."""
    return {row.key: row async for row in mirror.rows(entity, after=None, up_to=None)}


async def assert_equal(under_test: Audited, reference: Reference) -> None:
    """Compare every row, child row, roll-up and audit row with the reference."""
    for entity in reference.model:
        stored = await all_rows(under_test.mirror, entity)
        known = {key: row for key, row in stored.items() if row.state is not RowState.STUB}
        expected = {key for name, key in reference.rows if name == entity.name}
        assert set(known) == expected, entity.name
        for key, row in known.items():
            assert contents_of_row(entity, row) == reference.contents(entity, key), (
                entity.name,
                key,
            )
        child = reference.model.rollup_child_of(entity)
        if child is not None:
            _assert_rollups(reference, child, stored.items())
        if entity.has_audit:
            audit = await under_test.audit_ids(entity)
            assert sorted(audit) == sorted(reference.audit)


def _assert_rollups(
    reference: Reference, child: Entity, stored: Iterable[tuple[Key, MirrorRow]]
) -> None:
    live_by_parent: dict[Key, list[Any]] = {}
    for (name, key), known in reference.rows.items():
        if name == child.name and known.state is RowState.LIVE:
            live_by_parent.setdefault(key[: child.parent_key_count], []).append(known.event)
    for key, row in stored:
        expected = rollup_of(child, live_by_parent.pop(key, []))
        found = {name: plain(row.columns[name]) for name in expected}
        assert found == expected, key
    assert not live_by_parent, "parents without even a stub"


def contents_of_row(entity: Entity, row: MirrorRow) -> dict[str, Any]:
    """Give state, version, digest, columns and children of a stored row, times as text."""
    return {
        "state": row.state,
        "version": row.version,
        "digest": row.digest,
        "columns": {c.name: plain(row.columns[c.name]) for c in entity.columns},
        "children": {
            name: {
                key: {column: plain(value) for column, value in columns.items()}
                for key, columns in found.items()
            }
            for name, found in row.children.items()
        },
    }


def plain(value: object) -> object:
    """Give a value as the reference has it: times as text."""
    return rfc3339_from_us(us_from_datetime(value)) if isinstance(value, datetime) else value
