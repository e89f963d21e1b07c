"""
How far SQL is behind: the age of the oldest event on the bus that nobody has applied.

The age counts from when the event came onto the bus.  What was committed before and reached the
bus late is not seen from here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from storemirror.clock import SECOND_US, Clock
from storemirror.errors import StoreMirrorError
from storemirror.gateway.deadline import within
from storemirror.telemetry import LogEvent

#: How long a figure is good for: a call that comes later has it asked anew.
REFRESH_AFTER_S: Final = 1.0
#: How long the bus may take.
ASK_TIMEOUT_S: Final = 0.5
#: A figure older than this is none.
STALE_AFTER_S: Final = 10.0

_log = structlog.get_logger(__name__)

#: Gives the age of the oldest event waiting or in a writer's hands, seconds; None when none is.
OldestAge = Callable[[], Awaitable[float | None]]


class LagWatch:
    """Tells up to which moment SQL shows everything that had reached the bus."""

    def __init__(self, oldest_age_s: OldestAge, clock: Clock) -> None:
        """Ask `oldest_age_s`, at most one call at a time; nothing is asked before `as_of_us`."""
        self._oldest_age_s = oldest_age_s
        self._clock = clock
        self._as_of_us: int | None = None
        #: When the bus was asked, for the figure that is known; and when at all.
        self._asked_s: float | None = None
        self._tried_s: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._has_failed = False

    async def as_of_us(self, *, waits: bool = True, max_lag_s: float | None = None) -> int | None:
        """
        Give the moment, microseconds since the Unix epoch, by this machine's clock.

        Args:
            waits: whether to wait for the bus, for `ASK_TIMEOUT_S` at most, where nothing is
                known that is young enough.
            max_lag_s: how far behind is too far, if anything is: a figure that says so only since
                it is old is not young enough.

        Returns:
            None: the bus does not say.
        """
        if self._is_due():
            self._tried_s = self._clock.monotonic_s()
            self._asking = asyncio.create_task(self._ask())
        # A figure that will do is served while a new one is on its way.
        if waits and self._asking is not None and not self._will_do(max_lag_s):
            await asyncio.wait({self._asking})
        return self._known_us()

    async def aclose(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    def _is_due(self) -> bool:
        """Tell whether to ask: a bus that fails is asked no more often than one that answers."""
        if self._asking is not None and not self._asking.done():
            return False
        now_s = self._clock.monotonic_s()
        return self._tried_s is None or now_s - self._tried_s >= REFRESH_AFTER_S

    def _known_us(self) -> int | None:
        """Give what was told last, if that is young enough."""
        if self._asked_s is None or self._clock.monotonic_s() - self._asked_s >= STALE_AFTER_S:
            return None
        return self._as_of_us

    def _will_do(self, max_lag_s: float | None) -> bool:
        known_us = self._known_us()
        if known_us is None or max_lag_s is None:
            return known_us is not None
        return self._clock.now_us() - known_us <= max_lag_s * SECOND_US

    async def _ask(self) -> None:
        begun_us, begun_s = self._clock.now_us(), self._clock.monotonic_s()
        try:
            oldest_s = await within(ASK_TIMEOUT_S, self._oldest_age_s)
        except (TimeoutError, OSError, StoreMirrorError) as exc:
            if not self._has_failed:
                _log.warning(LogEvent.LAG_UNKNOWN.value, error=str(exc) or "no answer in time")
            self._has_failed = True
            return
        self._has_failed = False
        self._asked_s = begun_s
        self._as_of_us = begun_us - round((oldest_s or 0.0) * SECOND_US)
