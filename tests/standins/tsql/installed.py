"""SQL Server's adapter over the stand-in, as the contract suite needs it: in one connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import cast

import psycopg

from storemirror.model.entity import Model
from storemirror.sql.sqlserver.batch import BatchEncoder
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.mirror import SqlServerMirror
from storemirror.sql.sqlserver.reads import SqlServerReads
from storemirror.sql.sqlserver.rebase import SqlServerRebaseLedger
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.tables import wanted_tables
from tests.contract.sql.sqlserver import SqlServerInstalled
from tests.standins.tsql.batches import BatchDatabase, BatchServer
from tests.support.databases import Databases
from tests.support.tsql_mirrors import deploy


class OnPostgres(SqlServerInstalled):
    """See `Installed`."""

    def __init__(self, model: Model, server: BatchServer) -> None:
        super().__init__(
            model,
            "mssql://me:secret@nowhere/db",
            "ms",
            project="demo",
            store="(default)",
            procedures={},
        )
        self.honours_locks = False
        self._server = server
        self.database = cast("Database", BatchDatabase(server))
        self.mirror = SqlServerMirror(
            self.database, self.rendering, project="demo", store="(default)"
        )
        self.mirror._encoder = BatchEncoder(model, {e.name: 1 for e in model})
        self.ledger = SqlServerRebaseLedger(self.database, self.rendering)
        self.reads = SqlServerReads(self.database, self.rendering)

    async def deployed(self) -> Rendering:
        return self.rendering

    async def install(self, batches: Sequence[str]) -> None:
        self._server.install(batches)

    async def column_names(self, table: str) -> set[str]:
        found = await super().column_names(table)
        # The stand-in knows names in lower case alone.
        spelled = {c.name.lower(): c.name for t in wanted_tables(self.model) for c in t}
        return {spelled[name] for name in found if name in spelled}


@contextlib.contextmanager
def installed_on_postgres(
    model: Model, dsn: str, *, leaves_escapes: bool = False
) -> Iterator[OnPostgres]:
    """Install as `schema apply` does into an empty database, and lend the mirror."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        server = BatchServer(conn, leaves_escapes=leaves_escapes)
        made = OnPostgres(model, server)
        deploy(server, made.rendering, made.rendering.procedures_batches())
        yield made


@contextlib.asynccontextmanager
async def new_on_postgres(
    model: Model, databases: Databases, *, leaves_escapes: bool = False
) -> AsyncIterator[OnPostgres]:
    """Lend the mirror in a new database: a copy of one that was installed into."""

    async def install(dsn: str) -> None:
        with installed_on_postgres(model, dsn, leaves_escapes=leaves_escapes):
            pass

    dsn = await databases.filled(("tsql", model, leaves_escapes), install)
    with psycopg.connect(dsn, autocommit=True) as conn:
        server = BatchServer(conn, leaves_escapes=leaves_escapes, is_copy=True)
        made = OnPostgres(model, server)
        for batch in made.rendering.procedures_batches():
            server.know(batch)
        yield made
