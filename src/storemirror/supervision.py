"""
Several parts in one process: they run together and end together, the first before the others.

The order is the events' way: what takes them in ends first, so that what was taken in is still
carried on.  The others end at the same time: one after the other, each with a time-out of its own,
they would need more time than a platform leaves between its signal and its kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from storemirror.apply.retry import cancel
from storemirror.clock import Clock
from storemirror.telemetry import LogEvent

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a process."""

    #: As logs and errors call it.
    name: str
    #: Runs until the event it is handed is set, and then ends in a time of its own.
    run: Callable[[asyncio.Event], Awaitable[Any]]


async def run_together(
    parts: Sequence[Part], stop: asyncio.Event, *, clock: Clock, timeout_s: float
) -> None:
    """
    Run parts until `stop` is set or one of them fails; then end them, the first before the others.

    Args:
        parts: when the first has ended, all others are asked to.
        stop: ends all.
        clock: for the deadline.
        timeout_s: seconds in which all must have ended; a part that has not is cut short.

    Raises:
        Exception: the error of the first part that failed; the others were ended.
        RuntimeError: a part ended, or was cancelled, although nobody had asked it to: a mistake of
            ours.
    """
    running = [_Running(part) for part in parts]
    asked = asyncio.create_task(stop.wait())
    try:
        tasks = {asked, *(one.task for one in running)}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        failure = next((one.failure for one in running if one.failure), None)
        _log.info(LogEvent.PARTS_ENDING.value, cause=_cause_of(running))
        deadline_s = clock.monotonic_s() + timeout_s
        first, *others = running
        await first.end(clock, deadline_s)
        await asyncio.gather(*(one.end(clock, deadline_s) for one in others))
    finally:
        await cancel([asked, *(one.task for one in running)])
    failure = failure or next((one.failure for one in running if one.failure), None)
    if failure is not None:
        raise failure


class _Running:
    """A part that was started."""

    def __init__(self, part: Part) -> None:
        self.name = part.name
        self._stop = asyncio.Event()
        self.task: asyncio.Task[Any] = asyncio.ensure_future(self._run(part))

    @property
    def failure(self) -> BaseException | None:
        """Give the error that the part ended with."""
        if not self.task.done():
            return None
        if self.task.cancelled():
            return None if self._stop.is_set() else RuntimeError(f"{self.name} was cancelled")
        return self.task.exception()

    async def end(self, clock: Clock, deadline_s: float) -> None:
        """Ask the part to end, and wait until it has, at the latest at the deadline."""
        self._stop.set()
        deadline = asyncio.ensure_future(clock.sleep(max(0.0, deadline_s - clock.monotonic_s())))
        await asyncio.wait({self.task, deadline}, return_when=asyncio.FIRST_COMPLETED)
        deadline.cancel()
        if not self.task.done():
            _log.error(LogEvent.PART_CUT_SHORT.value, part=self.name)
            await cancel([self.task])

    async def _run(self, part: Part) -> None:
        await part.run(self._stop)
        if not self._stop.is_set():
            raise RuntimeError(f"{part.name} ended although nobody had asked it to")


def _cause_of(running: Sequence[_Running]) -> str:
    return next((one.name for one in running if one.failure), "asked")
