"""
A deadline that holds whatever the called one does with being called off.

A database driver that is called off tells the server so, and waits for its word: on a line that
says nothing that takes seconds, which a caller has not got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class DeadlinePassed(TimeoutError):
    """What was called did not end in time; what it did is unknown."""


#: Calls that are called off, and have not ended yet.
_ending: set[asyncio.Future[object]] = set()


async def within(timeout_s: float, call: Callable[[], Awaitable[T]]) -> T:
    """
    Call, and give up after a while; what then still runs is called off, and not waited for.

    Args:
        timeout_s: how long to wait.
        call: must be safe to be called off at any moment.

    Raises:
        DeadlinePassed: it takes longer.
    """
    task: asyncio.Future[T] = asyncio.ensure_future(call())
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
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
