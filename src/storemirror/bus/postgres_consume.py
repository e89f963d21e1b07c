"""Receiving and settling on the PostgreSQL bus.  See `storemirror.bus.postgres`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final, LiteralString

import msgspec

from storemirror.bus.port import TOPIC, Delivery, Rejection
from storemirror.bus.postgres_session import Session, Upkeep, message_of
from storemirror.bus.rules import storable
from storemirror.bus.waiting import News, ended, wait_for
from storemirror.clock import Clock
from storemirror.sql.postgres.connection import Database

#: How often a waiting consumer looks although nobody woke it.
POLL_INTERVAL_S: Final = 0.25
#: How often a consumer looks below the low-water mark.  Nothing is ever there by the mark's own
#: reasoning; a database that was restored under a running consumer is beyond that reasoning.
FULL_LOOK_INTERVAL_S: Final = 30.0

_RECEIVE: Final = "SELECT * FROM bus.receive(%s, %s, %s::integer, %s::uuid, %s)"
_COMPLETE: Final = "SELECT bus.complete(%s, %s, %b::bigint[], %s::uuid[])"
_ABANDON: Final = "SELECT bus.abandon(%s, %s, %b::bigint[], %s::uuid[])"
_SET_ASIDE: Final = "SELECT bus.set_aside(%s, %s, %b::bigint[], %s::uuid[], %s::text[], %s::text[])"
_RENEW: Final = "SELECT * FROM bus.renew(%s, %s, %b::bigint[], %s::uuid[])"


class PostgresConsumer:
    """Takes deliveries from one subscription.  Safe for concurrent use.

    Keeps one connection of the database for itself from the first `receive` on.
    """

    def __init__(
        self, database: Database, clock: Clock, *, subscription: str, topic: str = TOPIC
    ) -> None:
        """
        Name the subscription; nothing is opened before the first call.

        Args:
            database: of kind `BUS`, with room for two connections a consumer; stays the caller's
                to close.
            clock: for waiting; locks go by the database's own clock.
            subscription: must have been provisioned.
            topic: must have been provisioned.
        """
        self._session = Session(database, topic)
        self._subscription = subscription
        self._clock = clock
        self._upkeep = Upkeep(self._session, clock)
        self._news = News()
        self._listener: asyncio.Task[None] | None = None
        self._full_look_at_s = clock.monotonic_s()

    async def receive(self, max_count: int, *, max_wait_s: float) -> list[Delivery]:
        """See `Consumer.receive`."""
        if max_count < 1:
            raise ValueError(f"max_count must be >= 1, got {max_count}")
        deadline_s = self._clock.monotonic_s() + max_wait_s
        if self._listener is None:
            self._listener = asyncio.create_task(self._session.listen(self._news, self._clock))
        while True:
            news = self._news.next()
            self._upkeep.start_if_due()
            deliveries = await self._take(max_count)
            remaining_s = deadline_s - self._clock.monotonic_s()
            if deliveries or remaining_s <= 0:
                return deliveries
            await wait_for(news, self._clock, min(remaining_s, POLL_INTERVAL_S))

    async def _take(self, max_count: int) -> list[Delivery]:
        """Lock what is there, by rising sequence number."""
        now_s = self._clock.monotonic_s()
        is_full_look = now_s >= self._full_look_at_s
        if is_full_look:
            self._full_look_at_s = now_s + FULL_LOOK_INTERVAL_S
        token = str(uuid.uuid4())
        rows = await self._session.rows(
            _RECEIVE, (self._session.topic, self._subscription, max_count, token, is_full_look)
        )
        rows.sort()
        return [
            Delivery(
                message=message_of(*message),
                lock_token=token,
                sequence_number=sequence_number,
                delivery_count=delivery_count,
                enqueued_at_us=enqueued_at_us,
                locked_until_us=locked_until_us,
            )
            for sequence_number, *message, delivery_count, enqueued_at_us, locked_until_us in rows
        ]

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.complete`."""
        return await self._settle(_COMPLETE, _in_lock_order(deliveries))

    async def abandon(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.abandon`."""
        return await self._settle(_ABANDON, _in_lock_order(deliveries))

    async def dead_letter(self, rejections: Sequence[Rejection]) -> list[Delivery]:
        """See `Consumer.dead_letter`."""
        ordered = sorted(rejections, key=lambda rejection: rejection.delivery.sequence_number)
        return await self._settle(
            _SET_ASIDE,
            [rejection.delivery for rejection in ordered],
            [storable(rejection.reason) for rejection in ordered],
            [storable(rejection.description) for rejection in ordered],
        )

    async def _settle(
        self, statement: LiteralString, deliveries: Sequence[Delivery], *more: list[str]
    ) -> list[Delivery]:
        """Run one settling statement; gives the deliveries that were lost before."""
        if not deliveries:
            return []
        rows = await self._session.rows(statement, (*self._held(deliveries), *more))
        settled = set(rows[0][0])
        return [d for place, d in enumerate(deliveries, start=1) if place not in settled]

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.renew`."""
        if not deliveries:
            return []
        ordered = _in_lock_order(deliveries)
        rows = await self._session.rows(_RENEW, self._held(ordered))
        return [
            msgspec.structs.replace(ordered[place - 1], locked_until_us=locked_until_us)
            for place, locked_until_us in sorted(rows)
        ]

    def _held(self, deliveries: Sequence[Delivery]) -> tuple[str, str, list[int], list[str]]:
        """Give the parameters that name deliveries."""
        return (
            self._session.topic,
            self._subscription,
            [delivery.sequence_number for delivery in deliveries],
            [delivery.lock_token for delivery in deliveries],
        )

    async def aclose(self) -> None:
        """See `Consumer.aclose`.  The database stays open."""
        if self._listener is not None:
            await ended(self._listener)
            self._listener = None
        await self._upkeep.aclose()


def _in_lock_order(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Sort deliveries: a renewal and a settlement that lock rows in other orders deadlock."""
    return sorted(deliveries, key=lambda delivery: delivery.sequence_number)
