"""
Waits until everything committed up to a moment has been settled.

Only then is a difference one of contents and not of lag.  Clocks are not compared with each
other: the bus tells how old its oldest message is, and that age is set against the time that has
gone by here since the source had nothing left to publish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from storemirror.bus.port import BusAdmin, SubscriptionStats
from storemirror.clock import Clock
from storemirror.errors import CheckIncomplete

#: First and longest wait between two looks at the bus.
_FIRST_WAIT_S: Final = 0.02
_LONGEST_WAIT_S: Final = 1.0
#: A message counts as enqueued after a moment only if it is by this much: the age is measured on
#: another machine, and rounded there.
MARGIN_S: Final = 0.05


def decide_is_passed(stats: SubscriptionStats, elapsed_s: float) -> bool:
    """
    Tell whether no message is left that was enqueued before a moment.

    Args:
        stats: asked for not before `elapsed_s` was measured.
        elapsed_s: seconds since that moment.
    """
    return stats.oldest_age_s is None or stats.oldest_age_s + MARGIN_S < elapsed_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What lies between a commit and its row: the source's outbox and one subscription."""

    bus_admin: BusAdmin
    subscription: str
    #: Gives how many changes committed up to a moment (microseconds since the Unix epoch, by the
    #: store's clock) are not on the bus yet; None where the source has no outbox to ask, and so
    #: only the bus is waited for.
    pending: Callable[[int], Awaitable[int]] | None
    clock: Clock
    timeout_s: float

    async def wait_passed(self, moment_us: int, *, stop: asyncio.Event | None = None) -> bool:
        """
        Wait until every change committed up to a moment has been settled.

        Messages enqueued later do not delay it, so it ends while the application writes on.

        Args:
            moment_us: microseconds since the Unix epoch, by the store's clock.
            stop: ends the wait; looked at once a second at least.

        Returns:
            False: `stop` was set before that.

        Raises:
            CheckIncomplete: it took longer than `timeout_s`.
        """
        started_s = self.clock.monotonic_s()
        published_s: float | None = None
        wait_s = _FIRST_WAIT_S
        while stop is None or not stop.is_set():
            pending_count = 0
            if published_s is None:
                pending_count = await self._pending_count(moment_us)
                published_s = self.clock.monotonic_s() if pending_count == 0 else None
            asked_s = self.clock.monotonic_s()
            stats = await self.bus_admin.stats(self.subscription)
            if published_s is not None and decide_is_passed(stats, asked_s - published_s):
                return True
            if asked_s - started_s > self.timeout_s:
                raise CheckIncomplete(self._described(pending_count, stats))
            await self.clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        return False

    async def _pending_count(self, moment_us: int) -> int:
        return 0 if self.pending is None else await self.pending(moment_us)

    def _described(self, pending_count: int, stats: SubscriptionStats) -> str:
        oldest = (
            "" if stats.oldest_age_s is None else f", the oldest {stats.oldest_age_s:.1f} s old"
        )
        return (
            f"the backlog did not drain within {self.timeout_s:g} s: {pending_count} changes not"
            f" published, {stats.depth} messages on {self.subscription}{oldest},"
            f" {stats.dead_letter_count} dead letters"
        )
