"""
Several messages published as one, for callers that each wait for their own.

While one publish is under way, what arrives gathers for the next: nobody waits for a timer, and a
busy bus commits once for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from storemirror.bus.port import Message, Publisher, PublishResult
from storemirror.errors import MessageRefused

#: Most messages, and most bytes of bodies, published at once.
BATCH_MAX_COUNT: Final = 500
BATCH_MAX_BYTES: Final = 4_000_000
#: Publishes under way at a time.
UNDER_WAY_MAX_COUNT: Final = 2


class GatheringPublisher:
    """Publishes single messages in batches.  Safe for concurrent use, in one event loop."""

    def __init__(self, publisher: Publisher) -> None:
        """
        Gather for `publisher`.

        Args:
            publisher: not closed here.
        """
        #: Publishes that a bus took, and messages in them that it had already.
        self.batch_count = 0
        self.duplicate_count = 0
        self._publisher = publisher
        self._turns = asyncio.Semaphore(UNDER_WAY_MAX_COUNT)
        self._open: _Batch | None = None

    async def publish(self, message: Message) -> None:
        """
        Publish one message; when it returns, it is durable.

        A caller that is cancelled leaves its message in the batch: published or not is unknown.

        Raises:
            BusUnavailable: published or not is unknown; publishing again is safe.
            MessageRefused: this one was not published; its neighbours were not harmed.
            BusRefused: the bus says no to everybody; nothing was published.
        """
        batch = self._open
        if batch is None or batch.is_full:
            batch = self._open = _Batch()
            batch.task = asyncio.create_task(self._flush(batch))
        place = batch.add(message)
        assert batch.task is not None
        refusals = await asyncio.shield(batch.task)
        refusal = refusals[place]
        if refusal is not None:
            raise refusal

    async def _flush(self, batch: _Batch) -> Sequence[MessageRefused | None]:
        """Publish a batch when its turn has come; gives what was refused, by place."""
        async with self._turns:
            if self._open is batch:
                self._open = None
            try:
                self._count(await self._publisher.publish(batch.messages))
            except MessageRefused as exc:
                if len(batch.messages) == 1:
                    return [exc]
            else:
                return [None] * len(batch.messages)
            return [await self._refusal_of(message) for message in batch.messages]

    async def _refusal_of(self, message: Message) -> MessageRefused | None:
        """Publish one message of a batch that was refused: another one may be the cause."""
        try:
            self._count(await self._publisher.publish([message]))
        except MessageRefused as exc:
            return exc
        return None

    def _count(self, result: PublishResult) -> None:
        self.batch_count += 1
        self.duplicate_count += result.duplicate_count


class _Batch:
    """Messages that are published together."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.task: asyncio.Task[Sequence[MessageRefused | None]] | None = None
        self._size_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.messages) >= BATCH_MAX_COUNT or self._size_bytes >= BATCH_MAX_BYTES

    def add(self, message: Message) -> int:
        """Take a message in; gives its place."""
        self.messages.append(message)
        self._size_bytes += len(message.body)
        return len(self.messages) - 1
