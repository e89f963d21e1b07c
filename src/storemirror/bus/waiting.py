"""Waiting for news, but not for ever, by a clock that a test may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from storemirror.clock import Clock

_CANCEL_INTERVAL_S: Final = 0.5


class News:
    """Tells everyone who waits that something has happened.

    Take `next` first, then look, then wait for what was taken: news in between is not missed.
    """

    def __init__(self) -> None:
        """Start with nothing told."""
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Give the event that the next `tell` sets."""
        return self._next

    def tell(self) -> None:
        """Wake everyone who waits."""
        told, self._next = self._next, asyncio.Event()
        told.set()


async def wait_for(news: asyncio.Event, clock: Clock, timeout_s: float) -> None:
    """Wait until `news` is set, or `timeout_s` seconds by `clock` have passed."""
    await wait_for_any((news,), clock, timeout_s)


async def wait_for_any(events: Sequence[asyncio.Event], clock: Clock, timeout_s: float) -> None:
    """Wait until one of `events` is set, or `timeout_s` seconds by `clock` have passed."""
    if any(event.is_set() for event in events):
        return
    waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(event.wait()) for event in events}
    waits.add(asyncio.ensure_future(clock.sleep(timeout_s)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def ended(task: asyncio.Task[None]) -> None:
    """
    Cancel a task until it has ended.

    Once is not always enough: before Python 3.12 `asyncio.wait_for`, which psycopg and its pool
    wait by, swallows a cancellation that comes together with what it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_INTERVAL_S)
    if not task.cancelled():
        task.result()
