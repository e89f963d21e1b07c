"""
PostgreSQL goes down under load, of the mirror or of the bus, and comes back.

Its alone: a server that is not ours to stop is cut off instead, in `test_cut`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from storemirror.clock import SystemClock
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.telemetry import LogEvent
from tests.faults.processes.world import World, running_world, wait_for
from tests.support.restarting import RestartableServer, restartable_server
from tests.support.soak import Scale

pytestmark = pytest.mark.postgres

#: A writer met it in a call, in a probe, or at the bus.
_TROUBLE = ("does not answer", LogEvent.CALL_RETRIED, LogEvent.GATE_CLOSED)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, RestartableServer]]:
    """Two servers that may fall: the mirror's and the bus's.  Documents are on a third one."""
    with restartable_server() as mirror, restartable_server() as bus:
        yield {"mirror": mirror, "bus": bus}


async def new_database_of(server: RestartableServer, name: str) -> str:
    """Make an empty database."""
    admin = Database(server.dsn("postgres"), MIRROR, max_size=1)
    await admin.open()
    async with admin.connection() as conn:
        await conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    await admin.aclose()
    return server.dsn(name)


@pytest.fixture
async def fallible(
    servers: dict[str, RestartableServer],
    new_database: Callable[[], Awaitable[str]],
    tmp_path: Path,
) -> AsyncIterator[World]:
    """A world whose bus and mirror are on servers that may fall."""
    documents = await new_database()
    name = documents.rpartition("/")[2].partition("?")[0]
    bus = await new_database_of(servers["bus"], name)
    mirror = await new_database_of(servers["mirror"], name)
    async with running_world(documents=documents, bus=bus, mirror=mirror, folder=tmp_path) as world:
        yield world


async def start_again(server: RestartableServer) -> None:
    """Start a server and wait until it is ready."""
    server.start()
    await asyncio.to_thread(server.wait_ready)


async def load(world: World, stop: asyncio.Event) -> None:
    """Let people write, whatever is down, until told to end."""
    while not stop.is_set():
        await world.write(5)


@pytest.mark.parametrize("part", ["mirror", "bus"])
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_falls_under_load_costs_nothing(
    fallible: World, servers: dict[str, RestartableServer], part: str, end: str
) -> None:
    """One database is gone while the other one is there; what was committed is there again."""
    world, server, stop = fallible, servers[part], asyncio.Event()
    writers = [world.start_writer(), world.start_writer()]
    for writer in writers:
        await world.has_started(writer)
    loading = asyncio.create_task(load(world, stop))
    try:
        await has_grown(world)
        await asyncio.to_thread(getattr(server, end))
        await has_noticed(world)
    finally:
        await start_again(server)
    await has_grown(world)
    stop.set()
    await loading
    await world.settled()
    assert len(await world.stop_writers()) == 2, "no writer has ended of it"
    await world.account()


async def has_grown(world: World) -> None:
    """Wait until more is settled than there was."""
    before = len(world.reported()[0])

    async def is_more() -> bool:
        return len(world.reported()[0]) > before + 20

    await wait_for(is_more)


async def has_noticed(world: World) -> None:
    """Wait until every writer has met the trouble."""

    async def have_all() -> bool:
        return all(any(word in w.log() for word in _TROUBLE) for w in world.writers)

    await wait_for(have_all)


async def test_servers_that_fall_at_any_moment_cost_nothing(
    fallible: World, servers: dict[str, RestartableServer], scale: Scale
) -> None:
    """Crash recovery of the one while the other takes events, and both at once."""
    dice, clock, world, stop = (
        random.Random(random.random()),
        SystemClock(),
        fallible,
        asyncio.Event(),
    )
    for _ in range(2):
        world.start_writer()
    loading = asyncio.create_task(load(world, stop))
    for _ in range(scale.of(2, soaking=100)):
        await has_grown(world)
        fallen = dice.sample(sorted(servers), dice.choice([1, 1, 2]))
        for part in fallen:
            await asyncio.to_thread(getattr(servers[part], dice.choice(["stop", "kill"])))
            await clock.sleep(dice.random() * 0.5)
        for part in fallen:
            await start_again(servers[part])
    stop.set()
    await loading
    await world.settled()
    await world.stop_writers()
    await world.account()
