"""Databases for tests that are no coroutines: Hypothesis and processes call plain functions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from storemirror.sql.postgres.connection import MIRROR, Database, Statement, psycopg, sql


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
    _run(server_dsn, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return str(psycopg.conninfo.make_conninfo(server_dsn, dbname=name))


@contextlib.contextmanager
def lent_database(server_dsn: str, name: str) -> Iterator[str]:
    """Make an empty database, lend its DSN, and drop it."""
    yield new_database(server_dsn, name)
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    _run(server_dsn, drop.format(sql.Identifier(name)))
