"""A pytest plugin: the databases that the suites of the SQL stage run on, one of each dialect."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import pytest

from storemirror.model.load import load_model
from tests.support.databases import Databases

if TYPE_CHECKING:
    from tests.contract.sql.side_door import Installed, Server

#: Names a T-SQL endpoint: mssql://user:password@host:port/database.
VARIABLE: Final = "STOREMIRROR_TEST_SQLSERVER"
NEEDED: Final = f"needs SQL Server: {VARIABLE}=mssql://user:password@host:port/database"


def sqlserver_dsn() -> str:
    """Give the DSN of the SQL Server for tests; skips where there is none."""
    dsn = os.environ.get(VARIABLE, "")
    if not dsn:
        pytest.skip(NEEDED)
    return dsn


@pytest.fixture(
    params=[
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("sqlserver", marks=pytest.mark.sqlserver),
    ]
)
def dialect(request: pytest.FixtureRequest) -> str:
    """Name a dialect whose server is there."""
    if request.param == "sqlserver":
        sqlserver_dsn()
    return str(request.param)


@pytest.fixture
async def server(dialect: str, new_database: Databases) -> AsyncIterator[Server]:
    """A server of each dialect; what a test makes on it is gone after the test."""
    async with contextlib.AsyncExitStack() as until_end:
        if dialect == "postgres":
            from tests.contract.sql.postgres import PostgresServer  # noqa: PLC0415 - as below

            yield PostgresServer(new_database, until_end)
            return
        # The driver is an extra, and loaded only where a server is.
        from tests.contract.sql.sqlserver_server import (  # noqa: PLC0415
            SqlServerServer,
            working_dsn,
        )

        yield SqlServerServer(await working_dsn(sqlserver_dsn()), until_end)


@pytest.fixture
async def sql(server: Server) -> Installed:
    """The built-in entities, installed in a new database."""
    return await server.installed(load_model())
