"""A store full of documents whose events never reached the bus, and a mirror that has none."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from storemirror.apply.port import WriterSettings
from storemirror.apply.writer import create_sql_writer_processor
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message
from storemirror.check.reconcile import ReconcileResult, ReconcileSettings, run_reconcile
from storemirror.clock import SystemClock
from storemirror.demo.app import SocialApp
from storemirror.event.change import Change
from storemirror.event.value import encode_fields
from storemirror.source.backfill import (
    Backfill,
    BackfillProgress,
    begin_backfill,
    estimate_reads,
    resumed_backfill,
)
from storemirror.source.backfill_pace import Pace
from storemirror.source.backfill_plan import BackfillState
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink, DirectSink, Sink
from storemirror.source.budget import ReadBudget
from storemirror.source.port import (
    DocumentChange,
    DocumentPage,
    DocumentQuery,
    DocumentRead,
    DocumentStore,
    KeyRange,
    PinnedView,
    Transacted,
    TransactionBody,
    Write,
)
from storemirror.source.reread import SourceReread
from storemirror.source.triggers import change_of, message_of
from tests.integration.check.world import SOURCE, World

T = TypeVar("T")

SETTINGS = WriterSettings(is_mirror_on=True, receive_wait_s=0.05, shutdown_timeout_s=5.0)


class CountingStore:
    """A document store that counts how often each document was given by a scan."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self.read_counts: Counter[str] = Counter()
        #: Called before a page is given.
        self.before_page: Callable[[], None] = lambda: None

    async def get(self, path: str) -> DocumentRead:
        return await self._store.get(path)

    async def commit(self, writes: Sequence[Write]) -> int:
        return await self._store.commit(writes)

    @contextlib.asynccontextmanager
    async def pinned(self, read_time_us: int | None = None) -> AsyncIterator[PinnedView]:
        async with self._store.pinned(read_time_us) as view:
            yield CountingView(self, view)

    async def count(self, pattern: Sequence[str], *, max_count: int | None = None) -> int:
        return await self._store.count(pattern, max_count=max_count)

    async def partitions(self, pattern: Sequence[str], max_count: int) -> list[KeyRange]:
        return await self._store.partitions(pattern, max_count)

    async def transact(self, body: TransactionBody[T]) -> Transacted[T]:
        return await self._store.transact(body)

    async def query(self, query: DocumentQuery) -> DocumentPage:
        return await self._store.query(query)

    async def count_of(self, query: DocumentQuery) -> int:
        return await self._store.count_of(query)

    async def aclose(self) -> None:
        await self._store.aclose()


class CountingView:
    """A view of a `CountingStore`."""

    def __init__(self, store: CountingStore, view: PinnedView) -> None:
        self._store = store
        self._view = view

    @property
    def read_time_us(self) -> int:
        return self._view.read_time_us

    async def scan(self, pattern: Sequence[str], **options: Any) -> AsyncIterator[DocumentPage]:
        async for page in self._view.scan(pattern, **options):
            self._store.read_counts.update(document.path for document in page.documents)
            self._store.before_page()
            yield page


def first_ranges(state: BackfillState, worker_count: int) -> dict[tuple[int, int], int]:
    """Give the places of the ranges that workers begin with, and their documents so far."""
    undone = {
        (e, r): reading.document_count
        for e, entity in enumerate(state.entities)
        for r, reading in enumerate(entity.ranges)
        if not reading.is_done
    }
    return dict(list(undone.items())[:worker_count])


def have_advanced(file: ProgressFile, ranges: Mapping[tuple[int, int], int]) -> bool:
    """Tell whether each of these has saved a page since: a kill hits no page twice."""
    state = file.load()
    assert state is not None
    readings = {(e, r): state.entities[e].ranges[r] for e, r in ranges}
    return all(r.is_done or r.document_count > ranges[place] for place, r in readings.items())


class BackfillWorld:
    """The world of the check's tests, with a backfill and a reconcile."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.documents_dsn = world.documents_dsn
        self.bus_dsn = world.bus_dsn
        self.store = CountingStore(world.store)
        self.file = ProgressFile(folder / "progress.json")
        self.progress: list[BackfillProgress] = []
        self.sink: Sink | None = None
        self._first_ranges: Mapping[tuple[int, int], int] = {}

    @property
    def has_passed_first_pages(self) -> bool:
        """Tell whether every page that an earlier process had in hand is behind this one."""
        return have_advanced(self.file, self._first_ranges)

    async def crowd(self, count: int) -> None:
        """Write many documents that no trigger tells of."""
        fields = encode_fields({"createdAt": None})
        writes = [
            Write(path=f"users/u{n % 97}/following/v{n}", fields=fields) for n in range(count)
        ]
        for start in range(0, count, 200):
            await self.world.store.commit(writes[start : start + 200])
        await self.forget_outbox()

    async def live(self, steps: int, *, seed: int = 1) -> SocialApp:
        """Let the app write; nothing of it is on the bus."""
        app = SocialApp(self.world.store, SystemClock(), seed=seed)
        for _ in range(steps):
            await app.step()
        return app

    async def forget_outbox(self) -> None:
        """Lose what the triggers were to be told, as a managed import does."""
        while True:
            async with self.world.store.outbox_batch() as batch:
                pass
            if not batch.changes:
                return

    async def backfill(
        self,
        *,
        is_direct: bool = False,
        page_size: int = 20,
        budget: ReadBudget | None = None,
        stop: asyncio.Event | None = None,
        worker_count: int = 4,
        pace: Pace | None = None,
    ) -> bool:
        """Begin or go on, as the command does; gives whether all is read."""
        entities = list(self.world.model)
        paid = budget or ReadBudget()
        with self.file.locked():
            state = resumed_backfill(self.file, entities, source=SOURCE)
            if state is None:
                estimate = await estimate_reads(
                    self.store, entities, budget=paid, price_per_100k_usd=0.06
                )
                state = await begin_backfill(
                    self.store,
                    entities,
                    estimate,
                    self.file,
                    budget=paid,
                    source=SOURCE,
                    page_size=page_size,
                )
            self._first_ranges = first_ranges(state, worker_count)
            bus = BusSink(self.world.publisher, self.world.clock, source=SOURCE, run=state.run)
            self.sink = DirectSink(self.world.mirror, bus, self.world.clock) if is_direct else bus
            work = Backfill(
                state,
                self.file,
                store=self.store,
                model=self.world.model,
                sink=self.sink,
                budget=paid,
                page_size=page_size,
                worker_count=worker_count,
                pace=pace,
                on_progress=self.progress.append,
            )
            return await work.run(stop or asyncio.Event())

    async def reconcile(
        self,
        *,
        run: str = "r1",
        is_dry_run: bool = False,
        drain_timeout_s: float = 60.0,
        stop: asyncio.Event | None = None,
        store: DocumentStore | None = None,
    ) -> ReconcileResult:
        """Reconcile as the command does; what it publishes waits on the bus."""
        return await run_reconcile(
            store=store or self.world.store,
            mirror=self.world.mirror,
            entities=list(self.world.model),
            publisher=self.world.publisher,
            bus_admin=self.world.admin,
            subscription=SUBSCRIPTION_SQL_WRITER,
            pending=self.world.store.pending_count,
            clock=self.world.clock,
            budget=ReadBudget(),
            source=SOURCE,
            run=run,
            settings=ReconcileSettings(
                is_dry_run=is_dry_run, drain_timeout_s=drain_timeout_s, page_size=20
            ),
            stop=stop,
        )

    def message(self, heard: DocumentChange, *, run: str | None = None) -> Message:
        """Give what a trigger publishes when it is told of a change."""
        change = change_of(heard)
        assert isinstance(change, Change)
        entity, _ = self.world.model.match(heard.path)
        return message_of(change, entity.name, SOURCE, run=run)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Have the relay and the writer run beside the block."""
        stop = asyncio.Event()
        world = self.world
        processor = create_sql_writer_processor(
            consumer=world.consumer,
            publisher=world.publisher,
            mirror=world.mirror,
            model=world.model,
            source=SOURCE,
            clock=world.clock,
            reread=SourceReread(world.store, world.model, source=SOURCE),
            settings=SETTINGS,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.relay.run(stop))
            tasks.create_task(processor.run(stop))
            try:
                yield
                await self._drained()
            finally:
                stop.set()

    async def _drained(self) -> None:
        world = self.world
        while await world.store.pending_count():
            await world.clock.sleep(0.02)
        while (await world.admin.stats(SUBSCRIPTION_SQL_WRITER)).depth:
            await world.clock.sleep(0.02)
