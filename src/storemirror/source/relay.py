"""
From the embedded store's outbox through the triggers to the bus: what Eventarc does for Firestore.

A change leaves the outbox only after its event is durable on the bus.  A crash in between
publishes it again under the same id; the bus or the writer sees that it is a duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from storemirror.bus.port import Message, Publisher
from storemirror.bus.waiting import wait_for_any
from storemirror.clock import Clock
from storemirror.errors import EntityUnknown, TransientError
from storemirror.event.change import Change
from storemirror.model.entity import Model
from storemirror.source.embedded import OUTBOX_MAX_COUNT, EmbeddedDocumentStore, OutboxBatch
from storemirror.source.port import DocumentChange
from storemirror.source.triggers import Unmirrored, message_of, trigger_name_of, triggers_of

#: How often the outbox is looked at when no commit of this process says that there is something.
POLL_S: Final = 0.1
#: First and longest wait after a transient error; each is drawn at random below its bound.
RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 5.0


@dataclass(slots=True)
class RelayCounts:
    """What a relay has done since it exists."""

    #: Changes whose event is on the bus and which have left the outbox.
    published_count: int = 0
    #: Changes of documents that no declared entity is for.
    undeclared_count: int = 0
    #: Changes that make no event; see `Unmirrored`.
    unmirrored_count: int = 0
    #: Passes that ended in a transient error.
    failed_count: int = 0


class TriggerRelay:
    """Publishes the outbox in order.  Any number may run; one at a time has a batch in hand."""

    def __init__(
        self,
        store: EmbeddedDocumentStore,
        model: Model,
        publisher: Publisher,
        clock: Clock,
        *,
        source: str,
        batch_size: int = OUTBOX_MAX_COUNT,
        on_published: Callable[[Sequence[Change]], None] | None = None,
    ) -> None:
        """
        Take what `store` has to tell to `publisher`.

        Args:
            store: whose outbox is emptied; not closed here.
            model: the declared entities.
            publisher: where events go; not closed here.
            clock: waits.
            source: CloudEvents source; see `storemirror.event.envelope.source_of`.
            batch_size: most changes published at once.
            on_published: called with changes as soon as they are on the bus; at least once each.
        """
        self.counts = RelayCounts()
        self._store = store
        self._model = model
        self._triggers = triggers_of(model)
        self._publisher = publisher
        self._clock = clock
        self._source = source
        self._batch_size = batch_size
        self._on_published = on_published

    async def run(self, stop: asyncio.Event) -> None:
        """
        Relay until `stop` is set; the batch in hand is finished, the rest waits in the outbox.

        Transient errors are retried, with growing jittered waits, until `stop` is set.

        Raises:
            BusRefused, DatabaseRefused: a person is needed; the changes wait in the outbox.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_LONGEST_S),
            stop=lambda _: stop.is_set(),
            sleep=lambda duration_s: wait_for_any((stop,), self._clock, duration_s),
            after=self._count_failure,
            reraise=True,
        )
        while not stop.is_set():
            self._store.committed.clear()
            try:
                has_more: bool = await retrying(self.relay_batch)
            except TransientError:
                return  # `stop` was set during an outage: only then do retries end
            if not has_more:
                await wait_for_any((stop, self._store.committed), self._clock, POLL_S)

    async def relay_batch(self) -> bool:
        """
        Publish the oldest changes, then take them out of the outbox.

        Returns:
            Whether there may be more.

        Raises:
            BusUnavailable, SourceUnavailable: published or not is unknown; repeating is safe.
            BusRefused, DatabaseRefused: the changes are in the outbox still.
        """
        async with self._store.outbox_batch(max_count=self._batch_size) as batch:
            told = self._told(batch)
            if told.messages:
                await self._publisher.publish(told.messages)
                if self._on_published is not None:
                    self._on_published(told.changes)
        self.counts.published_count += len(told.changes)
        self.counts.undeclared_count += told.undeclared_count
        self.counts.unmirrored_count += told.unmirrored_count
        return batch.has_more

    def _told(self, batch: OutboxBatch) -> _Told:
        """Run the triggers over a batch."""
        told = _Told([], [])
        for document_change in batch.changes:
            try:
                entity_name, change = self._trigger(document_change)
            except EntityUnknown:
                told.undeclared_count += 1
                continue
            if isinstance(change, Unmirrored):
                told.unmirrored_count += 1
                continue
            told.changes.append(change)
            told.messages.append(message_of(change, entity_name, self._source))
        return told

    def _trigger(self, document_change: DocumentChange) -> tuple[str, Change | Unmirrored]:
        """Call the trigger that is for this document, and give its entity's name with it."""
        entity, _ = self._model.match(document_change.path)
        return entity.name, self._triggers[trigger_name_of(entity)](document_change)

    def _count_failure(self, _: RetryCallState) -> None:
        self.counts.failed_count += 1


@dataclass(slots=True)
class _Told:
    """What the triggers made of a batch; `changes` and `messages` go together."""

    changes: list[Change]
    messages: list[Message]
    undeclared_count: int = 0
    unmirrored_count: int = 0
