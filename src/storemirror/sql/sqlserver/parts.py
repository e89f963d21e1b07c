"""The mirror's parts in one database of SQL Server, over one pool of connections."""

from __future__ import annotations

from storemirror.errors import ConfigError
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.mirror import SqlServerMirror
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
            max_size: most connections.

        Raises:
            ConfigError: the DSN is none; the message does not repeat it.
        """
        try:
            self._database = Database(dsn, max_size=max_size)
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

    async def open(self) -> None:
        """See `SqlParts.open`."""
        await self._database.open()

    async def aclose(self) -> None:
        """See `SqlParts.aclose`."""
        await self._database.aclose()
