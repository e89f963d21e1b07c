"""
A database whose disk is full, until there is room.

As root on Linux a real one: a tablespace on a small file system of its own.  Everywhere a trigger
as well, that raises the error which PostgreSQL raises then.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from storemirror.sql.postgres.connection import MIRROR, Database, psycopg, sql
from storemirror.sql.postgres.server import UNPRIVILEGED_USER, EmbeddedServer

_SMALL, _LARGE = "40m", "160m"


class Disk(Protocol):
    """One database's disk.  Its tables must be installed before it is filled."""

    dsn: str

    async def fill(self) -> None:
        """Leave no room."""
        ...

    async def give_room(self) -> None:
        """Let there be room again."""
        ...


@functools.cache
def can_mount() -> bool:
    """Tell whether this process may mount a file system; a container often may not."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder) != 0:
            return False
        _run("umount", folder)
    return True


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


class SmallFileSystem:
    """A tablespace on a file system of its own."""

    def __init__(self, dsn: str, folder: Path) -> None:
        """Name the parts; all exist."""
        self.dsn = dsn
        self._folder = folder

    async def fill(self) -> None:
        """See `Disk.fill`."""
        database = Database(self.dsn, MIRROR)
        await database.open()
        async with database.connection() as conn:
            await conn.execute("CREATE TABLE filler (page text STORAGE PLAIN)")
            # A row fills a page; ever fewer at once, so that not even one has room in the end.
            for page_count in (1000, 300, 100, 30, 10, 3, 1):
                with contextlib.suppress(psycopg.errors.DiskFull):
                    while True:
                        await conn.execute(
                            "INSERT INTO filler SELECT repeat('x', 8000)"
                            " FROM generate_series(1, %s)",
                            (page_count,),
                        )
        await database.aclose()

    async def give_room(self) -> None:
        """See `Disk.give_room`."""
        status = _run("mount", "-o", f"remount,size={_LARGE}", str(self._folder))
        assert status == 0


class PretendedlyFull:
    """Writes of rows end in PostgreSQL's error of a full disk."""

    def __init__(self, dsn: str, table: str) -> None:
        """Name the table whose rows find no room."""
        self.dsn = dsn
        self._table = sql.Identifier(*table.split("."))

    async def fill(self) -> None:
        """See `Disk.fill`."""
        await self._run(
            sql.SQL(
                "CREATE FUNCTION refuse_room() RETURNS trigger LANGUAGE plpgsql AS $$"
                " BEGIN RAISE EXCEPTION 'could not extend file: No space left on device'"
                " USING ERRCODE = 'disk_full'; END $$;"
                " CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON {}"
                " FOR EACH STATEMENT EXECUTE FUNCTION refuse_room()"
            ).format(self._table)
        )

    async def give_room(self) -> None:
        """See `Disk.give_room`."""
        await self._run(sql.SQL("DROP TRIGGER no_room ON {}").format(self._table))

    async def _run(self, statements: sql.Composed) -> None:
        database = Database(self.dsn, MIRROR, max_size=1)
        await database.open()
        async with database.connection() as conn:
            await conn.execute(statements)
        await database.aclose()


@contextlib.asynccontextmanager
async def small_file_system(server: EmbeddedServer) -> AsyncIterator[SmallFileSystem]:
    """Lend a database on a small file system; needs `can_mount`."""
    folder = Path(tempfile.mkdtemp(prefix="storemirror-full-", dir="/var/tmp"))
    assert _run("mount", "-t", "tmpfs", "-o", f"size={_SMALL}", "tmpfs", str(folder)) == 0
    name = folder.name.replace("-", "_")
    admin = Database(server.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()
    try:
        identifier, location = sql.Identifier(name), sql.Literal(_space_in(folder))
        async with admin.connection() as conn:
            await conn.execute(
                sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(identifier, location)
            )
            await conn.execute(
                sql.SQL("CREATE DATABASE {} TABLESPACE {}").format(identifier, identifier)
            )
        yield SmallFileSystem(server.dsn(name), folder)
    finally:
        async with admin.connection() as conn:
            await conn.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
            await conn.execute(sql.SQL("DROP TABLESPACE IF EXISTS {}").format(sql.Identifier(name)))
        await admin.aclose()
        _run("umount", str(folder))
        shutil.rmtree(folder)


def _space_in(folder: Path) -> str:
    """Make a folder that the server's user owns and can reach."""
    folder.chmod(0o755)
    space = folder / "space"
    space.mkdir(mode=0o700)
    owner = pwd.getpwnam(UNPRIVILEGED_USER)
    os.chown(space, owner.pw_uid, owner.pw_gid)
    return str(space)


@contextlib.asynccontextmanager
async def full_disk(
    kind: str, server: EmbeddedServer, new_database: Callable[[], Awaitable[str]], *, table: str
) -> AsyncIterator[Disk]:
    """Lend a database that can be filled, in reality ("real") or by a trigger on `table`."""
    if kind == "real":
        async with small_file_system(server) as disk:
            yield disk
    else:
        yield PretendedlyFull(await new_database(), table)


#: What a test of full disks is to be run with.
KINDS = ("pretended", "real") if can_mount() else ("pretended",)
