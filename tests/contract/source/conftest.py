"""The document stores that the contract suite runs on: one body, every adapter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.firestore import (
    FirestoreAddress,
    FirestoreDocumentStore,
    open_firestore,
)
from storemirror.source.port import DocumentStore
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from tests.support.databases import Databases
from tests.support.faulty_firestore import FaultyFirestore, faulty_firestore
from tests.support.templates import new_documents_dsn


@pytest.fixture
async def database(new_database: Databases) -> AsyncIterator[Database]:
    """A database of its own, prepared and empty, for tests that look behind the port."""
    opened = Database(await new_documents_dsn(new_database), DOCUMENTS, max_size=12)
    await opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def embedded(database: Database) -> EmbeddedDocumentStore:
    """The embedded store, closed with its database."""
    return EmbeddedDocumentStore(database)


@pytest.fixture
async def firestore(
    emulator_host: str, firestore_project: str
) -> AsyncIterator[FirestoreDocumentStore]:
    """Firestore, as Google's emulator stands for it."""
    # The emulator lets transactions that contend wait two seconds before it ends one.
    address = FirestoreAddress(
        project=firestore_project, emulator_host=emulator_host, retry_within_s=60.0
    )
    opened = open_firestore(address, SystemClock())
    yield opened
    await opened.aclose()


@pytest.fixture(params=[pytest.param("embedded", marks=pytest.mark.postgres), "firestore"])
def store(request: pytest.FixtureRequest) -> DocumentStore:
    """Each document store in turn, seen through its port."""
    adapter: DocumentStore = request.getfixturevalue(request.param)
    return adapter


@pytest.fixture(scope="session")
def model() -> Model:
    """The built-in entities."""
    return load_model()


class HastyClock(SystemClock):
    """Waits take no time."""

    async def sleep(self, duration_s: float) -> None:
        del duration_s
        await asyncio.sleep(0)


@pytest.fixture
async def faulty(emulator_host: str) -> AsyncIterator[FaultyFirestore]:
    """A Firestore that fails as it is told."""
    async with faulty_firestore(emulator_host) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(
    host: str, project: str, *, retry_within_s: float
) -> AsyncIterator[FirestoreDocumentStore]:
    """Lend a store whose waits take no time."""
    address = FirestoreAddress(project=project, emulator_host=host, retry_within_s=retry_within_s)
    store = open_firestore(address, HastyClock())
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def patient(
    faulty: FaultyFirestore, firestore_project: str
) -> AsyncIterator[FirestoreDocumentStore]:
    """A store that repeats what it may, in front of `faulty`."""
    async with opened(faulty.host, firestore_project, retry_within_s=60.0) as store:
        yield store


@pytest.fixture
async def impatient(
    faulty: FaultyFirestore, firestore_project: str
) -> AsyncIterator[FirestoreDocumentStore]:
    """A store that repeats nothing, in front of `faulty`."""
    async with opened(faulty.host, firestore_project, retry_within_s=0.0) as store:
        yield store
