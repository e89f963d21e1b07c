"""The drainer's schedule, by a clock that the test holds."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.apply.drain import DrainStats
from storemirror.apply.schedule import drain_on_schedule
from storemirror.clock import SystemClock
from storemirror.errors import (
    BusRefused,
    BusUnavailable,
    ClockSkewed,
    DatabaseRefused,
    SchemaMismatch,
    SqlUnavailable,
)

DRAINED = DrainStats(
    received=1,
    applied=1,
    repaired=0,
    duplicate=0,
    stale=0,
    expired=0,
    abandoned=0,
    dead_lettered=0,
    resubmitted=0,
    verified=0,
    depth=0,
    oldest_age_s=None,
    duration_s=0.1,
)


class Timeline(SystemClock):
    """A clock that moves only when somebody waits or works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class Drainer:
    """Drains that take their time, fail, and end the schedule with the last one."""

    def __init__(self, clock: Timeline, *results: Exception | float) -> None:
        self._clock = clock
        self._results = list(results)
        self.stop = asyncio.Event()
        self.began_at_s: list[float] = []
        self.max_durations_s: list[float] = []
        self.drained: list[DrainStats] = []

    async def __call__(self, *, max_duration_s: float, stop: asyncio.Event) -> DrainStats:
        assert stop is self.stop
        self.began_at_s.append(self._clock.now_s)
        self.max_durations_s.append(max_duration_s)
        result = self._results.pop(0)
        if not self._results:
            self.stop.set()
        if isinstance(result, Exception):
            raise result
        self._clock.now_s += result
        return DRAINED

    async def run(self) -> None:
        await drain_on_schedule(
            self, self.stop, clock=self._clock, interval_s=60.0, on_drained=self.drained.append
        )


async def test_a_drain_begins_every_minute() -> None:
    """However long it took; one that took longer is followed at once."""
    drainer = Drainer(Timeline(), 1.0, 20.0, 70.0, 1.0)
    await drainer.run()
    assert drainer.began_at_s == [0.0, 60.0, 120.0, 190.0]
    assert drainer.max_durations_s == [50.0] * 4
    assert drainer.drained == [DRAINED] * 4


@pytest.mark.parametrize(
    "outage",
    [SqlUnavailable("gone"), BusUnavailable("gone"), DatabaseRefused("disk full")],
    ids=lambda error: type(error).__name__,
)
async def test_an_outage_is_waited_out(outage: Exception) -> None:
    """The process is there when the database comes back."""
    drainer = Drainer(Timeline(), outage, 1.0)
    await drainer.run()
    assert drainer.began_at_s == [0.0, 60.0]
    assert drainer.drained == [DRAINED]


@pytest.mark.parametrize(
    "error",
    [SchemaMismatch("other"), ClockSkewed("late"), BusRefused("no topic")],
    ids=lambda error: type(error).__name__,
)
async def test_what_no_waiting_can_help_ends_it(error: Exception) -> None:
    """A person is needed, and must hear of it."""
    drainer = Drainer(Timeline(), error, 1.0)
    with pytest.raises(type(error)):
        await drainer.run()
    assert drainer.began_at_s == [0.0]
