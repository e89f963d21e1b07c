"""Clocks that a test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from storemirror.clock import SECOND_US, SystemClock


class ManualClock:
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        """Start at some moment in 2026."""
        self._now_us = 1_790_000_000 * SECOND_US
        self._sleepers: list[tuple[int, asyncio.Event]] = []

    def now_us(self) -> int:
        """See `Clock.now_us`."""
        return self._now_us

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._now_us / SECOND_US

    async def sleep(self, duration_s: float) -> None:
        """See `Clock.sleep`."""
        awake = asyncio.Event()
        self._sleepers.append((self._now_us + round(duration_s * SECOND_US), awake))
        await awake.wait()

    def advance(self, duration_s: float) -> None:
        """Let time pass, and wake who slept for it."""
        self._now_us += round(duration_s * SECOND_US)
        for wake_at_us, awake in self._sleepers:
            if wake_at_us <= self._now_us:
                awake.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]


class ShiftedClock(SystemClock):
    """The machine's clock, but durations can be made to have passed."""

    def __init__(self) -> None:
        """Start unshifted."""
        self._shift_s = 0.0

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return super().monotonic_s() + self._shift_s

    def advance(self, duration_s: float) -> None:
        """Let `duration_s` have passed."""
        self._shift_s += duration_s


class ClockOf(SystemClock):
    """The machine's clock, but the time of day is somebody else's."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Say who tells the time, in seconds since the Unix epoch."""
        self._now_s = now_s

    def now_us(self) -> int:
        """See `Clock.now_us`."""
        return round(self._now_s() * SECOND_US)


class ClockThatNeverPolls(SystemClock):
    """The machine's clock, on which no sleep ends: only news wakes who waits."""

    async def sleep(self, duration_s: float) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()
