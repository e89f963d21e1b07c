"""Databases that hold what nearly every test begins with: copies of one that was made once."""

from __future__ import annotations

from storemirror.bus.port import TopicSpec
from storemirror.bus.postgres import PostgresBusAdmin
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.sql.postgres.connection import BUS, DOCUMENTS, Database
from tests.support.databases import Databases


async def new_documents_dsn(databases: Databases) -> str:
    """Make a database with an embedded document store that is prepared, and empty."""

    async def prepare(dsn: str) -> None:
        database = Database(dsn, DOCUMENTS, max_size=1)
        await database.open()
        try:
            await EmbeddedDocumentStore(database).prepare()
        finally:
            await database.aclose()

    return await databases.filled("documents", prepare)


async def new_bus_dsn(databases: Databases, topic: TopicSpec) -> str:
    """Make a database with a bus that has a topic, and nothing on it."""

    async def provision(dsn: str) -> None:
        database = Database(dsn, BUS, max_size=1)
        try:
            await PostgresBusAdmin(database).provision(topic)
        finally:
            await database.aclose()

    return await databases.filled(topic, provision)
