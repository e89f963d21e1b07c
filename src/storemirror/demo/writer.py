"""
The demo's writer: a process of its own, so that it can be killed in earnest.

It is the real writer on the real bus, behind a consumer that repeats and reorders deliveries.  It
prints one JSON line when it is ready and one a settled batch (`WriterReport`), and stops when its
standard input ends: when the demo asks it to, and also when the demo is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from storemirror import loop
from storemirror.apply.port import BatchReport, Step
from storemirror.bus.faults import Faults, FaultyConsumer
from storemirror.bus.port import Delivery
from storemirror.collector import calm_collector
from storemirror.config import load_settings
from storemirror.telemetry import configure_logging
from storemirror.wiring import Parts

#: Lock of a delivery in the demo: how long a killed writer's deliveries wait.
LOCK_DURATION_S: Final = 5.0
#: How often the demo's bus misbehaves: on the publisher's side (repeat) and the writer's (others).
FAULTS: Final = Faults(repeat=0.05, reorder=0.10, drop=0.02)


class WriterReport(msgspec.Struct, frozen=True):
    """One settled batch, as the demo is told of it."""

    #: Ids of the messages that are settled for good.
    message_ids: list[str]
    #: Outcome -> count.
    outcomes: dict[str, int]
    #: Commit to visible, microseconds, of live events that were applied.
    latencies_us: list[int]
    #: Ids of the messages of which the bus gave no answer: they are settled, or come again.
    unsure_ids: list[str] = []


class _Death:
    """Kills this process at the worst step: rows are committed, the bus does not know yet."""

    def __init__(self, after_events: int | None) -> None:
        self._after_events = after_events
        self._seen_count = 0
        self._settling_count = 0

    async def strike(self, step: Step, deliveries: Sequence[Delivery]) -> None:
        """Strike when enough was seen and no other lane is between settling and reporting."""
        if step is Step.AFTER_COMPLETE:
            self._settling_count -= 1
        if step is not Step.AFTER_APPLY_BEFORE_COMPLETE:
            return
        self._seen_count += len(deliveries)
        is_due = self._after_events is not None and self._seen_count >= self._after_events
        if is_due and self._settling_count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._settling_count += 1


def report(batch: BatchReport) -> None:
    """Print one settled batch."""
    _print(
        WriterReport(
            message_ids=[d.message.message_id for d in batch.settled],
            unsure_ids=[d.message.message_id for d in batch.unsure],
            outcomes=dict(Counter(outcome.value for outcome in batch.outcomes)),
            latencies_us=list(batch.latencies_us),
        )
    )


def _print(written: WriterReport) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(written) + b"\n")
    sys.stdout.buffer.flush()


async def _input_ends(stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    with contextlib.closing(transport):
        await reader.read()
    stop.set()


async def run(*, seed: int, die_after_events: int | None) -> None:
    """Apply events until standard input ends; see the module."""
    async with Parts(load_settings(None, os.environ)) as parts:
        draw = random.Random(seed)  # noqa: S311 - faults, not secrets
        inner = await parts.consumer(lock_duration_s=LOCK_DURATION_S)
        consumer = FaultyConsumer(inner, FAULTS, draw, parts.clock)
        processor = await parts.writer(
            consumer=consumer,
            lock_duration_s=LOCK_DURATION_S,
            hooks=_Death(die_after_events).strike,
            on_batch=report,
        )
        # One empty report says that all is open.
        _print(WriterReport(message_ids=[], outcomes={}, latencies_us=[]))
        stop = asyncio.Event()
        watcher = asyncio.create_task(_input_ends(stop))
        await processor.run(stop)
        watcher.cancel()
        await consumer.aclose()


if __name__ == "__main__":
    configure_logging(os.environ.get("STOREMIRROR_LOG_LEVEL", "info"))
    calm_collector()
    loop.run(
        run(seed=int(sys.argv[1]), die_after_events=int(sys.argv[2]) if sys.argv[2:] else None)
    )
