"""The benchmarks' own PostgreSQL: the embedded server, and mirrors in databases of it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.workload import PROJECT, STORE
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.schema import PostgresSchema
from storemirror.sql.postgres.server import EmbeddedServer, ServerSettings, running_server

SCHEMA = "storemirror"
#: A database with nothing in it.
EMPTY = "template1"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchMirror:
    """A mirror with an installed schema, and its database beside it."""

    model: Model
    dsn: str
    database: Database
    rendering: Rendering
    mirror: PostgresMirror


class BenchServer:
    """The embedded PostgreSQL with one prepared database to copy new ones from."""

    def __init__(self, server: EmbeddedServer, admin: Database, *, is_durable: bool) -> None:
        """See `running_bench_server`."""
        self.server = server
        self.is_durable = is_durable
        self._admin = admin

    async def version(self) -> str:
        """Give PostgreSQL's version."""
        [(version,)] = await self._admin.fetch("SELECT current_setting('server_version')")
        return str(version)

    @property
    def process_id(self) -> int:
        """Give the process id of the server itself, the parent of every backend."""
        path = self.server.folder / "data" / "postmaster.pid"
        return int(path.read_text().split()[0])

    async def create_database(self, template: str = EMPTY) -> str:
        """Make a database, a copy of `template`, and give its name."""
        name = f"bench_{next(_NUMBERS)}"
        async with self._admin.connection() as conn:
            await conn.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    async def drop_database(self, name: str) -> None:
        """Remove a database that nobody uses any more."""
        async with self._admin.connection() as conn:
            await conn.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    async def settle(self) -> None:
        """Write out what the one before has left to be written, so that the next does not pay."""
        async with self._admin.connection() as conn:
            await conn.execute("CHECKPOINT")

    @contextlib.asynccontextmanager
    async def mirror(self, name: str, *, max_size: int = 8) -> AsyncIterator[BenchMirror]:
        """Open the mirror in a database; the schema is installed if it is not."""
        model = load_model()
        rendering = Rendering(model, schema_name=SCHEMA, procedures={})
        dsn = self.server.dsn(name)
        database = Database(dsn, MIRROR, max_size=max_size)
        await database.open()
        try:
            await PostgresSchema(database, rendering, project=PROJECT, store=STORE).apply()
            mirror = PostgresMirror(database, rendering, project=PROJECT, store=STORE)
            await mirror.verify_schema()
            yield BenchMirror(
                model=model, dsn=dsn, database=database, rendering=rendering, mirror=mirror
            )
        finally:
            await database.aclose()

    @contextlib.asynccontextmanager
    async def new_mirror(self, template: str = EMPTY) -> AsyncIterator[BenchMirror]:
        """Lend a mirror in a database of its own, which is gone afterwards."""
        name = await self.create_database(template)
        try:
            async with self.mirror(name) as mirror:
                await self.settle()
                yield mirror
        finally:
            await self.drop_database(name)


@contextlib.contextmanager
def embedded_server(bin_dir: Path | None, *, is_durable: bool) -> Iterator[EmbeddedServer]:
    """Start the embedded PostgreSQL, as the demo does."""
    with running_server(ServerSettings(bin_dir=bin_dir, is_durable=is_durable)) as server:
        yield server


@contextlib.asynccontextmanager
async def bench_server(server: EmbeddedServer, *, is_durable: bool) -> AsyncIterator[BenchServer]:
    """Connect to the server as its owner."""
    admin = Database(server.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()
    try:
        yield BenchServer(server, admin, is_durable=is_durable)
    finally:
        await admin.aclose()
