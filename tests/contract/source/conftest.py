"""The document stores that the contract suite runs on: one body, every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

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

NewDatabase = Callable[[], Awaitable[str]]


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    """An empty database of its own, for tests that look behind the port."""
    opened = Database(await new_database(), DOCUMENTS, max_size=12)
    await opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def embedded(database: Database) -> EmbeddedDocumentStore:
    """The embedded store, closed with its database."""
    store = EmbeddedDocumentStore(database)
    await store.prepare()
    return store


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
