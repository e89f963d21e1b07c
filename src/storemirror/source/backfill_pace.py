"""
Holds a backfill back while the bus is full.

Without it a backfill would put ten million events before the next message that somebody sends,
which would then be hours late, and the bus would have to hold them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from storemirror.bus.port import BusAdmin, SubscriptionStats
from storemirror.bus.waiting import wait_for_any
from storemirror.clock import Clock
from storemirror.source.backfill_sink import repeated

#: Most messages that a backfill finds in the subscription and still adds to.
MAX_DEPTH: Final = 20_000
#: How often a full bus is looked at.
LOOK_EVERY_S: Final = 0.5
#: How long nothing may have been taken before that is said.
STALLED_AFTER_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A backfill waits for the writer."""

    #: Messages waiting or locked in the subscription.
    depth: int
    max_depth: int
    #: Seconds since a message was last settled there, as far as this backfill has seen.
    still_s: float

    @property
    def is_stalled(self) -> bool:
        """Tell whether it looks as if no writer runs."""
        return self.still_s >= STALLED_AFTER_S


class Pace(Protocol):
    """Says when the next page may be read."""

    async def enter(self, stops: Sequence[asyncio.Event]) -> bool:
        """
        Wait until a page may be read, or one of `stops` is set; False when it is.

        Raises:
            BusUnavailable: after retries.
            BusRefused: there is no such subscription.
        """
        ...

    def leave(self) -> None:
        """Say that the page's events are on the bus, or never will be."""
        ...


class Unlimited:
    """For events that do not go through the bus."""

    async def enter(self, stops: Sequence[asyncio.Event]) -> bool:
        """See `Pace.enter`."""
        return not any(stop.is_set() for stop in stops)

    def leave(self) -> None:
        """See `Pace.leave`."""


class DepthLimit:
    """Lets pages pass while the subscription, with the pages in hand, holds less than a bound.

    So it never holds more than the bound and one page, beside what others publish.  It waits
    before a page is read: a stop meanwhile costs no read.
    """

    def __init__(
        self,
        admin: BusAdmin,
        clock: Clock,
        *,
        subscription: str,
        page_size: int,
        max_depth: int = MAX_DEPTH,
        on_wait: Callable[[Waiting], None],
    ) -> None:
        """
        Look at `subscription`.

        Args:
            admin: counts; not closed here.
            clock: waits.
            subscription: the writer's.
            page_size: documents a page.
            max_depth: the bound, messages.
            on_wait: told at each look that finds no room.
        """
        self._admin = admin
        self._clock = clock
        self._subscription = subscription
        self._page_size = page_size
        self._max_depth = max_depth
        self._on_wait = on_wait
        self._turn = asyncio.Lock()
        self._in_hand_count = 0
        self._progress: tuple[int | None, int, int] | None = None
        self._settled_at_s = clock.monotonic_s()

    async def enter(self, stops: Sequence[asyncio.Event]) -> bool:
        """See `Pace.enter`."""
        async with self._turn:
            while not any(stop.is_set() for stop in stops):
                # Before it is counted: what is published meanwhile is counted twice, not missed.
                in_hand_count = self._in_hand_count
                stats = await repeated(partial(self._admin.stats, self._subscription), self._clock)
                still_s = self._still_s(stats)
                if stats.depth + in_hand_count < self._max_depth:
                    self._in_hand_count += self._page_size
                    return True
                self._on_wait(
                    Waiting(depth=stats.depth, max_depth=self._max_depth, still_s=still_s)
                )
                await wait_for_any(stops, self._clock, LOOK_EVERY_S)
        return False

    def leave(self) -> None:
        """See `Pace.leave`."""
        self._in_hand_count -= self._page_size

    def _still_s(self, stats: SubscriptionStats) -> float:
        """Give how long nothing has been settled: neither completed nor dead-lettered.

        A bus that does not count completions tells of them by its oldest message.
        """
        counted = stats.completed_count
        progress = (
            stats.oldest_enqueued_at_us if counted is None else counted,
            stats.dead_letter_count,
            stats.acknowledged_count,
        )
        now_s = self._clock.monotonic_s()
        has_room = stats.depth < self._max_depth
        if progress != self._progress or has_room:
            self._progress = progress
            self._settled_at_s = now_s
        return now_s - self._settled_at_s
