"""An app that writes through Google's client, and what brings its documents into SQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.cloud.firestore import AsyncClient

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message
from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import run_check
from storemirror.event.change import Origin
from storemirror.source.firestore import (
    FirestoreAddress,
    FirestoreDocumentStore,
    open_firestore,
)
from storemirror.source.port import DocumentRead
from storemirror.source.reread import SourceReread, observed_change
from storemirror.source.triggers import message_of
from tests.integration.apply.pipe import SOURCE, Pipe


@dataclass
class App:
    """The app's client, our adapter on the same documents, and the way into SQL."""

    client: AsyncClient
    store: FirestoreDocumentStore
    pipe: Pipe

    async def write(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write documents as an app does, in one batch of Google's client."""
        batch = self.client.batch()
        for path, document in documents.items():
            batch.set(self.client.document(path), dict(document))
        await batch.commit()

    async def delete(self, *paths: str) -> None:
        """Delete documents, one after the other."""
        for path in paths:
            await self.client.document(path).delete()

    async def backfill(self) -> int:
        """Publish every document at one moment, and give how many there were."""
        count = 0
        async with self.store.pinned() as view:
            for entity in self.pipe.model:
                async for page in view.scan(entity.path, page_size=7):
                    reads = [
                        DocumentRead(path=d.path, document=d, read_time_us=page.read_time_us)
                        for d in page.documents
                    ]
                    await self.publish(reads, Origin.BACKFILL)
                    count += len(reads)
        return count

    async def observed(self, *paths: str) -> list[DocumentRead]:
        """Read documents as they are now; some may be gone."""
        return [await self.store.get(path) for path in paths]

    async def publish(self, reads: Sequence[DocumentRead], origin: Origin) -> None:
        """Tell the bus of what was read."""
        messages: list[Message] = []
        for read in reads:
            entity, _ = self.pipe.model.match(read.path)
            messages.append(message_of(observed_change(read, origin), entity.name, SOURCE))
        await self.pipe.publisher.publish(messages)

    async def settle(self) -> None:
        """Let the real writer apply what is on the bus."""
        reread = SourceReread(self.store, self.pipe.model, source=SOURCE)
        await self.pipe.run_until_empty(self.pipe.processor(reread=reread))

    async def check(self) -> CheckResult:
        """Compare Firestore with SQL."""
        return await run_check(
            store=self.store,
            mirror=self.pipe.under_test.mirror,
            model=self.pipe.model,
            bus_admin=self.pipe.admin,
            subscription=SUBSCRIPTION_SQL_WRITER,
            pending=None,
            clock=self.pipe.clock,
            # What is published here is on the bus: nothing is under way unseen.
            settings=CheckSettings(drain_timeout_s=60.0, page_size=7, grace_s=0.0),
        )


@contextlib.asynccontextmanager
async def opened_app(emulator_host: str, project: str, pipe: Pipe) -> AsyncIterator[App]:
    """Lend an app; `FIRESTORE_EMULATOR_HOST` names the emulator to Google's client."""
    address = FirestoreAddress(project=project, emulator_host=emulator_host)
    store = open_firestore(address, pipe.clock)
    client = AsyncClient(project=project)
    try:
        yield App(client, store, pipe)
    finally:
        await store.aclose()
