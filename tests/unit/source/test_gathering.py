"""Many callers, one publish: each is told what became of its own message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import pytest

from storemirror.bus.memory import MemoryBus, MemoryPublisher
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, PublishResult, TopicSpec
from storemirror.clock import SystemClock
from storemirror.errors import BusRefused, BusUnavailable, MessageRefused, StoreMirrorError
from storemirror.source.gathering import BATCH_MAX_COUNT, GatheringPublisher


def a_message(message_id: str, size_bytes: int = 1) -> Message:
    return Message(message_id=message_id, body=b"x" * size_bytes, content_type="text/plain")


class GatedPublisher:
    """The publisher of a bus in memory, which fails when told to, and waits at a gate."""

    def __init__(self, inner: MemoryPublisher) -> None:
        self._inner = inner
        self.gate = asyncio.Event()
        self.sizes: list[int] = []
        self.faults: deque[Exception] = deque()

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        self.sizes.append(len(messages))
        await self.gate.wait()
        if self.faults:
            raise self.faults.popleft()
        return await self._inner.publish(messages)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture
def bus() -> MemoryBus:
    made = MemoryBus(SystemClock())
    made.provision(TopicSpec())
    return made


@pytest.fixture
def publisher(bus: MemoryBus) -> GatedPublisher:
    return GatedPublisher(bus.publisher())


async def published(
    gathering: GatheringPublisher, publisher: GatedPublisher, messages: Sequence[Message]
) -> list[BaseException | None]:
    """Publish all at once, with the gate closed until everybody waits."""
    tasks = [asyncio.create_task(gathering.publish(message)) for message in messages]
    for _ in range(3):
        await asyncio.sleep(0)
    publisher.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def depth(bus: MemoryBus) -> int:
    return (await bus.admin().stats(SUBSCRIPTION_SQL_WRITER)).depth


async def test_what_arrives_together_goes_together(
    bus: MemoryBus, publisher: GatedPublisher
) -> None:
    """One commit for all of them."""
    gathering = GatheringPublisher(publisher)
    messages = [a_message(str(n)) for n in range(100)]
    assert await published(gathering, publisher, messages) == [None] * 100
    assert publisher.sizes == [100]
    assert await depth(bus) == 100


async def test_a_batch_is_bounded(bus: MemoryBus, publisher: GatedPublisher) -> None:
    """By count, and by bytes: a bus takes no message without end."""
    gathering = GatheringPublisher(publisher)
    many = [a_message(str(n)) for n in range(BATCH_MAX_COUNT + 1)]
    large = [a_message(f"large{n}", 3_000_000) for n in range(3)]
    assert await published(gathering, publisher, [*many, *large]) == [None] * len([*many, *large])
    assert publisher.sizes == [BATCH_MAX_COUNT, 3, 1]
    assert await depth(bus) == len([*many, *large])


async def test_a_refused_message_does_not_harm_its_neighbours(
    bus: MemoryBus, publisher: GatedPublisher
) -> None:
    """Else one bad document would hold up every other."""
    gathering = GatheringPublisher(publisher)
    messages = [a_message("a"), a_message("b" * 129), a_message("c")]
    results = await published(gathering, publisher, messages)
    assert [type(result) for result in results] == [type(None), MessageRefused, type(None)]
    assert await depth(bus) == 2


@pytest.mark.parametrize("fault", [BusUnavailable("gone"), BusRefused("no right to send")])
async def test_an_outage_is_told_to_everyone_in_the_batch(
    bus: MemoryBus, publisher: GatedPublisher, fault: StoreMirrorError
) -> None:
    """Each of them must be delivered again, and is not tried by itself; the next one goes through.

    Refs #4.
    """
    gathering = GatheringPublisher(publisher)
    publisher.faults.append(fault)
    results = await published(gathering, publisher, [a_message("a"), a_message("b")])
    assert results == [fault, fault]
    assert publisher.sizes == [2]
    await gathering.publish(a_message("a"))
    assert await depth(bus) == 1


async def test_duplicates_are_counted(bus: MemoryBus, publisher: GatedPublisher) -> None:
    """An operator sees how often deliveries are repeated."""
    gathering = GatheringPublisher(publisher)
    await published(gathering, publisher, [a_message("a"), a_message("a")])
    assert (gathering.duplicate_count, await depth(bus)) == (1, 1)


async def test_a_caller_that_leaves_does_not_stop_the_others(
    bus: MemoryBus, publisher: GatedPublisher
) -> None:
    """Its own message is published all the same: it was in the batch."""
    gathering = GatheringPublisher(publisher)
    first, second = (asyncio.create_task(gathering.publish(a_message(i))) for i in "ab")
    await asyncio.sleep(0)
    first.cancel()
    publisher.gate.set()
    await second
    assert await depth(bus) == 2
    assert first.cancelled()
