"""The sources that the readers' contract suite runs on: one body, every source."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.firestore import FirestoreAddress, open_firestore
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from tests.contract.gateway.sides import DocumentSide, Side, SqlSide
from tests.support.databases import Databases
from tests.support.servers import sqlserver_dsn
from tests.support.templates import new_documents_dsn


@pytest.fixture
def model() -> Model:
    """The built-in entities; a module that declares others has a fixture of its own."""
    return load_model()


@pytest.fixture
async def embedded_side(new_database: Databases, model: Model) -> AsyncIterator[Side]:
    """The documents of the embedded store."""
    database = Database(await new_documents_dsn(new_database), DOCUMENTS, max_size=8)
    await database.open()
    store = EmbeddedDocumentStore(database)
    yield DocumentSide(store, model)
    await store.aclose()


@pytest.fixture
async def firestore_side(
    emulator_host: str, firestore_project: str, model: Model
) -> AsyncIterator[Side]:
    """The documents of Firestore, as Google's emulator stands for it."""
    address = FirestoreAddress(project=firestore_project, emulator_host=emulator_host)
    store = open_firestore(address, SystemClock())
    yield DocumentSide(store, model)
    await store.aclose()


@pytest.fixture
async def postgres_side(new_database: Databases, model: Model) -> AsyncIterator[Side]:
    """The mirror in PostgreSQL."""
    from tests.contract.sql.postgres import PostgresServer  # noqa: PLC0415 - as below

    async with contextlib.AsyncExitStack() as until_end:
        yield SqlSide(await PostgresServer(new_database, until_end).installed(model))


@pytest.fixture
async def sqlserver_side(model: Model) -> AsyncIterator[Side]:
    """The mirror in SQL Server."""
    dsn = sqlserver_dsn()
    # The driver is an extra, and loaded only where a server is.
    from tests.contract.sql.sqlserver_server import (  # noqa: PLC0415
        SqlServerServer,
        working_dsn,
    )

    async with contextlib.AsyncExitStack() as until_end:
        server = SqlServerServer(await working_dsn(dsn), until_end)
        yield SqlSide(await server.installed(model))


@pytest.fixture
async def tsql_side(new_database: Databases, model: Model) -> AsyncIterator[Side]:
    """The mirror of SQL Server, on the stand-in that runs T-SQL; see tests/standins/tsql."""
    from tests.standins.tsql.installed import new_on_postgres  # noqa: PLC0415 - as above

    async with new_on_postgres(model, new_database) as installed:
        yield SqlSide(installed)


@pytest.fixture(
    params=[
        pytest.param("embedded_side", marks=pytest.mark.postgres),
        "firestore_side",
        pytest.param("postgres_side", marks=pytest.mark.postgres),
        pytest.param("tsql_side", marks=pytest.mark.postgres),
        pytest.param("sqlserver_side", marks=pytest.mark.sqlserver),
    ]
)
def side(request: pytest.FixtureRequest) -> Side:
    """Each source in turn."""
    source: Side = request.getfixturevalue(request.param)
    return source
