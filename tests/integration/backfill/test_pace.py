"""A backfill through a real bus that is full: it waits, it can be stopped, and it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.source.backfill_pace import DepthLimit, Waiting
from tests.integration.backfill.world import BackfillWorld

pytestmark = pytest.mark.postgres

PAGE_SIZE = 10
MAX_DEPTH = 40


def limit_of(filled: BackfillWorld, on_wait: Callable[[Waiting], None]) -> DepthLimit:
    return DepthLimit(
        filled.world.admin,
        filled.world.clock,
        subscription=SUBSCRIPTION_SQL_WRITER,
        page_size=PAGE_SIZE,
        max_depth=MAX_DEPTH,
        on_wait=on_wait,
    )


async def depth_of(filled: BackfillWorld) -> int:
    return (await filled.world.admin.stats(SUBSCRIPTION_SQL_WRITER)).depth


async def test_a_full_bus_holds_it_back_until_the_writer_has_taken_some(
    filled: BackfillWorld,
) -> None:
    """Else the next message that somebody sends would be applied after ten million others."""
    await filled.crowd(400)
    waits: list[Waiting] = []
    is_waiting = asyncio.Event()

    def note(waiting: Waiting) -> None:
        waits.append(waiting)
        if pace._in_hand_count == 0:  # else a page was read, and is not on the bus yet
            is_waiting.set()

    pace = limit_of(filled, note)
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        work = tasks.create_task(filled.backfill(page_size=PAGE_SIZE, pace=pace))
        await is_waiting.wait()
        assert filled.store.read_counts.total() == await depth_of(filled) < MAX_DEPTH + PAGE_SIZE
        async with filled.writing():
            assert await work
    assert max(waiting.depth for waiting in waits) < MAX_DEPTH + PAGE_SIZE
    assert set(filled.store.read_counts.values()) == {1}
    found = await filled.world.check()
    assert found.is_clean, found.mismatches
    assert sum(c.document_count for c in found.counts.values()) == 400


async def test_a_stop_while_it_waits_costs_no_read(filled: BackfillWorld) -> None:
    """What was read is on the bus, and what is not is read when it goes on."""
    await filled.crowd(200)
    stop = asyncio.Event()
    pace = limit_of(filled, lambda _: stop.set())
    async with asyncio.timeout(120):
        assert not await filled.backfill(page_size=PAGE_SIZE, pace=pace, stop=stop)
    assert filled.file.path.exists()
    assert filled.store.read_counts.total() == await depth_of(filled) > 0
    assert await filled.backfill(page_size=PAGE_SIZE)
    assert set(filled.store.read_counts.values()) == {1}
    await filled.world.settle()
    assert (await filled.world.check()).is_clean
