"""
Where a backfill's events go: to the bus, or straight into SQL.

Either way a page is durable when `put` returns, and putting it again changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from storemirror.bus.port import Message, Publisher
from storemirror.clock import Clock
from storemirror.errors import EventRefused, PoisonEventError, TransientError
from storemirror.event.change import Change, Origin, Outcome
from storemirror.model.entity import Entity
from storemirror.model.mapping import check_key, map_document
from storemirror.model.types import DialectLimits
from storemirror.source.port import DocumentPage, DocumentRead
from storemirror.source.reread import observed_change
from storemirror.source.triggers import message_of
from storemirror.sql.port import RowEvent, SqlMirror

#: Most messages, and most bytes of bodies, published at once.
PUBLISH_MAX_COUNT: Final = 500
PUBLISH_MAX_BYTES: Final = 4_000_000
#: Most events a transaction; the procedures take 2,000.
APPLY_MAX_COUNT: Final = 2_000
#: For how long a bus or database in trouble is tried again, and the waits between.
RETRY_WITHIN_S: Final = 60.0
RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 5.0
#: Documents that could not be applied which are listed; all are counted.
LISTED_MAX_COUNT: Final = 100

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class SinkCounts:
    """What became of a backfill's documents, in this process."""

    #: Events put onto the bus, and those that the bus had already.
    published: int = 0
    known_to_bus: int = 0
    #: Straight into SQL only: what applying did.
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    #: Straight into SQL only: events that do not fit; they went to the bus, for the writer to
    #: dead-letter them.
    unfit: int = 0
    #: The first of them: path, and why; no contents.
    unfit_listed: list[tuple[str, str]] = field(default_factory=list)


class Sink(Protocol):
    """Takes pages of documents."""

    @property
    def counts(self) -> SinkCounts:
        """Give what was done so far."""
        ...

    async def put(self, entity: Entity, page: DocumentPage) -> None:
        """
        Make events of a page's documents, and have them durable.

        Raises:
            BusUnavailable, SqlUnavailable: after retries; putting the page again is safe.
            BusRefused, DatabaseRefused: a person is needed.
        """
        ...


class BusSink:
    """Publishes the events; the writer applies them."""

    def __init__(self, publisher: Publisher, clock: Clock, *, source: str, run: str) -> None:
        """
        Publish under the message ids `<event id>.<run>`.

        Args:
            publisher: not closed here.
            clock: for waits.
            source: CloudEvents source; see `storemirror.event.envelope.source_of`.
            run: names this backfill, in at most 63 characters.
        """
        self.counts = SinkCounts()
        self._publisher = publisher
        self._clock = clock
        self._source = source
        self._run = run

    async def put(self, entity: Entity, page: DocumentPage) -> None:
        """See `Sink.put`."""
        await self.publish(entity, changes_of(page))

    async def publish(self, entity: Entity, changes: Sequence[Change]) -> None:
        """Put changes of one entity onto the bus; see `Sink.put`."""
        messages = [message_of(c, entity.name, self._source, run=self._run) for c in changes]
        for portion in _portions(messages):
            result = await repeated(partial(self._publisher.publish, portion), self._clock)
            self.counts.published += result.accepted_count
            self.counts.known_to_bus += result.duplicate_count


class DirectSink:
    """Applies the events straight away; what cannot be applied goes to the bus."""

    def __init__(self, mirror: SqlMirror, bus: BusSink, clock: Clock) -> None:
        """
        Apply to `mirror`.

        Args:
            mirror: not closed here; its schema was verified.
            bus: takes events that do not fit (the writer dead-letters them) and those that
                expired (the writer reads the document again).
            clock: for waits.
        """
        self.counts = bus.counts
        self._mirror = mirror
        self._bus = bus
        self._clock = clock

    async def put(self, entity: Entity, page: DocumentPage) -> None:
        """See `Sink.put`."""
        events = []
        for change in changes_of(page):
            try:
                events.append(row_event(entity, change, self._mirror.limits))
            except PoisonEventError as exc:
                await self._set_aside(entity, change, exc)
        for start in range(0, len(events), APPLY_MAX_COUNT):
            await self._apply(events[start : start + APPLY_MAX_COUNT])

    async def _apply(self, events: Sequence[RowEvent]) -> None:
        """Apply in one transaction; an event that SQL refuses is found by halving."""
        if not events:
            return
        try:
            outcomes = await repeated(partial(self._mirror.apply, events), self._clock)
        except EventRefused as exc:
            if len(events) == 1:
                await self._set_aside(events[0].entity, events[0].change, exc)
                return
            middle = len(events) // 2
            await self._apply(events[:middle])
            await self._apply(events[middle:])
            return
        self.counts.outcomes.update(outcomes)
        expired = [e for e, o in zip(events, outcomes, strict=True) if o is Outcome.EXPIRED]
        if expired:
            await self._bus.publish(expired[0].entity, [event.change for event in expired])

    async def _set_aside(self, entity: Entity, change: Change, why: PoisonEventError) -> None:
        await self._bus.publish(entity, [change])
        self.counts.unfit += 1
        if len(self.counts.unfit_listed) < LISTED_MAX_COUNT:
            self.counts.unfit_listed.append((change.path, f"{why.reason}: {why}"))


def changes_of(page: DocumentPage, origin: Origin = Origin.BACKFILL) -> list[Change]:
    """Give a page's documents as changes, observed at the read time that covers the page."""
    return [
        observed_change(
            DocumentRead(path=d.path, document=d, read_time_us=page.read_time_us), origin
        )
        for d in page.documents
    ]


def row_event(entity: Entity, change: Change, limits: DialectLimits) -> RowEvent:
    """
    Map a document that was read to its row.

    Raises:
        KeyRefused, MappingFailed: it does not fit.
    """
    key = entity.match(change.path.split("/"))
    assert key is not None, "the store gave a document that does not fit the pattern"
    assert change.fields is not None, "a scan gives documents that are there"
    named = {"event_id": change.event_id, "path": change.path}
    check_key(entity, key, limits, **named)
    row = map_document(entity, change.fields, limits, **named)
    return RowEvent(entity=entity, change=change, key=key, row=row)


def _portions(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Cut messages into what may be published at once; at least one message each."""
    portion: list[Message] = []
    size_bytes = 0
    for message in messages:
        is_full = len(portion) == PUBLISH_MAX_COUNT
        if portion and (is_full or size_bytes + len(message.body) > PUBLISH_MAX_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(message)
        size_bytes += len(message.body)
    if portion:
        yield portion


async def repeated(do: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Do until it works, fails for good, or the time for retries is over."""
    deadline_s = clock.monotonic_s() + RETRY_WITHIN_S
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_LONGEST_S),
        stop=lambda _: clock.monotonic_s() >= deadline_s,
        sleep=clock.sleep,
        reraise=True,
    )
    return await retrying(do)
