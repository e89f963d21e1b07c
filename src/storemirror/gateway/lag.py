"""How far SQL is behind: the age of the oldest event on the bus that nobody has applied."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from storemirror.clock import SECOND_US, Clock
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import LogEvent

#: How long a figure is good for: a call that comes later has it asked anew.
REFRESH_AFTER_S: Final = 1.0
#: A figure older than this is none.
STALE_AFTER_S: Final = 10.0

_log = structlog.get_logger(__name__)

#: Gives the age of the oldest event waiting or in a writer's hands, seconds; None when none is.
OldestAge = Callable[[], Awaitable[float | None]]


class LagWatch:
    """
    Tells up to which moment SQL shows every commit that reached the bus.

    What Firestore has not told the bus yet is not seen from here.
    """

    def __init__(self, oldest_age_s: OldestAge, clock: Clock) -> None:
        """Ask `oldest_age_s`, at most one call at a time; nothing is asked before `as_of_us`."""
        self._oldest_age_s = oldest_age_s
        self._clock = clock
        self._as_of_us: int | None = None
        self._asked_s: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._has_failed = False

    async def as_of_us(self) -> int | None:
        """
        Give the moment, microseconds since the Unix epoch, by this machine's clock.

        Returns:
            None: the bus does not say.
        """
        age_s = self._age_s()
        if age_s is None or age_s >= REFRESH_AFTER_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            # A figure that is not too old is served while a new one is on its way.
            if age_s is None or age_s >= STALE_AFTER_S:
                await asyncio.shield(self._asking)
        age_s = self._age_s()
        return None if age_s is None or age_s >= STALE_AFTER_S else self._as_of_us

    async def aclose(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    def _age_s(self) -> float | None:
        return None if self._asked_s is None else self._clock.monotonic_s() - self._asked_s

    async def _ask(self) -> None:
        begun_us, begun_s = self._clock.now_us(), self._clock.monotonic_s()
        try:
            oldest_s = await self._oldest_age_s()
        except StoreMirrorError as exc:
            if not self._has_failed:
                _log.warning(LogEvent.LAG_UNKNOWN.value, error=str(exc))
            self._has_failed = True
            return
        self._has_failed = False
        self._asked_s = begun_s
        self._as_of_us = begun_us - round((oldest_s or 0.0) * SECOND_US)
