"""
*memory*: what a writer's process holds while it works, and whether it grows.

Then documents of 1 MiB, the largest that Firestore has: what is held is bounded by the bytes of a
reception, not by a count of events.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

from bench.databases import BenchServer
from bench.machine import rss_mb
from bench.workload import new_message
from bench.world import World, running_world
from storemirror.event.value import encode_fields
from storemirror.source.port import Write

_SAMPLE_EVERY_S: Final = 0.5
_COMMIT: Final = 50
#: Text of a large document, bytes; with names and the other fields it stays below 1 MiB.
_LARGE_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Resident memory of the writer's process, MiB."""

    rss_mb_max: float
    #: Means of the second and of the last quarter of the time: the first warms up.
    rss_mb_early: float
    rss_mb_late: float
    #: While documents of 1 MiB are applied.
    rss_mb_max_large: float
    event_count: int


async def measure_memory(
    server: BenchServer, *, rate_per_s: float, duration_s: float, large_count: int
) -> MemoryFigures:
    """
    Watch one writer under a steady load, then under large documents.

    Raises:
        PipelineFailed: documents and rows differ afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="storemirror-bench-") as folder:
        async with running_world(server, Path(folder), writer_count=1) as world:
            samples = await _sampled(world, _load(world, rate_per_s, duration_s))
            event_count = world.committed_count
            large = await _sampled(world, _load_large(world, large_count))
            await world.stop_writers()
            await world.verify()
    quarter = max(1, len(samples) // 4)
    return MemoryFigures(
        rss_mb_max=max(samples),
        rss_mb_early=mean(samples[quarter : 2 * quarter] or samples),
        rss_mb_late=mean(samples[-quarter:]),
        rss_mb_max_large=max(large),
        event_count=event_count,
    )


async def _sampled(world: World, load: asyncio.Future[None]) -> Sequence[float]:
    """Sample the memory until the load is through."""
    samples = [rss_mb(world.writers[0].pid)]
    while not load.done():
        await world.clock.sleep(_SAMPLE_EVERY_S)
        samples.append(rss_mb(world.writers[0].pid))
    await load
    return samples


def _load(world: World, rate_per_s: float, duration_s: float) -> asyncio.Future[None]:
    async def run() -> None:
        begun_s = world.clock.monotonic_s()
        for number in range(max(1, round(rate_per_s * duration_s / _COMMIT))):
            due_s = begun_s + number * _COMMIT / rate_per_s
            await world.clock.sleep(max(0.0, due_s - world.clock.monotonic_s()))
            await world.commit(world.new_writes(_COMMIT))
        await world.drained()

    return asyncio.ensure_future(run())


def _load_large(world: World, count: int) -> asyncio.Future[None]:
    async def run() -> None:
        for number in range(count):
            document = {**new_message(world.draw, world.clock.now_us()), "body": "x" * _LARGE_BYTES}
            path = f"conversations/large-{number % 8}/messages/large-{number}"
            await world.commit([Write(path=path, fields=encode_fields(document))])
        await world.drained()

    return asyncio.ensure_future(run())
