"""Several calls at a time, of which none outlives the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def together(
    call: Callable[[T], Awaitable[U]], items: Iterable[T], *, most: int | None = None
) -> list[U]:
    """
    Call for each item at the same time, and give the results in the items' order.

    The first error comes out as it is, once the other calls are called off and have ended.

    Args:
        call: must be safe to be called off at any moment.
        items: one call each.
        most: so many calls at a time; None: all.
    """
    turns = None if most is None else asyncio.Semaphore(most)

    async def in_turn(item: T) -> U:
        if turns is None:
            return await call(item)
        async with turns:
            return await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(item)) for item in items]
    except ExceptionGroup as failed:
        # Callers tell errors by their class.
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
