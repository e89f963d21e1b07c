"""The mirror's parts in one database of SQL Server, and the connections they share."""

from __future__ import annotations

from storemirror.errors import ConfigError
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.mirror import SqlServerMirror
from storemirror.sql.sqlserver.reads import SqlServerReads
from storemirror.sql.sqlserver.rebase import SqlServerRebaseLedger
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.schema import SqlServerSchema


class SqlServerParts:
    """See `storemirror.sql.dialects.SqlParts`."""

    def __init__(
        self, dsn: str, rendering: Rendering, *, project: str, store: str, max_size: int
    ) -> None:
        """
        Name the database; nothing is opened before it is used.

        Args:
            dsn: see `storemirror.sql.sqlserver.address`.
            rendering: which tables and procedures.
            project: Firestore project that the mirror is of.
            store: Firestore database in it.
            max_size: most connections; as many again for reads of the gateway.

        Raises:
            ConfigError: the DSN is none; the message does not repeat it.
        """
        try:
            self._database = Database(dsn, max_size=max_size)
            self._reading = Database(dsn, max_size=max_size)
        except ConfigError as exc:
            raise ConfigError(f"the address of the mirror's database {exc}") from None
        self._rendering = rendering
        self._project = project
        self._store = store

    def mirror(self) -> SqlServerMirror:
        """See `SqlParts.mirror`."""
        return SqlServerMirror(
            self._database, self._rendering, project=self._project, store=self._store
        )

    def rebase_ledger(self) -> SqlServerRebaseLedger:
        """See `SqlParts.rebase_ledger`."""
        return SqlServerRebaseLedger(self._database, self._rendering)

    def schema(self) -> SqlServerSchema:
        """See `SqlParts.schema`."""
        return SqlServerSchema(
            self._database, self._rendering, project=self._project, store=self._store
        )

    def reads(self) -> SqlServerReads:
        """See `SqlParts.reads`."""
        return SqlServerReads(self._reading, self._rendering)

    async def open(self) -> None:
        """See `SqlParts.open`."""
        await self._database.open()
        await self._reading.open()

    async def aclose(self) -> None:
        """See `SqlParts.aclose`."""
        await self._reading.aclose()
        await self._database.aclose()
