"""Which dialect a DSN names, and its adapter: the only file that knows more than one."""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from storemirror.errors import ConfigError
from storemirror.model.entity import Model
from storemirror.sql.grants import Job
from storemirror.sql.port import RebaseLedger, SchemaAdmin, SqlMirror
from storemirror.sql.postgres import address as postgres_address
from storemirror.sql.postgres import grants as postgres_grants
from storemirror.sql.postgres import rendering as postgres_rendering
from storemirror.sql.reads import SqlReads
from storemirror.sql.sqlserver import address as sqlserver_address
from storemirror.sql.sqlserver import grants as sqlserver_grants
from storemirror.sql.sqlserver import rendering as sqlserver_rendering


class Dialect(enum.StrEnum):
    """A kind of database that a mirror may be in."""

    POSTGRESQL = "postgresql"
    SQLSERVER = "sqlserver"


#: Where tables and routines are when no setting says so.  On SQL Server it is where clients look.
DEFAULT_SCHEMAS: Mapping[Dialect, str] = {
    Dialect.POSTGRESQL: "storemirror",
    Dialect.SQLSERVER: "dbo",
}


class SqlParts(Protocol):
    """The mirror's parts in one database, and the connections they share."""

    def mirror(self) -> SqlMirror:
        """Give what applies events."""
        ...

    def rebase_ledger(self) -> RebaseLedger:
        """Give what a rebase does to the mirror."""
        ...

    def schema(self) -> SchemaAdmin:
        """Give what installs tables and procedures."""
        ...

    def reads(self) -> SqlReads:
        """Give what the gateway reads, over connections of its own: it waits for no writer's."""
        ...

    async def open(self) -> None:
        """Let connections be made; none is made yet."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What is to be installed, and how it is called."""

    model: Model
    #: None: the dialect's own default.
    schema_name: str | None
    #: SQL_PROC_ settings: setting -> name.
    procedures: Mapping[str, str]

    def schema_in(self, dialect: Dialect) -> str:
        """Give the schema that holds everything."""
        return DEFAULT_SCHEMAS[dialect] if self.schema_name is None else self.schema_name


def dialect_of(dsn: str) -> Dialect:
    """
    Tell which dialect a DSN names.

    >>> dialect_of("mssql://me:secret@db/a").value, dialect_of("host=db dbname=a").value
    ('sqlserver', 'postgresql')
    """
    return Dialect.SQLSERVER if sqlserver_address.is_sqlserver(dsn) else Dialect.POSTGRESQL


def address_of(dsn: str) -> Hashable:
    """
    Give which database a DSN names; equal values are one database.

    Raises:
        ConfigError: it is no DSN; the message does not repeat it.

    >>> address_of("mssql://me:secret@db:5432/a") == address_of("postgresql://me@db:5432/a")
    False
    """
    if dialect_of(dsn) is Dialect.SQLSERVER:
        return sqlserver_address.address_of(dsn)
    return postgres_address.address_of(dsn)


def has_password(dsn: str) -> bool:
    """
    Tell whether a DSN holds a password.

    Raises:
        ConfigError: it is no DSN; the message does not repeat it.

    >>> has_password("mssql://me:secret@db/a"), has_password("postgresql://me@db/a")
    (True, False)
    """
    if dialect_of(dsn) is Dialect.SQLSERVER:
        return sqlserver_address.has_password(dsn)
    return postgres_address.has_password(dsn)


def rendered_files(
    dialect: Dialect, names: Names, *, is_drop_create: bool = False
) -> Mapping[str, str]:
    """
    Give a deployment as files: name -> text.

    Args:
        dialect: which one.
        names: what is rendered.
        is_drop_create: for a server that speaks T-SQL and does not know CREATE OR ALTER.
    """
    schema = names.schema_in(dialect)
    if dialect is Dialect.SQLSERVER:
        return sqlserver_rendering.Rendering(
            names.model,
            schema_name=schema,
            procedures=names.procedures,
            is_drop_create=is_drop_create,
        ).files()
    return postgres_rendering.Rendering(
        names.model, schema_name=schema, procedures=names.procedures
    ).files()


def rendered_grants(dialect: Dialect, names: Names, *, role: str, jobs: Collection[Job]) -> str:
    """
    Give the script that grants a user what it needs.

    Args:
        dialect: which one.
        names: what is installed.
        role: the user's name, as it is.
        jobs: what it does.

    Raises:
        ConfigError: the database takes no such name.
    """
    schema, procedures = names.schema_in(dialect), names.procedures
    if dialect is Dialect.SQLSERVER:
        made = sqlserver_rendering.Rendering(names.model, schema_name=schema, procedures=procedures)
        return sqlserver_grants.grants_sql(made, role=role, jobs=jobs)
    rendering = postgres_rendering.Rendering(names.model, schema_name=schema, procedures=procedures)
    return postgres_grants.grants_sql(rendering, role=role, jobs=jobs)


def sql_parts(dsn: str, names: Names, *, project: str, store: str, max_size: int) -> SqlParts:
    """
    Give the parts in the database that a DSN names; nothing is opened here.

    Args:
        dsn: of either dialect.
        names: what is installed there.
        project: Firestore project that the mirror is of.
        store: Firestore database in it.
        max_size: most connections; as many again for reads of the gateway.

    Raises:
        ConfigError: the DSN is none, or the dialect's driver is not installed.
    """
    dialect = dialect_of(dsn)
    schema = names.schema_in(dialect)
    if dialect is Dialect.POSTGRESQL:
        from storemirror.sql.postgres.parts import PostgresParts  # noqa: PLC0415 - as the other

        return PostgresParts(
            dsn,
            postgres_rendering.Rendering(
                names.model, schema_name=schema, procedures=names.procedures
            ),
            project=project,
            store=store,
            max_size=max_size,
        )
    try:
        from storemirror.sql.sqlserver.parts import SqlServerParts  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise ConfigError(
            "it names a SQL Server, and Microsoft's driver is not installed: "
            "pip install -e '.[sqlserver]' in the checkout"
        ) from exc
    return SqlServerParts(
        dsn,
        sqlserver_rendering.Rendering(names.model, schema_name=schema, procedures=names.procedures),
        project=project,
        store=store,
        max_size=max_size,
    )
