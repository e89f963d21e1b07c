"""
The writer dies at each named step; another one finishes, and both sides are equal.

Over each bus, into the mirror of each dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from storemirror.apply.port import Step
from storemirror.bus.port import Delivery
from tests.contract.sql.side_door import Installed
from tests.integration.apply.pipe import Pipe, a_change, a_chat_message, a_follow, open_pipe
from tests.support.databases import Databases
from tests.support.mirrors import MirrorUnderTest

BUSES = ("memory", "postgres", "servicebus")

CHANGES = [
    *(a_chat_message(number, conversation=f"c{number % 3}") for number in range(30)),
    *(a_chat_message(n, conversation=f"c{n % 3}", at_us=10**15 + n, body="!") for n in range(9)),
    *(a_follow(number) for number in range(10)),
    a_change("users/u1/following/v", None, 10**15),
]


@pytest.fixture
async def pipe(
    request: pytest.FixtureRequest, sql: Installed, new_database: Databases
) -> AsyncIterator[Pipe]:
    """A pipe into the mirror of each dialect."""
    # What these tests ask of it every dialect's has.
    mirrored = cast("MirrorUnderTest", sql)
    async with open_pipe(new_database, bus=request.param, mirrored=mirrored) as opened:
        yield opened


class Struck(Exception):
    """Stands for a defect that nobody foresaw."""


@pytest.mark.parametrize("step", Step)
async def test_a_defect_at_any_step_loses_nothing(pipe: Pipe, step: Step) -> None:
    """The writer ends with the error; what it held is there for the next one at once."""

    async def strike(at: Step, deliveries: Sequence[Delivery]) -> None:
        if at is step:
            raise Struck(step.value)

    await pipe.publish(CHANGES)
    with pytest.raises(Struck):
        await pipe.processor(hooks=strike, batch_max_events=10).run(asyncio.Event())
    assert await pipe.locked_count() == 0
    await pipe.run_until_empty(pipe.processor())
    await pipe.assert_mirrors(CHANGES)
    assert await pipe.dead_letters() == []


@pytest.mark.parametrize("step", Step)
async def test_a_writer_cut_off_at_any_step_loses_nothing(step: Step, pipe: Pipe) -> None:
    """As by SIGKILL: nothing is given back, the locks run out, the next one finishes."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(at: Step, deliveries: Sequence[Delivery]) -> None:
        if at is step:
            reached.set()
            await never.wait()

    await pipe.publish(CHANGES)
    consumer = pipe.new_consumer()
    first = asyncio.create_task(pipe.processor(consumer=consumer, hooks=hang).run(asyncio.Event()))
    await reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await consumer.aclose()  # as its connections would be
    await pipe.expire_locks()
    second = pipe.processor()
    await pipe.run_until_empty(second)
    await pipe.assert_mirrors(CHANGES)
    assert await pipe.dead_letters() == []


async def test_rows_that_were_committed_but_not_settled_come_again_as_duplicates(
    pipe: Pipe,
) -> None:
    """At least once on the bus, exactly once in the tables."""

    async def strike(at: Step, deliveries: Sequence[Delivery]) -> None:
        if at is Step.AFTER_APPLY_BEFORE_COMPLETE:
            raise Struck

    changes = CHANGES[:20]
    await pipe.publish(changes)
    with pytest.raises(Struck):
        await pipe.processor(hooks=strike, lane_count=1).run(asyncio.Event())
    second = pipe.processor()
    await pipe.run_until_empty(second)
    assert second.stats.duplicate == len(changes)
    assert second.stats.applied == 0


async def test_stopped_in_the_middle_it_finishes_what_is_begun(pipe: Pipe) -> None:
    """A deployment ends in seconds, and leaves nothing locked behind."""
    stop = asyncio.Event()

    async def interrupt(at: Step, deliveries: Sequence[Delivery]) -> None:
        if at is Step.BEFORE_APPLY:
            stop.set()

    await pipe.publish(CHANGES)
    first = pipe.processor(hooks=interrupt, lane_count=1, batch_max_events=10)
    await first.run(stop)
    stats = await pipe.stats()
    assert first.stats.settled == 10, "the batch in hand"
    assert first.stats.abandoned == len(CHANGES) - 10, "what no lane had begun"
    assert (stats.depth, await pipe.locked_count()) == (len(CHANGES) - 10, 0)
    await pipe.run_until_empty(pipe.processor())
    await pipe.assert_mirrors(CHANGES)


async def test_a_batch_that_does_not_end_is_given_back(pipe: Pipe) -> None:
    """A hanging database must not hold up a shutdown."""
    stop, never = asyncio.Event(), asyncio.Event()

    async def hang(at: Step, deliveries: Sequence[Delivery]) -> None:
        if at is Step.BEFORE_APPLY:
            stop.set()
            await never.wait()

    await pipe.publish(CHANGES)
    first = pipe.processor(hooks=hang, shutdown_timeout_s=0.05)
    await first.run(stop)
    stats = await pipe.stats()
    assert first.stats.abandoned == len(CHANGES)
    assert (stats.depth, await pipe.locked_count()) == (len(CHANGES), 0)


async def test_a_lock_lost_before_settlement_is_a_duplicate_later(pipe: Pipe) -> None:
    """A worker that was paused for longer than its locks has done no harm."""

    async def lose(at: Step, deliveries: Sequence[Delivery]) -> None:
        if at is Step.AFTER_APPLY_BEFORE_COMPLETE and first.stats.lost_locks == 0:
            await pipe.expire_locks()

    changes = CHANGES[:20]
    await pipe.publish(changes)
    first = pipe.processor(hooks=lose, lane_count=1)
    await pipe.run_until_empty(first)
    counters = first.stats.counters()
    assert counters["lost_locks"] == len(changes)
    assert counters["applied"] == counters["duplicate"] == len(changes)
    assert counters["settled"] == len(changes)
    await pipe.assert_mirrors(changes)
