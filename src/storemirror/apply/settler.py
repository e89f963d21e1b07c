"""Tells the bus what became of deliveries, and the hand that they are no longer held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from storemirror.apply.hand import Hand
from storemirror.apply.retry import Retry
from storemirror.apply.stats import WriterStats
from storemirror.bus.port import Consumer, Delivery, Rejection
from storemirror.errors import TransientError
from storemirror.telemetry import LogEvent

_log = structlog.get_logger(__name__)


class Settler:
    """Settles what is held.  A bus that does not answer is asked again within the lock."""

    def __init__(self, *, consumer: Consumer, hand: Hand, retry: Retry, stats: WriterStats) -> None:
        """Name the bus, what is held, and who counts."""
        self._consumer = consumer
        self.hand = hand
        self.retry = retry
        self._stats = stats

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Settle for good; gives those that are.  The others come again."""
        settled = await self._settle(deliveries, self._consumer.complete)
        self._stats.settled += len(settled)
        return settled

    async def abandon(self, deliveries: Sequence[Delivery]) -> None:
        """Give back."""
        given_back = await self._settle(deliveries, self._consumer.abandon)
        # In one line with the await, two at a time would lose the count of one.
        self._stats.abandoned += len(given_back)

    async def dead_letter(self, rejections: Sequence[Rejection]) -> None:
        """Set aside, each with its reason."""
        by_number = {r.delivery.sequence_number: r for r in rejections}

        async def set_aside(deliveries: Sequence[Delivery]) -> list[Delivery]:
            return await self._consumer.dead_letter(
                [by_number[d.sequence_number] for d in deliveries]
            )

        settled = await self._settle([r.delivery for r in rejections], set_aside)
        self._stats.dead_lettered += len(settled)
        for delivery in settled:
            _log.warning(
                LogEvent.EVENT_DEAD_LETTERED.value,
                message_id=delivery.message.message_id,
                reason=by_number[delivery.sequence_number].reason,
                description=by_number[delivery.sequence_number].description,
            )

    async def _settle(
        self,
        deliveries: Sequence[Delivery],
        tell_bus: Callable[[Sequence[Delivery]], Awaitable[list[Delivery]]],
    ) -> list[Delivery]:
        """Settle what of `deliveries` is still held; gives what the bus has taken note of."""
        held = self.hand.held_among(deliveries)
        if not held:
            return []
        try:
            with self.hand.settling(held):
                lost = await self.retry.within_lock(
                    lambda: tell_bus(held), is_held=lambda: any(map(self.hand.holds, held))
                )
        except TransientError as exc:
            _log.warning(LogEvent.SETTLEMENT_FAILED.value, count=len(held), error=str(exc))
            lost = held
        lost_numbers = {d.sequence_number for d in lost}
        settled = [d for d in held if d.sequence_number not in lost_numbers] if lost else held
        self.hand.lose(self.hand.held_among(lost))
        self.hand.let_go(self.hand.held_among(settled))
        return settled
