"""Tasks that are cancelled, and one that loses its cancellation."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.apply.retry import cancel


async def test_a_lost_cancellation_is_given_again() -> None:
    """Before Python 3.12 `wait_for` loses one now and then: a writer would never end."""
    lost_count = 0

    async def lose_the_first() -> None:
        nonlocal lost_count
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost_count += 1
                if lost_count > 1:
                    raise

    task = asyncio.create_task(lose_the_first())
    await asyncio.sleep(0)
    await cancel([task])
    assert task.cancelled()
    assert lost_count == 2


async def test_errors_of_what_is_cancelled_are_left_with_it() -> None:
    """The caller ends several for one reason, and tells that one."""

    async def fail() -> None:
        raise ValueError("of its own")

    failed = asyncio.create_task(fail())
    waiting = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    await cancel([failed, waiting])
    assert isinstance(failed.exception(), ValueError)
    assert waiting.cancelled()


@pytest.mark.parametrize("count", [0, 1])
async def test_none_or_one_that_has_ended_is_no_matter(count: int) -> None:
    """Ends meet: who cancels cannot know who has ended already."""
    ended = [asyncio.create_task(asyncio.sleep(0)) for _ in range(count)]
    await asyncio.gather(*ended)
    await cancel(ended)
    assert all(task.done() and not task.cancelled() for task in ended)
