"""Waiting for news."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.bus.waiting import News, ended, wait_for
from storemirror.clock import SystemClock


async def test_news_between_looking_and_waiting_is_not_missed() -> None:
    """Else a consumer that just looked would wait a whole poll for a message that is there."""
    news = News()
    next_news = news.next()
    news.tell()
    await wait_for(next_news, SystemClock(), 3_600.0)
    assert not news.next().is_set()


async def test_without_news_the_wait_ends_by_the_clock() -> None:
    """Lost wake-ups must cost time only."""
    await wait_for(News().next(), SystemClock(), 0.001)


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    """asyncio.wait_for did so before Python 3.12; closing a consumer then never returned."""
    swallowed = asyncio.Event()
    started = asyncio.Event()

    async def stubborn() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await started.wait()
    await ended(task)
    assert swallowed.is_set()
    assert task.cancelled()


async def test_the_error_of_an_ended_task_is_not_hidden() -> None:
    """A listener that died of a bug must not do so in silence."""

    async def broken() -> None:
        raise RuntimeError("bug")

    task = asyncio.create_task(broken())
    await asyncio.wait({task})
    with pytest.raises(RuntimeError, match="bug"):
        await ended(task)
