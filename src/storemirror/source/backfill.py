"""
Brings documents that were there before the mirror into it, while the application writes on.

Every document is read once at a pinned moment and becomes an event of origin `backfill` whose
version is the document's own commit time: what a trigger tells of the same write is a duplicate,
and what it tells of a later one wins, in any order of arrival.

Reading is divided into key ranges.  After each page its events are made durable, then the
progress is saved: whoever is killed in between reads the pages in hand once more, and no others.

What it cannot see: documents that were deleted (`storemirror reconcile`), and collections that
are not declared.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from storemirror.errors import ConfigError, ReadTimeRefused, StoreMirrorError
from storemirror.model.entity import Entity, Model
from storemirror.source.backfill_pace import Pace, Unlimited
from storemirror.source.backfill_plan import (
    COUNTED_A_READ,
    FORMAT,
    BackfillState,
    Estimate,
    RangeProgress,
    contradiction,
    counting_reads,
    decide_range_count,
    progress_of,
)
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import Sink
from storemirror.source.budget import ReadBudget, ReadBudgetSpent
from storemirror.source.port import DocumentStore, PinnedView

#: Documents a page: what is made durable at once, and read again after a kill.  A page is cut by
#: bytes too, where documents are large.
PAGE_SIZE: Final = 2_000
#: Ranges that are read at a time.
WORKER_COUNT: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillProgress:
    """How far a backfill is."""

    #: Documents whose event is durable, since the backfill was begun.
    document_count: int
    #: Documents counted at its beginning.
    expected_count: int
    #: Reads paid for in this process.
    read_count: int


def chosen_entities(model: Model, checks: Sequence[str]) -> list[Entity]:
    """
    Give the entities of these checks; all when none is named.

    Raises:
        ConfigError: a name is unknown.
    """
    known = {entity.check for entity in model}
    unknown = sorted(set(checks) - known)
    if unknown:
        raise ConfigError(
            f"unknown check {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
        )
    return [entity for entity in model if not checks or entity.check in checks]


async def estimate_reads(
    store: DocumentStore,
    entities: Sequence[Entity],
    *,
    budget: ReadBudget,
    price_per_100k_usd: float,
    max_documents: int | None = None,
) -> Estimate:
    """
    Count the documents of these entities, and say what reading them costs.

    Args:
        store: the documents.
        entities: what to read.
        budget: pays for the counting.
        price_per_100k_usd: dollars for 100,000 document reads.
        max_documents: most documents of each entity that will be read; None: all.

    Raises:
        ReadBudgetSpent: it does not even pay for the counting.
        SourceUnavailable, SourceRefused: nothing was read.
    """
    counts: dict[str, int] = {}
    spent_before = budget.spent_count
    for entity in entities:
        remaining = budget.remaining
        reserved = budget.reserve(1 if remaining is None else max(remaining, 1))
        spent_count = reserved
        try:
            bounds = [max_documents, None if remaining is None else reserved * COUNTED_A_READ]
            most = min((bound for bound in bounds if bound is not None), default=None)
            counted = await store.count(entity.path, max_count=most)
            spent_count = counting_reads(counted)
            counts[entity.name] = counted if max_documents is None else min(counted, max_documents)
        finally:
            budget.settle(reserved, spent_count=spent_count)
    return Estimate(
        document_counts=counts,
        counting_reads=budget.spent_count - spent_before,
        price_per_100k_usd=price_per_100k_usd,
    )


async def begin_backfill(
    store: DocumentStore,
    entities: Sequence[Entity],
    estimate: Estimate,
    file: ProgressFile,
    *,
    budget: ReadBudget,
    source: str,
    page_size: int,
    run: str | None = None,
) -> BackfillState:
    """
    Divide the documents into ranges, and save that as the progress of a new backfill.

    Args:
        store: the documents.
        entities: what to read; each was counted.
        estimate: the counts.
        file: where the progress is kept from now on.
        budget: pays for what divides the ranges, as if each point cost one read.
        source: CloudEvents source; see `storemirror.event.envelope.source_of`.
        page_size: documents a page.
        run: names this backfill, in at most 63 characters; None: a name of its own.
    """
    progresses = []
    for entity in entities:
        counted = estimate.document_counts[entity.name]
        count = decide_range_count(counted, page_size, WORKER_COUNT)
        if budget.remaining is not None:
            count = min(count, budget.remaining + 1)
        reserved = budget.reserve(count - 1) if count > 1 else 0
        ranges = await store.partitions(entity.path, count)
        budget.settle(reserved, spent_count=min(len(ranges) - 1, reserved))
        progresses.append(progress_of(entity, counted, ranges))
    state = BackfillState(
        format=FORMAT,
        source=source,
        run=run or f"backfill-{secrets.token_hex(6)}",
        read_time_us=None,
        read_count=budget.spent_count,
        entities=progresses,
    )
    await file.save(state)
    return state


def resumed_backfill(
    file: ProgressFile, entities: Sequence[Entity], *, source: str
) -> BackfillState | None:
    """
    Give the progress of a backfill that was begun before; None when there is none.

    Raises:
        ConfigError: the file is of another backfill, or cannot be read.
    """
    state = file.load()
    if state is None:
        return None
    problem = contradiction(state, source=source, entities=entities)
    if problem is not None:
        raise ConfigError(
            f"{file.path} cannot be gone on with: {problem}; name another file with"
            " --progress-file, or begin anew with --restart"
        )
    return state


class Backfill:
    """Reads what is left of a backfill."""

    def __init__(
        self,
        state: BackfillState,
        file: ProgressFile,
        *,
        store: DocumentStore,
        model: Model,
        sink: Sink,
        budget: ReadBudget,
        page_size: int,
        worker_count: int = WORKER_COUNT,
        pace: Pace | None = None,
        on_progress: Callable[[BackfillProgress], None] | None = None,
    ) -> None:
        """
        Go on from `state`.

        Args:
            state: changed as the backfill goes on.
            file: where it is saved after each page.
            store: the documents; not closed here.
            model: the declared entities.
            sink: where events go.
            budget: pays for the documents; never exceeded.
            page_size: documents a page.
            worker_count: ranges that are read at a time.
            pace: says when a page may be read; by default, always.
            on_progress: told after each page.
        """
        self.state = state
        self._file = file
        self._store = store
        self._sink = sink
        self._budget = budget
        self._page_size = page_size
        self._worker_count = worker_count
        self._pace: Pace = pace or Unlimited()
        self._on_progress = on_progress
        self._waiting = [
            (model[entity.name], reading)
            for entity in state.entities
            for reading in entity.ranges
            if not reading.is_done
        ]
        self._saved_read_count = budget.spent_count

    async def run(self, stop: asyncio.Event) -> bool:
        """
        Read every document that is left, or until `stop` is set or the budget is spent.

        The moment of an earlier process is read on where the store still shows it; else, and when
        it becomes too old on the way, what is left is read as it is now.

        Returns:
            Whether all is read; then the progress file is gone.

        Raises:
            SourceUnavailable, BusUnavailable, SqlUnavailable: the progress is saved; go on later.
            SourceRefused, BusRefused, DatabaseRefused: likewise, and a person is needed.
        """
        while self._waiting and not stop.is_set():
            before = self.state.document_count
            asked_us = self.state.read_time_us
            if asked_us is None and not self._pays_for_pinning():
                break
            try:
                async with self._store.pinned(asked_us) as view:
                    self.state.read_time_us = view.read_time_us
                    await self._read_all(view, stop)
                break
            except ReadTimeRefused:
                if asked_us is None and self.state.document_count == before:
                    raise
                self.state.read_time_us = None
        if self.state.is_finished:
            self._file.remove()
        return self.state.is_finished

    def _pays_for_pinning(self) -> bool:
        """Pay the read by which Firestore tells the time; False when nothing is left for it."""
        try:
            self._budget.pay()
        except ReadBudgetSpent:
            return False
        return True

    async def _read_all(self, view: PinnedView, stop: asyncio.Event) -> None:
        """Let the workers share the ranges; after an error the others finish their page."""
        ending = asyncio.Event()
        workers = [
            self._work(view, stop, ending)
            for _ in range(min(self._worker_count, len(self._waiting)))
        ]
        ended = await asyncio.gather(*workers, return_exceptions=True)
        errors = [error for error in ended if error is not None]
        unforeseen = [error for error in errors if not isinstance(error, StoreMirrorError)]
        for error in (*unforeseen, *errors):
            raise error

    async def _work(self, view: PinnedView, stop: asyncio.Event, ending: asyncio.Event) -> None:
        """Read one waiting range after the other; whoever fails sets `ending`."""
        while self._waiting and not stop.is_set() and not ending.is_set():
            entity, reading = self._waiting.pop(0)
            try:
                await self._read_range(view, entity, reading, (stop, ending))
            except ReadBudgetSpent:
                return
            except BaseException:
                ending.set()
                raise
            finally:
                if not reading.is_done:
                    self._waiting.append((entity, reading))

    async def _read_range(
        self,
        view: PinnedView,
        entity: Entity,
        reading: RangeProgress,
        stops: Sequence[asyncio.Event],
    ) -> None:
        """Read a range page by page; a page counts once its events are durable."""
        pages = view.scan(
            entity.path, page_size=self._page_size, within=reading.rest, budget=self._budget
        )
        while await self._pace.enter(stops):
            try:
                page = await anext(pages, None)
                if page is not None:
                    await self._sink.put(entity, page)
            finally:
                self._pace.leave()
            if page is None:
                reading.is_done = True
                await self._save()
                return
            reading.position = entity.match(page.documents[-1].path.split("/"))
            reading.document_count += len(page.documents)
            await self._save()

    async def _save(self) -> None:
        spent_count = self._budget.spent_count
        self.state.read_count += spent_count - self._saved_read_count
        self._saved_read_count = spent_count
        await self._file.save(self.state)
        if self._on_progress is not None:
            self._on_progress(
                BackfillProgress(
                    document_count=self.state.document_count,
                    expected_count=sum(e.counted for e in self.state.entities),
                    read_count=spent_count,
                )
            )
