"""
No room on the disk, or no writes at all: said clearly, nothing lost, goes on by itself.

PostgreSQL's alone: what fills is a server or a database of ours, and no other dialect's is.  What
SQL Server says of a full or read-only database is judged in tests/unit/sql.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storemirror.errors import BusUnavailable
from storemirror.sql.postgres.server import EmbeddedServer
from tests.faults.processes.world import World, running_world, wait_for
from tests.support.full_disk import KINDS, Disk, full_disk

pytestmark = pytest.mark.postgres

CURE = "its disk is full: give it room, and what waits goes on by itself"


@pytest.fixture
def dialect() -> str:
    """Have the world's mirror where it can be filled."""
    return "postgres"


@pytest.fixture(params=KINDS)
async def mirror_disk(
    request: pytest.FixtureRequest,
    postgres: EmbeddedServer,
    new_database: Callable[[], Awaitable[str]],
) -> AsyncIterator[Disk]:
    """Where the mirror is."""
    table = "storemirror.dm_message"
    async with full_disk(request.param, postgres, new_database, table=table) as disk:
        yield disk


@pytest.fixture(params=KINDS)
async def bus_disk(
    request: pytest.FixtureRequest,
    postgres: EmbeddedServer,
    new_database: Callable[[], Awaitable[str]],
) -> AsyncIterator[Disk]:
    """Where the bus is."""
    async with full_disk(request.param, postgres, new_database, table="bus.queue") as disk:
        yield disk


async def test_a_full_mirror_is_waited_out(
    mirror_disk: Disk, new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> None:
    """Events wait on the bus, the log says what to do, and nothing else is to be done."""
    documents, bus = await new_database(), await new_database()
    async with running_world(
        documents=documents, bus=bus, mirror=mirror_disk.dsn, folder=tmp_path
    ) as world:
        await world.write(10)
        writer = world.start_writer()
        await world.settled()
        await mirror_disk.fill()
        await world.write(150)

        async def is_said() -> bool:
            return "gate_closed" in writer.log() and CURE in writer.log()

        await wait_for(is_said)
        stats = await world.stats()
        assert (stats.depth > 0, stats.dead_letter_count) == (True, 0)
        assert "has room on its disk" in writer.log(), "the hint"
        await mirror_disk.give_room()
        await world.settled()
        await world.stop_writers()
        await world.account()


async def test_a_mirror_that_takes_no_writes_is_waited_out(world: World) -> None:
    """As after a failover to a standby, when the address names the wrong one for a while."""
    await world.write(10)
    writer = world.start_writer()
    await world.settled()
    await world.under_test.take_writes(are_taken=False)
    await world.write(50)

    async def is_said() -> bool:
        return "gate_closed" in writer.log() and "is read-only, as a standby is" in writer.log()

    await wait_for(is_said)
    assert (await world.stats()).depth > 0
    await world.under_test.take_writes(are_taken=True)
    await world.settled()
    await world.stop_writers()
    await world.account()


async def test_a_full_bus_takes_no_event_and_loses_none(
    bus_disk: Disk, new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> None:
    """Whoever publishes hears of it, and has the event still; what was on the bus is there."""
    documents, mirror = await new_database(), await new_database()
    async with running_world(
        documents=documents, bus=bus_disk.dsn, mirror=mirror, folder=tmp_path
    ) as world:
        await world.write(30)
        await bus_disk.fill()
        refused = await refusal(world)
        assert CURE in str(refused)
        assert "has room on its disk" in refused.hint
        await bus_disk.give_room()
        world.start_writer()
        await world.write(10)
        await world.settled()
        await world.stop_writers()
        await world.account()


async def refusal(world: World) -> BusUnavailable:
    """Write on until the bus has no room; gives what the publisher hears then."""
    for _ in range(1_000):
        try:
            await world.write_once(20)
        except BusUnavailable as exc:
            return exc
    raise AssertionError("the bus never was full")
