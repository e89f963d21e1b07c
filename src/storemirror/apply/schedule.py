"""The drainer on a schedule, for a process that lives: `storemirror up`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from storemirror.apply.drain import DrainStats
from storemirror.apply.retry import first_of
from storemirror.apply.settle import is_worth_waiting_for
from storemirror.clock import Clock
from storemirror.errors import DatabaseRefused, TransientError
from storemirror.telemetry import LogEvent

#: Share of the interval in which a drain receives; the rest is for what it has in hand.
_RECEIVING_SHARE: Final = 5 / 6

_log = structlog.get_logger(__name__)


class Drain(Protocol):
    """One drain; see `storemirror.apply.drain.drainRealtimeMirrorQueue`."""

    async def __call__(self, *, max_duration_s: float, stop: asyncio.Event) -> DrainStats:
        """Apply what waits, and end."""
        ...


async def drain_on_schedule(
    drain: Drain,
    stop: asyncio.Event,
    *,
    clock: Clock,
    interval_s: float,
    on_drained: Callable[[DrainStats], None],
) -> None:
    """
    Drain at once and then every `interval_s` seconds, until `stop` is set.

    An outage is logged, and the next drain comes at its time.

    Args:
        drain: ends when nothing waits, its time is used up, or `stop` is set.
        stop: ends the drain under way too.
        clock: waits.
        interval_s: seconds from the beginning of one drain to that of the next.
        on_drained: told of each drain.

    Raises:
        SchemaMismatch, ClockSkewed, BusRefused: no waiting can help.
    """
    while not stop.is_set():
        next_at_s = clock.monotonic_s() + interval_s
        try:
            drained = await drain(max_duration_s=interval_s * _RECEIVING_SHARE, stop=stop)
        except (TransientError, DatabaseRefused) as exc:
            if not is_worth_waiting_for(exc):
                raise
            _log.warning(LogEvent.DRAIN_FAILED.value, error=str(exc), hint=exc.hint)
        else:
            on_drained(drained)
        rest_s = max(0.0, next_at_s - clock.monotonic_s())
        await first_of(stop.wait(), clock.sleep(rest_s))
