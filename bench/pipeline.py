"""
*pipeline*: from a document's commit to its row, through the whole embedded path.

Paced, it shows how long a write takes to be seen; flat out, how many a second go through.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.databases import BenchServer
from bench.world import World, running_world

#: Tasks that commit at the same time.
_CLIENTS: Final = 4
#: Documents of one commit, flat out: what an app writes as one batch.
_FLAT_OUT_COMMIT: Final = 100
_CATEGORY: Final = "dmSqlMirror"


@dataclass(frozen=True, slots=True)
class PipelineFigures:
    """What one run showed."""

    events_per_s: float
    #: Commit to visible; the slower of several writers.
    latency_ms: Mapping[str, float]


async def measure_paced(
    server: BenchServer, *, rate_per_s: float, duration_s: float, writer_count: int = 1
) -> PipelineFigures:
    """
    Commit documents one by one at a rate.

    Raises:
        PipelineFailed: documents and rows differ afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="storemirror-bench-") as folder:
        async with running_world(server, Path(folder), writer_count=writer_count) as world:
            begun_s = world.clock.monotonic_s()
            before = world.committed_count
            await asyncio.gather(
                *(
                    _paced(world, begun_s, rate_per_s / _CLIENTS, duration_s)
                    for _ in range(_CLIENTS)
                )
            )
            took_s = world.clock.monotonic_s() - begun_s
            return await _figures(world, (world.committed_count - before) / took_s)


async def _paced(world: World, begun_s: float, rate_per_s: float, duration_s: float) -> None:
    for number in range(round(rate_per_s * duration_s)):
        due_s = begun_s + number / rate_per_s
        await world.clock.sleep(max(0.0, due_s - world.clock.monotonic_s()))
        await world.commit(world.new_writes(1))


async def measure_flat_out(
    server: BenchServer, *, event_count: int, writer_count: int
) -> PipelineFigures:
    """
    Commit documents in batches as fast as they are taken, until all of them are settled.

    Raises:
        PipelineFailed: documents and rows differ afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="storemirror-bench-") as folder:
        async with running_world(server, Path(folder), writer_count=writer_count) as world:
            size = min(_FLAT_OUT_COMMIT, max(1, event_count // _CLIENTS))
            batches = [world.new_writes(size) for _ in range(max(1, event_count // size))]
            begun_s = world.clock.monotonic_s()

            async def client() -> None:
                while batches:
                    await world.commit(batches.pop())

            count = len(batches) * size
            await asyncio.gather(*(client() for _ in range(_CLIENTS)))
            await world.drained()
            took_s = world.clock.monotonic_s() - begun_s
            return await _figures(world, count / took_s)


async def _figures(world: World, events_per_s: float) -> PipelineFigures:
    await world.drained()
    await world.stop_writers()
    await world.verify()
    measured = [w.result["latency_ms"].get(_CATEGORY, {}) for w in world.writers]
    return PipelineFigures(
        events_per_s=events_per_s,
        latency_ms={
            name: max(float(found.get(name) or 0.0) for found in measured)
            for name in ("p50", "p95", "p99")
        },
    )
