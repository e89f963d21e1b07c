"""Publishing on the PostgreSQL bus.  See `storemirror.bus.postgres`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from storemirror.bus.port import TOPIC, Message, PublishResult
from storemirror.bus.postgres_session import Session, Upkeep, properties_json
from storemirror.bus.rules import refuse_bad_messages
from storemirror.clock import Clock
from storemirror.errors import BusRefused, BusUnavailable
from storemirror.sql.postgres.connection import Database

#: Least time between two wake-ups by one publisher: a NOTIFY takes a lock that every other one
#: waits for.
NOTIFY_INTERVAL_S: Final = 0.005

_PUBLISH: Final = "SELECT bus.publish(%s, %b::text[], %b::bytea[], %b::text[], %b::text[])"


class PostgresPublisher:
    """Puts messages on a topic.  Safe for concurrent use."""

    def __init__(self, database: Database, clock: Clock, *, topic: str = TOPIC) -> None:
        """
        Name the topic; nothing is opened before the first call.

        Args:
            database: of kind `BUS`; stays the caller's to close.
            clock: paces wake-ups and upkeep.
            topic: must have been provisioned.
        """
        self._session = Session(database, topic)
        self._clock = clock
        self._upkeep = Upkeep(self._session, clock)
        self._waker: asyncio.Task[None] | None = None
        self._has_news = False

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        """See `Publisher.publish`.  One statement."""
        if not messages:
            return PublishResult(accepted_count=0, duplicate_count=0)
        refuse_bad_messages(messages)
        # The first of several with one id is the one that counts.
        unique = {message.message_id: message for message in reversed(messages)}
        fresh = list(reversed(unique.values()))
        rows = await self._session.rows(
            _PUBLISH,
            (
                self._session.topic,
                [message.message_id for message in fresh],
                [message.body for message in fresh],
                [message.content_type for message in fresh],
                [properties_json(message.properties) for message in fresh],
            ),
        )
        accepted_count: int = rows[0][0]
        if accepted_count:
            self._wake_consumers()
        self._upkeep.start_if_due()
        return PublishResult(
            accepted_count=accepted_count, duplicate_count=len(messages) - accepted_count
        )

    def _wake_consumers(self) -> None:
        """Have consumers woken, at once or together with what is published in the next moment."""
        self._has_news = True
        if self._waker is None or self._waker.done():
            self._waker = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        """Wake consumers once an interval, until there is no more news."""
        while self._has_news:
            self._has_news = False
            # Consumers poll as well: a lost wake-up costs a quarter of a second, no message.
            with contextlib.suppress(BusUnavailable, BusRefused):
                await self._session.rows(
                    "SELECT pg_notify('storemirror_bus', %s)", (self._session.topic,)
                )
            await self._clock.sleep(NOTIFY_INTERVAL_S)

    async def aclose(self) -> None:
        """See `Publisher.aclose`.  The database stays open."""
        if self._waker is not None:
            await self._waker
        await self._upkeep.aclose()
