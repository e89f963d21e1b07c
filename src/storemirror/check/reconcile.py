"""
Compares which documents there are with which rows there are, and publishes what is missing.

For what fires no trigger: managed imports, long outages, restores.  The store is pinned, the
backlog up to that moment drains, then documents and rows are read side by side by rising key.
Nothing is written into the mirror from here: everything goes through the door of every event,
and a version older than its row's changes nothing.

What it cannot see: contents that differ under an equal version (`storemirror check` does), and
collections that are not declared.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from storemirror.bus.port import BusAdmin, Message, Publisher
from storemirror.check.backlog import Backlog
from storemirror.check.dead_letters import DeadLetters
from storemirror.check.decode import refused_key_part
from storemirror.check.recheck import can_be_document, written_version_of
from storemirror.clock import Clock, rfc3339_from_us
from storemirror.event.change import Origin, RowState, version_of
from storemirror.model.entity import Entity
from storemirror.source.budget import ReadBudget, ReadBudgetSpent
from storemirror.source.port import Document, DocumentRead, DocumentStore, Key, PinnedView
from storemirror.source.reread import observed_change
from storemirror.source.triggers import message_of
from storemirror.sql.port import MirrorRow, SqlMirror

#: Messages published together, and bytes of bodies at which they are.
_BATCH_COUNT: Final = 500
_BATCH_BYTES: Final = 4_000_000
#: Documents older than their row that are listed; all are counted.
_LISTED_MAX_COUNT: Final = 100


class Finding(enum.Enum):
    """What is to be done about one key."""

    #: Both sides agree, or the row is of a later moment than the document was read at.
    NOTHING = "nothing"
    MISSING = "missing"  #: the document has no live row: publish it
    OLDER = "older"  #: the row is of an earlier write: publish the document
    GONE = "gone"  #: the live row has no document: publish a delete
    #: The row has a version that the document has not, nor had later: to be looked at again.
    SUSPECT = "suspect"


def decide_finding(
    document_version: int | None,
    row_state: RowState | None,
    row_version: int,
    *,
    read_time_us: int,
) -> Finding:
    """
    Say what is to be done about one key.

    Args:
        document_version: version of the document's last write at the read time; None: there was
            no document.
        row_state: the row's, read later; None when there is no row.
        row_version: the row's; without a row it does not matter.
        read_time_us: the smallest read time of the stream that covered the key, microseconds
            since the Unix epoch.

    >>> decide_finding(20, None, 0, read_time_us=50).value
    'missing'
    >>> decide_finding(None, RowState.LIVE, 20, read_time_us=50).value
    'gone'
    >>> decide_finding(None, RowState.LIVE, 102, read_time_us=50).value
    'nothing'
    """
    if document_version is None:
        is_gone = row_state is RowState.LIVE and row_version < version_of(
            read_time_us, is_deleted=True
        )
        return Finding.GONE if is_gone else Finding.NOTHING
    if row_state is None or row_state is RowState.STUB:
        return Finding.MISSING
    if row_version < document_version:
        return Finding.OLDER if row_state is RowState.LIVE else Finding.MISSING
    is_later = row_version == document_version or row_version // 2 > read_time_us
    return Finding.NOTHING if is_later else Finding.SUSPECT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileSettings:
    """What to do, and for how long to wait."""

    #: Publish nothing, only count.
    is_dry_run: bool = False
    #: Longest wait for the backlog to drain.
    drain_timeout_s: float = 60.0
    #: Documents a page.
    page_size: int = 500


@dataclass(slots=True, kw_only=True)
class ReconcileCounts:
    """What was seen of one entity."""

    document_count: int = 0
    live_row_count: int = 0
    #: Documents without a live row.
    missing_count: int = 0
    #: Documents whose row is of an earlier write.
    older_count: int = 0
    #: Live rows whose document is gone.
    deleted_count: int = 0
    #: Documents older than their row, though nothing is under way.
    backwards_count: int = 0
    #: Documents left alone because a dead letter of this very version is there already.
    dead_lettered_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileResult:
    """What was found, and published unless it was a dry run."""

    #: Name of the check -> what was seen.
    counts: Mapping[str, ReconcileCounts]
    #: Paths of the first documents that are older than their row.
    backwards_listed: tuple[str, ...]
    is_dry_run: bool
    #: False: the reads were spent, or it was told to stop, before all was seen.
    is_finished: bool
    #: Whether it was told to stop.
    is_stopped: bool
    #: The moment that was looked at, microseconds since the Unix epoch, by the store's clock.
    read_time_us: int
    read_count: int

    @property
    def published_count(self) -> int:
        """Give how many events were published, or would be."""
        return sum(c.missing_count + c.older_count + c.deleted_count for c in self.counts.values())

    @property
    def backwards_count(self) -> int:
        """Give how many documents are older than their row, though nothing is under way."""
        return sum(c.backwards_count for c in self.counts.values())

    def to_json(self) -> dict[str, object]:
        """Give the result as plain JSON values; no document contents in it."""
        return {
            "is_dry_run": self.is_dry_run,
            "is_finished": self.is_finished,
            "published_count": self.published_count,
            "backwards_count": self.backwards_count,
            "backwards_listed": list(self.backwards_listed),
            "checks": {name: asdict(counts) for name, counts in self.counts.items()},
            "read_time": rfc3339_from_us(self.read_time_us),
            "read_count": self.read_count,
        }


async def run_reconcile(
    *,
    store: DocumentStore,
    mirror: SqlMirror,
    entities: Sequence[Entity],
    publisher: Publisher,
    bus_admin: BusAdmin,
    subscription: str,
    pending: Callable[[int], Awaitable[int]] | None,
    clock: Clock,
    budget: ReadBudget,
    source: str,
    run: str,
    settings: ReconcileSettings,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ReconcileResult:
    """
    Publish documents that no row stands for, and deletes of rows that stand for no document.

    Args:
        store: the documents.
        mirror: the rows.
        entities: what to compare.
        publisher: the topic of every event.
        bus_admin: asked for the backlog and for dead letters.
        subscription: the writer's.
        pending: see `storemirror.check.run.run_check`.
        clock: for waits.
        budget: pays for the documents; never exceeded.
        source: CloudEvents source; see `storemirror.event.envelope.source_of`.
        run: names this run, in at most 63 characters: message ids are `<event id>.<run>`.
        settings: what to do.
        stop: ends it: the wait for the backlog within a second, else after the page in hand.
        on_progress: told after each page how many documents were seen.

    Raises:
        CheckIncomplete: the backlog did not drain; nothing was published.
        SchemaMismatch: the installed tables are not the ones declared.
        SourceUnavailable, SqlUnavailable, BusUnavailable: part may be published; do it again.
    """
    await mirror.verify_schema()
    backlog = Backlog(
        bus_admin=bus_admin,
        subscription=subscription,
        pending=pending,
        clock=clock,
        timeout_s=settings.drain_timeout_s,
    )
    async with store.pinned() as view:
        return await _Reconciliation(
            view,
            store,
            mirror,
            backlog,
            Outgoing(publisher, source=source, run=run, is_dry_run=settings.is_dry_run),
            budget,
            stop or asyncio.Event(),
            settings,
        ).run(entities, on_progress)


class Outgoing:
    """Messages on their way to the bus, some at a time; in a dry run they go nowhere."""

    def __init__(self, publisher: Publisher, *, source: str, run: str, is_dry_run: bool) -> None:
        """Say where they go, and under which run."""
        self._publisher = publisher
        self._source = source
        self._run = run
        self._is_dry_run = is_dry_run
        self._messages: list[Message] = []
        self._size_bytes = 0

    async def put(self, entity: Entity, read: DocumentRead) -> None:
        """Have a document, or its absence, published soon."""
        if self._is_dry_run:
            return
        change = observed_change(read, Origin.RECONCILE)
        message = message_of(change, entity.name, self._source, run=self._run)
        self._messages.append(message)
        self._size_bytes += len(message.body)
        if len(self._messages) >= _BATCH_COUNT or self._size_bytes >= _BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Publish what waits."""
        if self._messages:
            await self._publisher.publish(self._messages)
            self._messages, self._size_bytes = [], 0


@dataclass(slots=True)
class _Reconciliation:
    """One run: what was seen so far."""

    view: PinnedView
    store: DocumentStore
    mirror: SqlMirror
    backlog: Backlog
    outgoing: Outgoing
    budget: ReadBudget
    stop: asyncio.Event
    settings: ReconcileSettings
    dead_letters: DeadLetters = field(init=False)
    counts: dict[str, ReconcileCounts] = field(default_factory=dict)
    backwards: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Know what waits for a person already."""
        self.dead_letters = DeadLetters(
            self.backlog.bus_admin, self.backlog.subscription, is_acknowledged=False
        )

    async def run(
        self,
        entities: Sequence[Entity],
        on_progress: Callable[[int], None] | None,
    ) -> ReconcileResult:
        """Walk all entities, or until the reads are spent or it is told to stop."""
        is_finished = await self.backlog.wait_passed(self.view.read_time_us, stop=self.stop)
        try:
            for entity in entities:
                is_finished = is_finished and await self._walk(entity, on_progress)
        except ReadBudgetSpent:
            is_finished = False
        await self.outgoing.flush()
        return ReconcileResult(
            counts=self.counts,
            backwards_listed=tuple(self.backwards),
            is_dry_run=self.settings.is_dry_run,
            is_finished=is_finished,
            is_stopped=self.stop.is_set(),
            read_time_us=self.view.read_time_us,
            read_count=self.budget.spent_count,
        )

    async def _walk(self, entity: Entity, on_progress: Callable[[int], None] | None) -> bool:
        """Walk documents and rows of one entity by rising key; tells whether it came to the end."""
        if self.stop.is_set():
            return False
        counts = self.counts.setdefault(entity.check, ReconcileCounts())
        after: Key | None = None
        smallest_us = self.view.read_time_us
        pages = self.view.scan(entity.path, page_size=self.settings.page_size, budget=self.budget)
        async for page in pages:
            smallest_us = min(smallest_us, page.read_time_us)
            documents = {_key_of(entity, document): document for document in page.documents}
            counts.document_count += len(documents)
            held = [k for k in documents if not refused_key_part(entity, k, self.mirror.limits)]
            if held:
                async for row in self.mirror.rows(entity, after=after, up_to=held[-1]):
                    document = documents.pop(row.key, None)
                    await self._settle(entity, row.key, document, row, smallest_us)
                after = held[-1]
            for key, document in documents.items():
                await self._settle(entity, key, document, None, smallest_us)
            if on_progress is not None:
                on_progress(sum(c.document_count for c in self.counts.values()))
            if self.stop.is_set():
                return False
        async for row in self.mirror.rows(entity, after=after, up_to=None):
            if self.stop.is_set():
                return False
            await self._settle(entity, row.key, None, row, smallest_us)
        return True

    async def _settle(
        self,
        entity: Entity,
        key: Key,
        document: Document | None,
        row: MirrorRow | None,
        read_time_us: int,
    ) -> None:
        """Do what is to be done about one key, and count it."""
        counts = self.counts[entity.check]
        state = None if row is None else row.state
        row_version = 0 if row is None else row.version
        counts.live_row_count += state is RowState.LIVE
        finding = decide_finding(
            written_version_of(document), state, row_version, read_time_us=read_time_us
        )
        if finding is Finding.NOTHING or not can_be_document(key):
            return
        path = entity.path_of(key)
        if finding is Finding.SUSPECT:
            if await self._is_backwards(entity, key):
                counts.backwards_count += 1
                if len(self.backwards) < _LISTED_MAX_COUNT:
                    self.backwards.append(path)
            return
        if document is not None and await self.dead_letters.has(
            path, version_of(document.update_time_us, is_deleted=False)
        ):
            counts.dead_lettered_count += 1
            return
        read = DocumentRead(path=path, document=document, read_time_us=read_time_us)
        await self.outgoing.put(entity, read)
        counts.missing_count += finding is Finding.MISSING
        counts.older_count += finding is Finding.OLDER
        counts.deleted_count += finding is Finding.GONE

    async def _is_backwards(self, entity: Entity, key: Key) -> bool:
        """Tell whether a document is older than its row though nothing is under way.

        The row is read before the document: then a row that is newer has a version from nowhere.
        """
        row = await self.mirror.row(entity, key)
        self.budget.pay()
        read = await self.store.get(entity.path_of(key))
        version = written_version_of(read.document)
        return row is not None and version is not None and version < row.version


def _key_of(entity: Entity, document: Document) -> Key:
    key = entity.match(document.path.split("/"))
    assert key is not None, "the store gave a document that does not fit the pattern"
    return key
