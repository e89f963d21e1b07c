"""The whole mirror on real databases, moved along by hand: every step is one the test asks for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from storemirror.apply.decode import EventDecoder
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Delivery, Rejection, TopicSpec
from storemirror.bus.postgres import PostgresBusAdmin, PostgresConsumer, PostgresPublisher
from storemirror.check.repair import repair
from storemirror.check.result import CheckResult, CheckSettings, Progress
from storemirror.check.run import run_check
from storemirror.clock import SystemClock
from storemirror.errors import PoisonEventError
from storemirror.event.envelope import source_of
from storemirror.event.value import encode_fields
from storemirror.model.entity import Model
from storemirror.source.budget import ReadBudget
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import DocumentStore, Write
from storemirror.source.relay import TriggerRelay
from storemirror.sql.postgres.connection import BUS, DOCUMENTS, Database
from tests.support.databases import Databases
from tests.support.mirrors import PROJECT, STORE, MirrorUnderTest, installed_mirror, new_mirror
from tests.support.templates import new_bus_dsn, new_documents_dsn

SOURCE: Final = source_of(PROJECT, STORE)
Pending = Callable[[int], Awaitable[int]]


class World:
    """Documents, bus and mirror in three databases."""

    def __init__(
        self,
        model: Model,
        store: EmbeddedDocumentStore,
        bus: Database,
        sql: MirrorUnderTest,
        *,
        documents_dsn: str,
        bus_dsn: str,
    ) -> None:
        self.model = model
        self.documents_dsn = documents_dsn
        self.bus_dsn = bus_dsn
        self.store = store
        self.sql = sql
        self.mirror = sql.mirror
        self.clock = SystemClock()
        self.publisher = PostgresPublisher(bus, self.clock)
        self.consumer = PostgresConsumer(bus, self.clock, subscription=SUBSCRIPTION_SQL_WRITER)
        self.admin = PostgresBusAdmin(bus)
        self.relay = TriggerRelay(store, model, self.publisher, self.clock, source=SOURCE)
        self.decoder = EventDecoder(model=model, limits=self.mirror.limits, source=SOURCE)
        self.progress: list[Progress] = []

    async def write(self, path: str, document: Mapping[str, object] | None) -> int:
        """Commit a document, or its deletion; nothing of it is on the bus yet."""
        fields = None if document is None else encode_fields(document)
        return await self.store.commit([Write(path=path, fields=fields)])

    async def publish(self) -> None:
        """Bring what was committed onto the bus."""
        while await self.relay.relay_batch():
            pass

    async def settle(self) -> None:
        """Apply what is on the bus, one event at a time, and settle it."""
        while deliveries := await self.consumer.receive(100, max_wait_s=0.0):
            for delivery in deliveries:
                await self._settle(delivery)

    async def _settle(self, delivery: Delivery) -> None:
        try:
            await self.mirror.apply([self.decoder.decode(delivery.message)])
        except PoisonEventError as poison:
            rejection = Rejection(delivery=delivery, reason=poison.reason, description=str(poison))
            await self.consumer.dead_letter([rejection])
            return
        await self.consumer.complete([delivery])

    async def catch_up(self) -> None:
        """Bring everything committed into the mirror."""
        await self.publish()
        await self.settle()

    async def check(
        self,
        *,
        pending: Pending | None = None,
        budget: ReadBudget | None = None,
        store: DocumentStore | None = None,
        **settings: Any,
    ) -> CheckResult:
        """Run the check."""
        chosen: dict[str, Any] = {"drain_timeout_s": 60.0} | settings
        return await run_check(
            store=store or self.store,
            mirror=self.mirror,
            model=self.model,
            bus_admin=self.admin,
            subscription=SUBSCRIPTION_SQL_WRITER,
            pending=pending or self.store.pending_count,
            clock=self.clock,
            settings=CheckSettings(**chosen),
            budget=budget,
            on_progress=self.progress.append,
        )

    async def repair(self, found: CheckResult, *, run: str = "r1") -> int:
        """Repair through the bus, up to the settled event."""
        repaired = await repair(
            found.mismatches,
            store=self.store,
            mirror=self.mirror,
            model=self.model,
            publisher=self.publisher,
            budget=ReadBudget(),
            source=SOURCE,
            run=run,
        )
        await self.settle()
        return repaired.sent_count


@contextlib.asynccontextmanager
async def running_world(
    model: Model, new_database: Databases, *, adopted_dsn: str | None = None
) -> AsyncIterator[World]:
    """
    Lend a world in which nothing was written yet.

    Args:
        model: what is mirrored.
        new_database: makes databases.
        adopted_dsn: where tables of the mirror are already; None: in a new database.
    """
    async with contextlib.AsyncExitStack() as stack:
        documents_dsn = await new_documents_dsn(new_database)
        bus_dsn = await new_bus_dsn(new_database, TopicSpec())
        documents = Database(documents_dsn, DOCUMENTS, max_size=6)
        bus = Database(bus_dsn, BUS, max_size=6)
        for database in (documents, bus):
            await database.open()
            stack.push_async_callback(database.aclose)
        store = EmbeddedDocumentStore(documents)
        under_test = await stack.enter_async_context(
            installed_mirror(model, adopted_dsn)
            if adopted_dsn is not None
            else new_mirror(model, new_database)
        )
        world = World(model, store, bus, under_test, documents_dsn=documents_dsn, bus_dsn=bus_dsn)
        stack.push_async_callback(world.publisher.aclose)
        stack.push_async_callback(world.consumer.aclose)
        yield world
