"""When a backfill may read on, by a clock and a bus that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, Rejection, TopicSpec
from storemirror.clock import SystemClock
from storemirror.errors import BusRefused
from storemirror.source.backfill_pace import STALLED_AFTER_S, DepthLimit, Unlimited, Waiting


class Scripted(SystemClock):
    """Time passes when somebody waits; at each wait the next step of a script is taken."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.step_s = 1.0
        self.steps: list[Callable[[], Awaitable[None]]] = []

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        self.now_s += self.step_s
        if self.steps:
            await self.steps.pop(0)()


class Full:
    """A bus with some messages, and a limit that looks at it."""

    def __init__(self) -> None:
        self.clock = Scripted()
        self.bus = MemoryBus(SystemClock())
        self.consumer = self.bus.consumer(SUBSCRIPTION_SQL_WRITER)
        self.waits: list[Waiting] = []
        self.stop = asyncio.Event()

    async def provisioned(self, count: int) -> None:
        await self.bus.admin().provision(TopicSpec())
        await self.publish(count)

    async def publish(self, count: int, prefix: str = "m") -> None:
        await self.bus.publisher().publish(
            [Message(message_id=f"{prefix}{n}", body=b"{}", content_type="") for n in range(count)]
        )

    async def complete(self, count: int = 1) -> None:
        await self.consumer.complete(await self.consumer.receive(count, max_wait_s=0.0))

    async def dead_letter(self) -> None:
        (delivery,) = await self.consumer.receive(1, max_wait_s=0.0)
        await self.consumer.dead_letter(
            [Rejection(delivery=delivery, reason="Bad", description="it is")]
        )

    async def end(self) -> None:
        self.stop.set()

    def limit(self, *, max_depth: int, page_size: int = 4) -> DepthLimit:
        return DepthLimit(
            self.bus.admin(),
            self.clock,
            subscription=SUBSCRIPTION_SQL_WRITER,
            page_size=page_size,
            max_depth=max_depth,
            on_wait=self.waits.append,
        )


@pytest.fixture
def full() -> Full:
    return Full()


async def test_pages_pass_while_there_is_room(full: Full) -> None:
    """Pages in hand count as if they were on the bus: four workers do not pass as one."""
    await full.provisioned(0)
    limit = full.limit(max_depth=10)
    full.clock.steps = [full.end]
    assert [await limit.enter([full.stop]) for _ in range(4)] == [True, True, True, False]
    assert [wait.depth for wait in full.waits] == [0]


async def test_a_page_that_left_makes_room_for_the_next(full: Full) -> None:
    """Its events are counted on the bus from then on."""
    await full.provisioned(0)
    limit = full.limit(max_depth=4)
    assert await limit.enter([full.stop])
    await full.publish(3)
    limit.leave()
    assert await limit.enter([full.stop])
    assert full.waits == []


async def test_a_page_larger_than_the_bound_passes_an_emptier_bus(full: Full) -> None:
    """A small bound slows it down, and does not end it."""
    await full.provisioned(1)
    assert await full.limit(max_depth=2, page_size=2_000).enter([full.stop])


async def test_it_waits_until_the_writer_has_taken_some(full: Full) -> None:
    """Each look that finds no room is told."""
    await full.provisioned(12)
    full.clock.steps = [full.complete, full.complete, full.complete]
    assert await full.limit(max_depth=10).enter([full.stop])
    assert [wait.depth for wait in full.waits] == [12, 11, 10]
    assert not any(wait.is_stalled for wait in full.waits)


async def test_a_bus_that_nobody_takes_from_is_noticed(full: Full) -> None:
    """A person may have forgotten the writer, and would wait for ever."""
    await full.provisioned(10)
    full.clock.step_s = STALLED_AFTER_S / 2

    async def nothing() -> None:
        """Nobody comes."""

    full.clock.steps = [nothing, nothing, nothing, full.complete, full.end]
    assert await full.limit(max_depth=10).enter([full.stop])
    assert [wait.is_stalled for wait in full.waits] == [False, False, True, True]


async def test_a_slow_writer_is_not_taken_for_none(full: Full) -> None:
    """What it sets aside counts too; and so does what comes in meanwhile, for nothing."""
    await full.provisioned(10)
    full.clock.step_s = STALLED_AFTER_S * 0.7

    async def publish_more() -> None:
        await full.publish(5, prefix=f"at {full.clock.now_s}: ")

    full.clock.steps = [full.complete, full.dead_letter, publish_more, publish_more]
    full.clock.steps += [full.complete, full.end]
    assert not await full.limit(max_depth=5).enter([full.stop])
    assert [wait.is_stalled for wait in full.waits] == [False] * 4 + [True, False]


async def test_a_stop_ends_the_wait(full: Full) -> None:
    """Any of them: that of the person, or that of a worker that failed."""
    await full.provisioned(10)
    full.clock.steps = [full.end]
    assert not await full.limit(max_depth=5).enter([asyncio.Event(), full.stop])


async def test_a_subscription_that_is_not_there_is_an_error(full: Full) -> None:
    """Depth 0 would mean that there is room."""
    with pytest.raises(BusRefused):
        await full.limit(max_depth=5).enter([full.stop])


async def test_without_a_bus_only_a_stop_holds_it_back(full: Full) -> None:
    """Straight into SQL there is no queue to fill."""
    assert await Unlimited().enter([full.stop])
    Unlimited().leave()
    full.stop.set()
    assert not await Unlimited().enter([full.stop])
