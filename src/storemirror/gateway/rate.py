"""
How often one caller may call.

Counted in this process: with several, each lets a caller in as often.  The count is there to keep
one client in a loop from taking the others' share, not to bill anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from storemirror.clock import Clock
from storemirror.gateway.port import Caller

#: How long counts of those who call no more are kept, beyond the library's two minutes.
SWEEP_INTERVAL_S: Final = 60.0

_USER: Final = "user"
_SERVICE: Final = "service"
_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class Rate:
    """Counts calls by caller, and those of some callables once more by themselves."""

    def __init__(
        self,
        calls_per_minute: int,
        clock: Clock,
        *,
        service_calls_per_minute: int | None = None,
        by_callable: Mapping[str, int] = _NONE,
    ) -> None:
        """
        Count from nothing.

        Args:
            calls_per_minute: of one user, whatever is called.
            clock: for the sweep of counts.
            service_calls_per_minute: of one service; None: as many as a user's.
            by_callable: of one caller too: name of a callable -> calls a minute.
        """
        self.counts = Counts(clock)
        self._limiter = SlidingWindowCounterRateLimiter(self.counts)
        service_calls = service_calls_per_minute or calls_per_minute
        self._items = {
            _USER: RateLimitItemPerMinute(calls_per_minute),
            _SERVICE: RateLimitItemPerMinute(service_calls),
        }
        self._by_callable = {
            name: RateLimitItemPerMinute(count) for name, count in by_callable.items()
        }

    async def takes(self, caller: Caller, name: str = "") -> bool:
        """
        Count one call, and tell whether it may be answered.

        Args:
            caller: who calls; one that may not call counts for none.
            name: the callable's; one that is refused for its own rate counts for the caller's.
        """
        kind = _SERVICE if caller.is_service else _USER
        if not await self._limiter.hit(self._items[kind], kind, caller.uid):
            return False
        own = self._by_callable.get(name)
        return own is None or await self._limiter.hit(own, name, kind, caller.uid)


class Counts(MemoryStorage):
    """
    The library's counts, swept once in a while.

    By itself it looks through the counts of all callers at every call, unless `timer` says that it
    is doing so already.
    """

    def __init__(self, clock: Clock) -> None:
        """Count from nothing."""
        super().__init__()
        self._clock = clock
        self._swept_s = clock.monotonic_s()
        self._sweeping: Any = None

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """See `MemoryStorage.incr`."""
        now_s = self._clock.monotonic_s()
        if now_s - self._swept_s >= SWEEP_INTERVAL_S:
            self._swept_s = now_s
            self.timer = None
        elif self.timer is None or self.timer.done():
            self._sweeping = self._sweeping or asyncio.get_running_loop().create_future()
            self.timer = self._sweeping
        return await super().incr(key, expiry, amount)
