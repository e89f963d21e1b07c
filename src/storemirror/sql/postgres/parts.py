"""The mirror's parts in one database of PostgreSQL, and the connections they share."""

from __future__ import annotations

from storemirror.sql.postgres.connection import MIRROR, Database
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.sql.postgres.reads import PostgresReads, reading_database
from storemirror.sql.postgres.rebase import PostgresRebaseLedger
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.schema import PostgresSchema


class PostgresParts:
    """See `storemirror.sql.dialects.SqlParts`."""

    def __init__(
        self, dsn: str, rendering: Rendering, *, project: str, store: str, max_size: int
    ) -> None:
        """
        Name the database; nothing is opened here.

        Args:
            dsn: a libpq connection string or URI.
            rendering: which tables and procedures.
            project: Firestore project that the mirror is of.
            store: Firestore database in it.
            max_size: most connections; as many again for reads of the gateway.

        Raises:
            ConfigError: the DSN is none; the message does not repeat it.
        """
        self._database = Database(dsn, MIRROR, max_size=max_size)
        self._reading = reading_database(dsn, max_size=max_size)
        self._rendering = rendering
        self._project = project
        self._store = store

    def mirror(self) -> PostgresMirror:
        """See `SqlParts.mirror`."""
        return PostgresMirror(
            self._database, self._rendering, project=self._project, store=self._store
        )

    def rebase_ledger(self) -> PostgresRebaseLedger:
        """See `SqlParts.rebase_ledger`."""
        return PostgresRebaseLedger(self._database, self._rendering)

    def schema(self) -> PostgresSchema:
        """See `SqlParts.schema`."""
        return PostgresSchema(
            self._database, self._rendering, project=self._project, store=self._store
        )

    def reads(self) -> PostgresReads:
        """See `SqlParts.reads`."""
        return PostgresReads(self._reading, self._rendering)

    async def open(self) -> None:
        """See `SqlParts.open`."""
        await self._database.open()
        await self._reading.open()

    async def aclose(self) -> None:
        """See `SqlParts.aclose`."""
        await self._reading.aclose()
        await self._database.aclose()
