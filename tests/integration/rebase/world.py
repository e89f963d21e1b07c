"""A mirror, and a document store that is restored from a backup beneath it."""

from __future__ import annotations

import asyncio

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message
from storemirror.check.rebase import RebaseParts, StepObserver, run_rebase
from storemirror.check.reconcile import ReconcileResult
from storemirror.clock import EPOCH
from storemirror.event.value import encode_fields
from storemirror.source.backfill import estimate_reads
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink, DirectSink, Sink
from storemirror.source.budget import ReadBudget
from storemirror.source.port import Write
from storemirror.source.refill import Refill
from storemirror.sql.port import RebaseLedger, RebaseState
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import SOURCE
from tests.support.restores import back_up, restore


class RebaseWorld:
    """The world of the backfill's tests, restored; and a rebase of it."""

    def __init__(self, filled: BackfillWorld) -> None:
        self.filled = filled
        self.world = filled.world
        self.file = ProgressFile(filled.file.path.with_name("rebase.json"))
        self.ledger: RebaseLedger = self.world.sql.ledger
        self.bus_admin = self.world.admin
        self.reconciled: ReconcileResult | None = None
        self.budget = ReadBudget()
        #: Events of the time that the restore undid, as triggers told them.
        self.undone: list[Message] = []

    async def live_and_restore(self) -> None:
        """Write, back up, write on, restore, and write on once more; all of it is mirrored."""
        await self.filled.live(60, seed=1)
        await self.world.catch_up()
        database = Database(self.filled.documents_dsn, DOCUMENTS, max_size=1)
        await database.open()
        async with database.connection() as conn:
            await back_up(conn)
            await self.filled.live(40, seed=2)
            await self._change_and_delete()
            self.undone = await self._heard()
            await restore(conn)
        await database.aclose()
        await self.filled.live(30, seed=3)
        await self.world.catch_up()

    async def _change_and_delete(self) -> None:
        """Change some of what the backup has, and delete some: the restore takes both back."""
        store = self.world.store
        for entity in self.world.model:
            async with store.pinned() as view:
                found = [d async for page in view.scan(entity.path) for d in page.documents]
            for number, document in enumerate(found):
                if number % 3 == 0:
                    changed = {**document.fields, **encode_fields({"createdAt": EPOCH})}
                    changed |= {"body": {"stringValue": "undone"}} if "body" in changed else {}
                    await store.commit([Write(path=document.path, fields=changed)])
                elif number % 3 == 1:
                    await store.commit([Write(path=document.path, fields=None)])

    async def _heard(self) -> list[Message]:
        """Have the triggers told of all that was written, and the mirror of it too."""
        heard: list[Message] = []
        while True:
            async with self.world.store.outbox_batch() as batch:
                heard += [self.filled.message(change, run="late") for change in batch.changes]
                await self.world.publisher.publish(
                    [self.filled.message(change) for change in batch.changes]
                )
            if not batch.changes:
                await self.world.settle()
                return heard

    async def rebase(
        self,
        *,
        run: str = "r1",
        on_step: StepObserver | None = None,
        page_rows: int = 25,
        stop: asyncio.Event | None = None,
        drain_timeout_s: float = 60.0,
    ) -> RebaseState:
        """Begin or go on, as the command does; the writers are the caller's."""
        world = self.world
        estimate = await estimate_reads(
            world.store, list(world.model), budget=self.budget, price_per_100k_usd=0.06
        )

        def sink_of(run: str) -> Sink:
            bus = BusSink(world.publisher, world.clock, source=SOURCE, run=run)
            return DirectSink(world.mirror, bus, world.clock)

        with self.file.locked():
            refill = Refill(
                file=self.file,
                store=self.filled.store,
                model=world.model,
                sink_of=sink_of,
                estimate=estimate,
                budget=self.budget,
                source=SOURCE,
                stop=stop or asyncio.Event(),
                page_size=20,
            )

            async def refilled(run: str) -> bool:
                return await refill.run(run)

            async def reconciled() -> bool:
                self.reconciled = await self.filled.reconcile(
                    run=f"{run}-reconcile", drain_timeout_s=drain_timeout_s, stop=stop
                )
                return self.reconciled.is_finished

            return await run_rebase(
                RebaseParts(
                    ledger=self.ledger,
                    bus_admin=self.bus_admin,
                    subscription=SUBSCRIPTION_SQL_WRITER,
                    store=world.store,
                    entities=list(world.model),
                    refill=refilled,
                    reconcile=reconciled,
                ),
                new_run=run,
                on_step=on_step,
                page_rows=page_rows,
            )
