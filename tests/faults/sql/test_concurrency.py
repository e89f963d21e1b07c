"""Several writers on the same rows at once: no deadlock, and the end is the newest version."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable

import pytest

from storemirror.errors import SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from tests.contract.sql.side_door import Installed, Server
from tests.faults.sql.workload import batches, history
from tests.support.reference import Reference


@contextlib.asynccontextmanager
async def writers(first: Installed, count: int) -> AsyncIterator[list[Installed]]:
    """Lend mirrors with connections each to the database of the first."""
    async with contextlib.AsyncExitStack() as until_end:
        yield [await until_end.enter_async_context(first.beside()) for _ in range(count)]


async def apply_all(writer: Installed, work: Iterable[list[RowEvent]]) -> int:
    """Apply batch after batch; an error, a deadlock's among them, ends the test."""
    count = 0
    for batch in work:
        count += len(await applied(writer, batch))
    return count


async def applied(writer: Installed, batch: list[RowEvent]) -> list[Outcome]:
    """Apply a batch; where lock hints are passed over, again and again as the writer does."""
    tries = 1 if writer.honours_locks else 50
    for _ in range(tries - 1):
        with contextlib.suppress(SqlUnavailable):
            return await writer.mirror.apply(batch)
    return await writer.mirror.apply(batch)


@pytest.mark.parametrize("max_size", [3, 150], ids=["small batches", "large batches"])
@pytest.mark.parametrize("writer_count", [2, 4])
async def test_writers_on_the_same_rows_end_exact(
    writer_count: int, max_size: int, server: Server
) -> None:
    """Each event goes to two of them, in different orders and different company."""
    randomness = random.Random(writer_count * max_size)
    first = await server.installed(load_model())
    change_count = 500 if max_size == 3 else 2_000
    events = history(first.model, change_count=change_count, seed=randomness.randrange(10**9))
    shares: list[list[RowEvent]] = [[] for _ in range(writer_count)]
    for event in events:
        for share in randomness.sample(shares, 2):
            share.append(event)
    for share in shares:
        randomness.shuffle(share)
    async with writers(first, writer_count) as made:
        counts = await asyncio.gather(
            *(
                apply_all(writer, list(batches(share, randomness, max_size=max_size)))
                for writer, share in zip(made, shares, strict=True)
            )
        )
    assert sum(counts) == 2 * change_count
    await assert_exact(first, events)


async def test_writers_of_one_procedure_each_end_exact(server: Server) -> None:
    """A call of one procedure locks by itself; it must fit the order of those that lock before."""
    randomness = random.Random(7)
    first = await server.installed(load_model())
    events = history(first.model, change_count=1_500, seed=8)
    kinds = sorted({(e.entity.name, e.change.is_deleted) for e in events})
    async with writers(first, 4) as made:
        work: list[list[list[RowEvent]]] = [[] for _ in made]
        for name, is_deleted in kinds:
            mine = [
                e for e in events if e.entity.name == name and e.change.is_deleted == is_deleted
            ]
            for share in work:
                randomness.shuffle(mine)
                share.extend(batches(list(mine), randomness, max_size=20))
        for share in work:
            randomness.shuffle(share)
        await asyncio.gather(*(apply_all(w, s) for w, s in zip(made, work, strict=True)))
    await assert_exact(first, events)


async def test_purges_and_recounts_beside_writers_lose_nothing(server: Server) -> None:
    """Both take rows away from, or read rows beside, those that are being written."""
    randomness = random.Random(11)
    first = await server.installed(load_model())
    events = history(first.model, change_count=1_500, seed=12)
    shares = [list(events), list(events)]
    for share in shares:
        randomness.shuffle(share)
    async with writers(first, 3) as made:
        tasks = [
            asyncio.create_task(apply_all(writer, list(batches(share, randomness, max_size=40))))
            for writer, share in zip(made, shares, strict=False)
        ]
        upkeep = made[2].mirror
        rounds = 0
        while not all(task.done() for task in tasks):
            await upkeep.recompute_rollups(first.model["DmMessage"])
            for entity in first.model:
                # Nothing is this old: what is tried is the way of the locks.
                await upkeep.purge(entity, older_than_s=600, max_count=100)
            rounds += 1
        await asyncio.gather(*tasks)
    assert rounds > 0
    await assert_exact(first, events)


async def assert_exact(first: Installed, events: list[RowEvent]) -> None:
    """Compare with the reference, for which the order of events does not matter."""
    reference = Reference(first.model)
    reference.apply(events)
    await first.assert_equal(reference)
    assert await first.mirror.rollup_differences(first.model["DmMessage"], limit=5) == []
