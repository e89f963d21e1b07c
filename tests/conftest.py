"""Fixtures that every test may use: one embedded PostgreSQL a test process, a database a test."""

from __future__ import annotations

import itertools
import os
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from storemirror import loop
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.server import EmbeddedServer, ServerSettings, running_server
from tests.support.databases import folder_in_memory

pytest_plugins = [
    "tests.support.strict_skips",
    "tests.support.emulator",
    "tests.support.node",
    "tests.support.servers",
    "tests.support.soak",
    "tests.support.tsql",
]

_NUMBERS = itertools.count(1)
#: `pytest --hypothesis-profile=deep -o timeout=0`: hours, and other examples each time.
settings.register_profile("deep", max_examples=5_000)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Run tests on the event loop that the commands run on."""
    return {"uvloop": loop.new_event_loop}


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """One server for the whole run, without flushing to disk: it survives SIGKILL of clients."""
    named = os.environ.get("STOREMIRROR_TEST_POSTGRES_BIN")
    settings = ServerSettings(
        bin_dir=Path(named) if named else None, is_durable=False, parent=folder_in_memory()
    )
    with running_server(settings) as server:
        yield server


@pytest.fixture
async def new_database(postgres: EmbeddedServer) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """
    Give a coroutine function that makes an empty database and returns its DSN.

    They are dropped after the test: the files of a whole run, several hundred thousand, took
    minutes to remove at its end.
    """
    admin = Database(postgres.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()
    names: list[str] = []

    async def create() -> str:
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        names.append(name)
        async with admin.connection() as conn:
            await conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return postgres.dsn(name)

    yield create
    async with admin.connection() as conn:
        for name in names:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            await conn.execute(drop.format(sql.Identifier(name)))
    await admin.aclose()
