"""Several writers on the same rows at once: no deadlock, and the end is the newest version."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest

from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from tests.faults.sql.workload import batches, history
from tests.support.mirrors import MirrorUnderTest, assert_equal, installed_mirror
from tests.support.reference import Reference

pytestmark = pytest.mark.postgres


@contextlib.asynccontextmanager
async def writers(first: MirrorUnderTest, count: int) -> AsyncIterator[list[MirrorUnderTest]]:
    """Lend mirrors with a connection each to the database of the first."""
    made = [MirrorUnderTest(first.model, first.dsn) for _ in range(count)]
    for one in made:
        await one.database.open()
    try:
        yield made
    finally:
        for one in made:
            await one.database.aclose()


async def apply_all(writer: MirrorUnderTest, work: Iterable[list[RowEvent]]) -> int:
    """Apply batch after batch; an error, a deadlock's among them, ends the test."""
    count = 0
    for batch in work:
        count += len(await writer.mirror.apply(batch))
    return count


@pytest.mark.parametrize("max_size", [3, 150], ids=["small batches", "large batches"])
@pytest.mark.parametrize("writer_count", [2, 4])
async def test_writers_on_the_same_rows_end_exact(
    writer_count: int, max_size: int, new_database: Callable[[], Awaitable[str]]
) -> None:
    """Each event goes to two of them, in different orders and different company."""
    randomness = random.Random(writer_count * max_size)
    async with installed_mirror(load_model(), await new_database()) as first:
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


async def test_writers_of_one_procedure_each_end_exact(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """A call of one procedure locks by itself; it must fit the order of those that lock before."""
    randomness = random.Random(7)
    async with installed_mirror(load_model(), await new_database()) as first:
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


async def test_purges_and_recounts_beside_writers_lose_nothing(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Both take rows away from, or read rows beside, those that are being written."""
    randomness = random.Random(11)
    async with installed_mirror(load_model(), await new_database()) as first:
        events = history(first.model, change_count=1_500, seed=12)
        shares = [list(events), list(events)]
        for share in shares:
            randomness.shuffle(share)
        async with writers(first, 3) as made:
            tasks = [
                asyncio.create_task(
                    apply_all(writer, list(batches(share, randomness, max_size=40)))
                )
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


async def assert_exact(first: MirrorUnderTest, events: list[RowEvent]) -> None:
    """Compare with the reference, for which the order of events does not matter."""
    reference = Reference(first.model)
    reference.apply(events)
    await assert_equal(first, reference)
    assert await first.mirror.rollup_differences(first.model["DmMessage"], limit=5) == []
