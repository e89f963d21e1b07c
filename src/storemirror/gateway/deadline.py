"""
A deadline that holds whatever the called one does with being called off.

A database driver that is called off tells the server so, and waits for its word: on a line that
says nothing that takes seconds, which a caller has not got.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")


class DeadlinePassed(TimeoutError):
    """What was called did not end in time; what it did is unknown."""


#: Calls that are called off, and have not ended yet.
_ending: set[asyncio.Future[object]] = set()


class Deadline:
    """
    When a call gives up, unless it has met it by then.

    A write meets it once Firestore's commit is known: from there on the answer is a success, and
    what is left to do sees to it by itself that it is short.
    """

    def __init__(self, timeout_s: float) -> None:
        """Begin to count."""
        self._loop = asyncio.get_running_loop()
        self._end_s = self._loop.time() + timeout_s
        self._is_met = False

    @property
    def left_s(self) -> float:
        """Give how much time is left; 0 at least."""
        return max(0.0, self._end_s - self._loop.time())

    def meet(self) -> None:
        """Let the call go on to its end, which is near."""
        self._is_met = True

    async def hold(self, call: Callable[[], Awaitable[T]]) -> T:
        """
        Call, and give up when the time is over; what then still runs is called off.

        Args:
            call: finds this deadline by `current`; must be safe to be called off at any moment.

        Raises:
            DeadlinePassed: it took longer, and had not met the deadline.
        """
        outer = _current.set(self)
        try:
            task: asyncio.Future[T] = asyncio.ensure_future(call())
        finally:
            _current.reset(outer)
        return await _ended(task, self.left_s, lambda: self._is_met)


_current: Final = contextvars.ContextVar[Deadline | None]("storemirror_deadline", default=None)


def current() -> Deadline | None:
    """Give the deadline of the call that is being answered; None: there is none."""
    return _current.get()


async def within_promptly(timeout_s: float, call: Callable[[], Awaitable[T]]) -> T:
    """
    Do as `within`, for what ends at once when it is called off: that needs no task of its own.

    Raises:
        DeadlinePassed: it takes longer.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await call()
    except TimeoutError:
        if limit.expired():
            raise DeadlinePassed from None
        raise


async def within(timeout_s: float, call: Callable[[], Awaitable[T]]) -> T:
    """
    Call, and give up after a while; what then still runs is called off, and not waited for.

    Args:
        timeout_s: how long to wait.
        call: must be safe to be called off at any moment.

    Raises:
        DeadlinePassed: it takes longer.
    """
    return await _ended(asyncio.ensure_future(call()), timeout_s, lambda: False)


async def _ended(task: asyncio.Future[T], timeout_s: float, goes_on: Callable[[], bool]) -> T:
    """Wait for a task, and for longer where it `goes_on` after a while; else call it off."""
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done and goes_on():
            done, _ = await asyncio.wait({task})
        if done:
            return task.result()
    finally:
        if not task.done():
            _call_off(task)
    raise DeadlinePassed


def _call_off(task: asyncio.Future[T]) -> None:
    task.cancel()
    _ending.add(task)  # type: ignore[arg-type]
    task.add_done_callback(_forget)


def _forget(task: asyncio.Future[T]) -> None:
    """Let go of a call that has ended; what it ended with is nobody's any more."""
    _ending.discard(task)
    if not task.cancelled():
        task.exception()
