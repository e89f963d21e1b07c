"""
Where the tests' databases lie, and databases: empty ones, and copies of one that holds something.

There are plain functions too: Hypothesis and processes call them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import Awaitable, Callable, Hashable, Iterator
from pathlib import Path
from typing import Final

from storemirror.sql.postgres.connection import MIRROR, Database, Statement, psycopg, sql
from storemirror.sql.postgres.server import EmbeddedServer

#: Linux's file system in memory, which any user may use; a container's often has 64 MB.
_IN_MEMORY: Final = Path("/dev/shm")
#: Two servers with their logs of changes, several times over.
_NEEDED_BYTES: Final = 8 * 1024**3
_NUMBERS: Final = itertools.count(1)
#: Files are copied, not written block by block to the log of changes: half the time.
_CREATE: Final = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
_DROP: Final = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")


def folder_in_memory() -> Path | None:
    """
    Give a folder in memory that has room for the tests' servers; None where there is none.

    A new database takes 0.02 s there, and 0.4 s on the disk of a machine in the cloud.
    """
    if not os.access(_IN_MEMORY, os.W_OK):
        return None
    return _IN_MEMORY if shutil.disk_usage(_IN_MEMORY).free >= _NEEDED_BYTES else None


class Databases:
    """Makes databases on one server; called, it makes an empty one and gives its DSN."""

    def __init__(self, server: EmbeddedServer, templates: dict[Hashable, str]) -> None:
        """
        Name the parts.

        Args:
            server: what they are made on.
            templates: what a template holds -> its database; kept from test to test.
        """
        self._server = server
        self._templates = templates
        self._admin = Database(server.dsn("postgres"), MIRROR, max_size=1)
        self._names: list[str] = []

    async def __call__(self) -> str:
        """Make an empty database; gives its DSN."""
        return await self._copy("template1")

    async def filled(self, what: Hashable, fill: Callable[[str], Awaitable[None]]) -> str:
        """
        Make a database that holds what `fill` makes; gives its DSN.

        Args:
            what: names all that the contents depend on.
            fill: makes them in the empty database of this DSN, and leaves no connection; called
                once a process, and what it made is copied.
        """
        if what not in self._templates:
            name = self._new_name()
            await self._execute(_CREATE, name, "template1")
            await fill(self._server.dsn(name))
            self._templates[what] = name
        return await self._copy(self._templates[what])

    @property
    def dsns(self) -> list[str]:
        """Give the DSNs of what was made, in that order."""
        return [self._server.dsn(name) for name in self._names]

    async def aclose(self) -> None:
        """Drop what was made, but for templates."""
        for name in self._names:
            await self._execute(_DROP, name)
        await self._admin.aclose()

    async def _copy(self, template: str) -> str:
        name = self._new_name()
        self._names.append(name)
        await self._execute(_CREATE, name, template)
        return self._server.dsn(name)

    def _new_name(self) -> str:
        return f"test_{os.getpid()}_{next(_NUMBERS)}"

    async def _execute(self, statement: sql.SQL, *names: str) -> None:
        await self._admin.open()
        async with self._admin.connection() as conn:
            await conn.execute(statement.format(*map(sql.Identifier, names)))


def hasten_connections(server: EmbeddedServer) -> None:
    """
    Have a client prove its password in one round instead of 4,096, which keep a thief busy.

    A connection takes a client 1.5 ms of processor time then instead of 5, and tests make
    thousands.
    """
    dsn = server.dsn("postgres")
    said = psycopg.conninfo.conninfo_to_dict(dsn)
    change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
        sql.Identifier(str(said["user"])), sql.Literal(str(said["password"]))
    )
    with psycopg.connect(dsn, autocommit=True, options="-c scram_iterations=1") as conn:
        conn.execute(change)


def _run(server_dsn: str, statement: Statement) -> None:
    async def run() -> None:
        admin = Database(server_dsn, MIRROR, max_size=1)
        await admin.open()
        try:
            async with admin.connection() as conn:
                await conn.execute(statement)
        finally:
            await admin.aclose()

    asyncio.run(run())


def new_database(server_dsn: str, name: str) -> str:
    """Make an empty database on a server; gives its DSN."""
    _run(server_dsn, _CREATE.format(sql.Identifier(name), sql.Identifier("template1")))
    return str(psycopg.conninfo.make_conninfo(server_dsn, dbname=name))


@contextlib.contextmanager
def lent_database(server_dsn: str, name: str) -> Iterator[str]:
    """Make an empty database, lend its DSN, and drop it."""
    yield new_database(server_dsn, name)
    _run(server_dsn, _DROP.format(sql.Identifier(name)))
