"""Writer processes are killed with SIGKILL; the others, or the next ones, finish what they had."""

from __future__ import annotations

import random
import signal
from dataclasses import replace

import pytest

from storemirror.clock import SystemClock
from tests.faults.processes.child import BEFORE_COMMIT, STEPS
from tests.faults.processes.world import (
    SETTINGS,
    World,
    assert_settlements_are_outcomes,
)
from tests.support.mirrors import MirrorUnderTest
from tests.support.soak import Scale

#: What of a killed writer's batch is settled, and reported, before it dies.
SETTLES_NOTHING = ("received", "before_apply", BEFORE_COMMIT, "after_apply_before_complete")


@pytest.mark.parametrize("step", STEPS)
async def test_a_writer_killed_at_a_step_loses_nothing(world: World, step: str) -> None:
    """Its connections break and its locks run out; the next writer applies the same events."""
    if step == BEFORE_COMMIT and not isinstance(world.mirrored, MirrorUnderTest):
        pytest.skip("needs SQL Server to stop within a batch, which it does not")
    await world.write(60)
    # One lane: another one would be at a step of its own, settled or not.
    killed = world.start_writer(strikes_at=step, settings=replace(SETTINGS, lane_count=1))
    assert await killed.ended() == -signal.SIGKILL
    assert (await world.stats()).depth > 0
    world.start_writer()
    await world.settled()
    (counters,) = await world.stop_writers()
    await world.account()
    ids, outcomes = world.reported()
    assert set(ids) <= set(world.publisher.sent)
    assert set(ids) == set(world.publisher.sent) or step not in SETTLES_NOTHING
    assert_settlements_are_outcomes([counters])
    was_committed = step == "after_apply_before_complete"
    assert (outcomes["duplicate"] > 0) is was_committed, "committed before, and not settled"


async def test_writers_killed_at_any_moment_lose_nothing(world: World, scale: Scale) -> None:
    """Most moments lie between the steps that have a name."""
    dice, clock = random.Random(random.random()), SystemClock()
    world.start_writer()
    for _ in range(scale.of(20, soaking=400)):
        await world.write(dice.randrange(1, 30))
        victim = world.start_writer()
        if dice.random() < 0.5:
            await world.has_started(victim)
        await clock.sleep(dice.random() * 0.2)
        dice.choice([w for w in world.writers if w.process.is_alive()]).send(signal.SIGKILL)
    world.start_writer()
    await world.settled()
    await world.stop_writers()
    await world.account()
