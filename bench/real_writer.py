"""The real writer behind an in-memory bus that holds everything before the clock starts."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Final

from bench.databases import BenchMirror
from bench.workload import SOURCE, Workload
from storemirror.apply.port import BatchReport, WriterSettings
from storemirror.apply.writer import create_sql_writer_processor
from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, TopicSpec
from storemirror.clock import Clock

_PUBLISH_BATCH: Final = 1_000

#: Applies everything; awaited while the clock runs.
Run = Callable[[], Awaitable[None]]


class _NoReread:
    """Nothing expires in a mirror that was never purged."""

    async def reread(self, path: str, *, run: str) -> Message:
        raise AssertionError(f"{path} was read again, and nothing had expired")


async def prepare_writer(
    mirror: BenchMirror,
    workload: Workload,
    clock: Clock,
    settings: WriterSettings,
    *,
    writer_count: int = 1,
) -> Run:
    """Put all messages on an in-memory bus; the run is the real writer until all are settled.

    Several writers compete for the same messages, in this one process.
    """
    bus = MemoryBus(clock)
    await bus.admin().provision(TopicSpec())
    messages = workload.messages()
    for start in range(0, len(messages), _PUBLISH_BATCH):
        await bus.publisher().publish(messages[start : start + _PUBLISH_BATCH])
    stop = asyncio.Event()
    settled_count = 0

    def note(report: BatchReport) -> None:
        nonlocal settled_count
        settled_count += len(report.settled)
        if settled_count >= len(messages):
            stop.set()

    processors = [
        create_sql_writer_processor(
            consumer=bus.consumer(SUBSCRIPTION_SQL_WRITER),
            publisher=bus.publisher(),
            mirror=mirror.mirror,
            model=mirror.model,
            source=SOURCE,
            clock=clock,
            reread=_NoReread(),
            settings=settings,
            on_batch=note,
        )
        for _ in range(writer_count)
    ]
    # The waiting messages are the benchmark's, not the writer's: it shall not pay for their being
    # looked through in each collection.
    gc.collect()
    gc.freeze()

    async def run() -> None:
        try:
            await asyncio.gather(*(processor.run(stop) for processor in processors))
        finally:
            gc.unfreeze()
        assert not any(processor.stats.dead_lettered for processor in processors)

    return run
