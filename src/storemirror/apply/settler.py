"""
Tells the bus what became of deliveries, and the hand that they are no longer held.

Before a conversation's event is set aside the mirror is told, or users would go on reading by what
the row said before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from storemirror.apply.hand import Hand
from storemirror.apply.retry import Retry
from storemirror.apply.stats import WriterStats
from storemirror.bus.port import Consumer, Delivery, Rejection
from storemirror.errors import DatabaseRefused, SettledInPart, TransientError
from storemirror.telemetry import LogEvent

_log = structlog.get_logger(__name__)


class Settled(NamedTuple):
    """What came of deliveries; of the others the lock was lost, and they come again."""

    #: The bus has taken note of them.
    settled: list[Delivery]
    #: The bus gave no answer: they are settled, or come again.
    unsure: list[Delivery]


class Marker(Protocol):
    """Records in the mirror what is about to be set aside."""

    async def mark(self, rejections: Sequence[Rejection]) -> None:
        """Record it; raises as `SqlMirror.mark_unverified`."""
        ...

    def note_refusal(self, error: Exception) -> None:
        """Learn that the mirror took no mark, and that what was to be set aside is kept."""
        ...


class Settler:
    """Settles what is held.  A bus that does not answer is asked again within the lock."""

    def __init__(
        self, *, consumer: Consumer, hand: Hand, retry: Retry, stats: WriterStats, marker: Marker
    ) -> None:
        """Name the bus, what is held, who counts, and who is told before the bus is."""
        self._consumer = consumer
        self.hand = hand
        self.retry = retry
        self._stats = stats
        self._marker = marker
        #: What the mirror took no mark of yet, by sequence number: it stays under lock.
        self._unmarked: dict[int, Rejection] = {}

    async def complete(self, deliveries: Sequence[Delivery]) -> Settled:
        """Settle for good; what is still to be set aside stays."""
        if self._unmarked:
            deliveries = [d for d in deliveries if not self._is_unmarked(d)]
        result = await self._settle(deliveries, self._consumer.complete)
        self._stats.settled += len(result.settled)
        return result

    async def abandon(self, deliveries: Sequence[Delivery]) -> None:
        """Give back."""
        given_back = (await self._settle(deliveries, self._consumer.abandon)).settled
        # In one line with the await, two at a time would lose the count of one.
        self._stats.abandoned += len(given_back)

    async def dead_letter(self, rejections: Sequence[Rejection]) -> None:
        """
        Set aside, each with its reason.

        What the mirror takes no mark of is kept, and tried again by `dead_letter_kept`.
        """
        held = [r for r in rejections if self.hand.holds(r.delivery)]
        try:
            await self.retry.within_lock(
                lambda: self._marker.mark(held),
                is_held=lambda: any(self.hand.holds(r.delivery) for r in held),
            )
        except (TransientError, DatabaseRefused) as exc:
            self._unmarked.update((r.delivery.sequence_number, r) for r in held)
            self._marker.note_refusal(exc)
            return
        await self._dead_letter(held)

    async def dead_letter_kept(self) -> None:
        """
        Set aside what the mirror took no mark of before; nothing is kept when it returns.

        Raises:
            SqlUnavailable, DatabaseRefused: it still takes none; all is kept.
        """
        while self._unmarked:  # another lane may add to it meanwhile
            kept = dict(self._unmarked)
            held = [r for r in kept.values() if self.hand.holds(r.delivery)]
            await self._marker.mark(held)
            for number, rejection in kept.items():
                if self._unmarked.get(number) is rejection:
                    del self._unmarked[number]
            await self._dead_letter(held)

    def _is_unmarked(self, delivery: Delivery) -> bool:
        kept = self._unmarked.get(delivery.sequence_number)
        return kept is not None and kept.delivery.lock_token == delivery.lock_token

    async def _dead_letter(self, rejections: Sequence[Rejection]) -> None:
        by_number = {r.delivery.sequence_number: r for r in rejections}

        async def set_aside(deliveries: Sequence[Delivery]) -> list[Delivery]:
            return await self._consumer.dead_letter(
                [by_number[d.sequence_number] for d in deliveries]
            )

        settled = (await self._settle([r.delivery for r in rejections], set_aside)).settled
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
    ) -> Settled:
        """Settle what of `deliveries` is still held."""
        held = self.hand.held_among(deliveries)
        unsure: list[Delivery] = []
        if not held:
            return Settled([], unsure)
        try:
            with self.hand.settling(held):
                lost = await self.retry.within_lock(
                    lambda: tell_bus(held), is_held=lambda: any(map(self.hand.holds, held))
                )
        except SettledInPart as exc:
            lost = unsure = [d for d in held if d.sequence_number in exc.unsettled]
            _warn_of_failure(unsure, exc)
        except TransientError as exc:
            lost = unsure = held
            _warn_of_failure(unsure, exc)
        lost_numbers = {d.sequence_number for d in lost}
        settled = [d for d in held if d.sequence_number not in lost_numbers] if lost else held
        self.hand.lose(self.hand.held_among(lost))
        self.hand.let_go(settled)
        return Settled(settled, unsure)


def _warn_of_failure(unsure: Sequence[Delivery], exc: TransientError) -> None:
    _log.warning(LogEvent.SETTLEMENT_FAILED.value, count=len(unsure), error=str(exc))
