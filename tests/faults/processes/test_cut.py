"""Connections of writer processes are cut, delayed and silenced by a proxy."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storemirror.clock import SystemClock
from tests.faults.processes.world import LONG_LOCK_S, SETTINGS, World, a_message
from tests.support.mirrors import MirrorUnderTest
from tests.support.proxy import Proxy, proxy_to
from tests.support.soak import Scale

_NUMBERS = itertools.count()
#: Fewer bytes than a batch of messages has, and more than anything else that a writer asks.
BATCH_BYTES = 6_000
#: Words that go to the mirror, and so are seen only where its driver does not encrypt them.
MIRROR_WORDS = (b"COMMIT", b"upsert_dm_message")


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[Proxy]:
    """One proxy for the bus, the mirror and the documents of writers."""
    async with proxy_to(*world.addresses) as opened:
        yield opened


@pytest.mark.parametrize("said", [*MIRROR_WORDS, b"bus.complete", b"bus.receive"], ids=str)
async def test_a_call_whose_answer_is_lost_is_made_again(
    world: World, proxy: Proxy, said: bytes, dialect: str
) -> None:
    """Done or not is unknown to the writer; doing it again does no harm."""
    if said in MIRROR_WORDS and dialect != "postgres":
        pytest.skip("needs SQL Server to be spoken to in the clear, and its driver encrypts")
    await world.write(60)
    proxy.cut_after = said
    world.start_writer(through=proxy)
    await world.settled()
    assert proxy.cut_count == 1
    (counters,) = await world.stop_writers()
    assert counters["settled"] >= len(world.publisher.sent) - counters["lost_locks"]
    await world.account()


async def test_a_batch_whose_answer_is_lost_is_applied_again(world: World, proxy: Proxy) -> None:
    """On SQL Server it is committed by then: a transaction is one batch, its commit included."""
    # A lock that ran out under load would make duplicates of its own.
    await world.provision(LONG_LOCK_S)
    unhurried = replace(
        SETTINGS, lane_count=1, lock_duration_s=LONG_LOCK_S, retry_within_s=LONG_LOCK_S / 2
    )
    writer = world.start_writer(through=proxy, settings=unhurried)
    await world.has_started(writer)
    # With its conversation's row there, a batch of messages is one call, and goes through.
    await world.commit(a_message("c", "m"))
    await world.settled()
    proxy.cut_answer_to = BATCH_BYTES
    while proxy.cut_count == 0:
        numbers = itertools.islice(_NUMBERS, SETTINGS.batch_max_events)
        await world.commit(*(a_message("c", f"m{number}") for number in numbers))
        await world.settled()
    assert len(await world.stop_writers()) == 1, "it has not ended of it"
    await world.account()
    _, outcomes = world.reported()
    # PostgreSQL's may be asked to commit in a message of its own, which was not sent yet.
    may_be_undone = isinstance(world.mirrored, MirrorUnderTest)
    assert outcomes["duplicate"] > 0 or may_be_undone, "committed before, and not heard of"


async def test_a_network_that_falls_silent_is_waited_out(world: World, proxy: Proxy) -> None:
    """No connection breaks, and nothing comes through for longer than the locks last."""
    await world.write(60)
    cut_off = world.start_writer(through=proxy)
    await world.has_started(cut_off)
    proxy.silence(is_silent=True)
    world.start_writer()
    await world.write(20)
    await world.settled()
    proxy.silence(is_silent=False)
    await world.write(20)
    await world.settled()
    await world.stop_writers()
    await world.account()


async def test_connections_cut_at_any_moment_cost_nothing(
    world: World, proxy: Proxy, scale: Scale
) -> None:
    """In the middle of a reception, of a transaction, of a settlement."""
    dice, clock = random.Random(random.random()), SystemClock()
    for _ in range(2):
        await world.has_started(world.start_writer(through=proxy))
    for _ in range(scale.of(25, soaking=500)):
        await world.write(dice.randrange(1, 20))
        proxy.delay_s = dice.choice([0.0, 0.0, 0.002])
        await clock.sleep(dice.random() * 0.1)
        proxy.cut()
    await world.settled()
    assert proxy.cut_count > 0
    assert len(await world.stop_writers()) == 2, "no writer has ended of it"
    await world.account()
