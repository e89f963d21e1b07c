"""
One batch from its events to its settled deliveries: apply, bisect, read again, complete.

A delivery is completed only after its rows are committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from storemirror.apply.hand import Hand
from storemirror.apply.port import (
    BatchObserver,
    BatchReport,
    Step,
    StepHook,
    Taken,
)
from storemirror.apply.reread import Rereader
from storemirror.apply.retry import Retry
from storemirror.apply.settle import (
    Settlement,
    decide_settlement,
    halves,
    latencies_us,
    split_by_delivery,
)
from storemirror.apply.settler import Settler
from storemirror.apply.stats import WriterStats
from storemirror.bus.port import Delivery, Rejection
from storemirror.clock import Clock
from storemirror.errors import PoisonEventError
from storemirror.event.change import Outcome
from storemirror.sql.port import SqlMirror


class Applier:
    """Applies batches and settles their deliveries."""

    def __init__(
        self,
        *,
        mirror: SqlMirror,
        rereader: Rereader,
        clock: Clock,
        hand: Hand,
        retry: Retry,
        settler: Settler,
        stats: WriterStats,
        hooks: StepHook | None,
        on_batch: BatchObserver | None,
    ) -> None:
        """Name everything a batch passes through."""
        self._mirror = mirror
        self._rereader = rereader
        self._room = rereader.room
        self._clock = clock
        self._hand = hand
        self._retry = retry
        self._settler = settler
        self._stats = stats
        self._hooks = hooks
        self._on_batch = on_batch

    async def process(self, batch: Sequence[Taken], *, lane: int) -> None:
        """
        Apply every event of a batch that is still ours to apply, and settle its delivery.

        Raises:
            SqlUnavailable: still after the retries.  What is not settled is still held.
            DatabaseRefused: likewise.
        """
        parts: deque[Sequence[Taken]] = deque(split_by_delivery(batch))
        while parts:
            part = self.to_apply(parts.popleft())
            if not part:
                continue
            try:
                outcomes = await self._apply(part)
            except PoisonEventError as exc:
                if self._settlement_of(exc, part) is Settlement.BISECT:
                    parts.extendleft(reversed(halves(part)))
                else:
                    await self._set_aside(part[0].delivery, exc.reason, str(exc))
                continue
            await self._settle(part, outcomes, lane=lane)

    def to_apply(self, part: Sequence[Taken]) -> Sequence[Taken]:
        """Give those whose lock is still held, and that do not wait for the document store."""
        held = self._hand.held_among([taken.delivery for taken in part])
        if len(held) == len(part) and self._room.is_empty:
            return part
        return [
            taken
            for taken in part
            if self._hand.holds(taken.delivery) and not self._room.keeps(taken.delivery)
        ]

    @staticmethod
    def _settlement_of(exc: PoisonEventError, part: Sequence[Taken]) -> Settlement:
        return decide_settlement(exc, event_count=len(part), may_retry=False)

    async def _apply(self, part: Sequence[Taken]) -> list[Outcome]:
        """Apply in one transaction, again and again while that may help."""
        await self._strike(Step.BEFORE_APPLY, part)
        events = [taken.event for taken in part]
        return await self._retry.within_lock(
            lambda: self._mirror.apply(events),
            is_held=lambda: any(self._hand.holds(taken.delivery) for taken in part),
        )

    async def _settle(
        self, part: Sequence[Taken], outcomes: Sequence[Outcome], *, lane: int
    ) -> None:
        latencies = latencies_us(part, outcomes, now_us=self._clock.now_us())
        self._stats.count_outcomes(outcomes)
        self._stats.count_latencies(latencies)
        waiting: set[int] = set()
        if Outcome.EXPIRED in outcomes:
            waiting = await self._rereader.renew(
                [t for t, o in zip(part, outcomes, strict=True) if o is Outcome.EXPIRED]
            )
        await self._strike(Step.AFTER_APPLY_BEFORE_COMPLETE, part)
        deliveries = [taken.delivery for taken in part]
        if waiting:
            deliveries = [d for d in deliveries if d.sequence_number not in waiting]
        settled, unsure = await self._settler.complete(deliveries)
        if self._on_batch is not None:
            self._on_batch(
                BatchReport(
                    lane=lane,
                    settled=settled,
                    unsure=unsure,
                    outcomes=outcomes,
                    latencies_us=[latency_us for _, latency_us in latencies],
                )
            )
        await self._strike(Step.AFTER_COMPLETE, part)

    async def _set_aside(self, delivery: Delivery, reason: str, description: str) -> None:
        rejection = Rejection(delivery=delivery, reason=reason, description=description)
        await self._settler.dead_letter([rejection])

    async def _strike(self, step: Step, part: Sequence[Taken]) -> None:
        if self._hooks is not None:
            await self._hooks(step, [taken.delivery for taken in part])
