"""Fixtures that every test may use: one embedded PostgreSQL a test process, a database a test."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from storemirror import loop
from storemirror.sql.postgres.server import EmbeddedServer, ServerSettings, running_server
from tests.support.databases import Databases, folder_in_memory, hasten_connections

pytest_plugins = [
    "tests.support.strict_skips",
    "tests.support.emulator",
    "tests.support.node",
    "tests.support.servers",
    "tests.support.soak",
    "tests.support.tsql",
]

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
        hasten_connections(server)
        yield server


@pytest.fixture(scope="session")
def templates(postgres: EmbeddedServer) -> dict[Hashable, str]:
    """What a template holds -> its database on the server, which keeps them as long as it runs."""
    return {}


@pytest.fixture
async def new_database(
    postgres: EmbeddedServer, templates: dict[Hashable, str]
) -> AsyncIterator[Databases]:
    """
    Give a coroutine function that makes an empty database and returns its DSN.

    They are dropped after the test: the files of a whole run, several hundred thousand, took
    minutes to remove at its end.
    """
    databases = Databases(postgres, templates)
    yield databases
    await databases.aclose()
