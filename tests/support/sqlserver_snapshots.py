"""Databases of SQL Server in which readers have snapshots, or wait for writers."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from typing import Final

import pytest

from storemirror.sql.sqlserver.connection import CALL_TIMEOUT_S, Database, Sql
from storemirror.sql.sqlserver.facts import read_facts
from storemirror.sql.sqlserver.naming import quoted
from tests.contract.sql.sqlserver_server import in_database

_NUMBERS = itertools.count(1)
#: Whether readers have snapshots; whether this user may make a database, or alter this one.
_FACTS: Final = """
SELECT CAST(d.is_read_committed_snapshot_on AS INT),
       COALESCE(HAS_PERMS_BY_NAME(NULL, NULL, N'CREATE ANY DATABASE'), 0),
       COALESCE(HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'ALTER'), 0)
FROM sys.databases AS d WHERE d.name = DB_NAME();
"""


def setting(name: str, *, is_on: bool) -> str:
    """Write what lets readers of a database have snapshots, or none; whoever is in it is cut."""
    word = "ON" if is_on else "OFF"
    return (
        f"ALTER DATABASE {quoted(name)} SET READ_COMMITTED_SNAPSHOT {word} WITH ROLLBACK IMMEDIATE;"
    )


def made(name: str) -> str:
    """Write what makes a database."""
    return f"CREATE DATABASE {quoted(name)};"


def dropped(name: str) -> tuple[str, str]:
    """Write what drops a database, whoever is in it."""
    return (
        f"ALTER DATABASE {quoted(name)} SET SINGLE_USER WITH ROLLBACK IMMEDIATE;",
        f"DROP DATABASE {quoted(name)};",
    )


@contextlib.asynccontextmanager
async def with_snapshots(dsn: str, *, is_on: bool) -> AsyncIterator[str]:
    """
    Lend the DSN of a database with read-committed snapshot on or off.

    The one that is there, if it is so; else one that is made for it; else the one that is there,
    altered for a while, unless other processes run tests in it.  Skips where none of it may be.
    """
    admin = Database(dsn, max_size=1)
    try:
        async with admin.session() as session:
            facts = await read_facts(session)
        if not facts.is_microsofts:
            pytest.skip("needs SQL Server: readers have snapshots here, whatever is set")
        [(was_on, may_make, may_alter)] = await admin.fetch(_FACTS)
        here = facts.database
        is_alone = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") == "1"
        if bool(was_on) is is_on:
            yield dsn
        elif may_make:
            name = f"storemirror_test_{os.getpid()}_{next(_NUMBERS)}"
            await _run(admin, made(name))
            try:
                await _run(admin, setting(name, is_on=is_on))
                yield in_database(dsn, name)
            finally:
                for statement in dropped(name):
                    await _run(admin, statement)
        elif may_alter and is_alone:
            await _run(admin, setting(here, is_on=is_on))
            try:
                yield dsn
            finally:
                await _run(admin, setting(here, is_on=not is_on))
        else:
            pytest.skip(
                f"needs SQL Server to have read-committed snapshot {'on' if is_on else 'off'}: this"
                " user may make no database, and not alter this one while others test in it"
            )
    finally:
        await admin.aclose()


async def _run(admin: Database, statement: str) -> None:
    async with admin.session() as session:
        await session.run_alone(Sql(statement), CALL_TIMEOUT_S)
