"""Several writer processes on the same conversations, and several publishers before them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from storemirror.apply.decode import EventDecoder
from storemirror.clock import SystemClock
from tests.faults.processes.child import (
    Published,
    PublisherOrders,
    chat_message,
    run_publisher,
)
from tests.faults.processes.world import (
    LONG_LOCK_S,
    SETTINGS,
    World,
    assert_settlements_are_outcomes,
    ended,
    processes,
)
from tests.integration.apply.pipe import SOURCE, message_of
from tests.support.mirrors import assert_equal
from tests.support.reference import Reference
from tests.support.soak import Scale

PUBLISHERS = 3
UNHURRIED = replace(
    SETTINGS,
    batch_max_events=500,
    receive_max_count=1_000,
    lock_duration_s=LONG_LOCK_S,
    # A server that passes over lock hints lets writers meet, and one of them try again.
    retry_within_s=LONG_LOCK_S / 2,
)


@pytest.mark.parametrize("writer_count", [2, 4])
async def test_writers_on_the_same_conversations_agree(
    world: World, scale: Scale, writer_count: int
) -> None:
    """Their batches meet at the same rows, all the time."""
    clock = SystemClock()
    await world.provision(LONG_LOCK_S)
    for _ in range(writer_count):
        await world.has_started(world.start_writer(settings=UNHURRIED))
    ends_at_s = clock.monotonic_s() + scale.of(0, soaking=60)
    for _ in itertools.takewhile(
        lambda n: n < 20 or clock.monotonic_s() < ends_at_s, itertools.count()
    ):
        await world.write(20)
    await world.settled()
    counted = await world.stop_writers()
    assert len(counted) == writer_count
    assert_settlements_are_outcomes(counted)
    await world.account()


async def test_20_000_events_of_several_publishers_reach_several_writers(
    world: World, scale: Scale, tmp_path: Path
) -> None:
    """Publishers overlap, so that the bus recognises what another one has sent."""
    count = scale.of(20_000, soaking=200_000)
    share = count // PUBLISHERS + 1
    orders = [
        PublisherOrders(
            bus=world.bus_dsn,
            numbers=range(max(0, n * share - 200), min(count, (n + 1) * share)),
            report=tmp_path / f"published-{n}",
        )
        for n in range(PUBLISHERS)
    ]
    await world.provision(LONG_LOCK_S)
    for _ in range(3):
        world.start_writer(settings=UNHURRIED)
    running = [processes.Process(target=run_publisher, args=(told,)) for told in orders]
    for process in running:
        process.start()
    assert await asyncio.gather(*map(ended, running)) == [0] * PUBLISHERS
    await world.settled()
    counted = await world.stop_writers()
    assert_settlements_are_outcomes(counted)

    said = [msgspec.json.decode(told.report.read_bytes(), type=Published) for told in orders]
    assert sum(p.accepted for p in said) == count
    assert sum(p.accepted + p.duplicates for p in said) == sum(len(o.numbers) for o in orders)
    assert sum(counters["settled"] for counters in counted) == count
    assert (await world.stats()).completed_count == count

    messages = [message_of(chat_message(number)) for number in range(count)]
    assert await world.settled_ids() == Counter(m.message_id for m in messages)
    decoder = EventDecoder(model=world.model, limits=world.mirrored.mirror.limits, source=SOURCE)
    reference = Reference(world.model)
    reference.apply([decoder.decode(message) for message in messages])
    await assert_equal(world.mirrored, reference)
