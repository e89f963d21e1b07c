"""
The drainer, scheduled every minute: applies what waits, says in one line what it did, and ends.

It is the writer's own processor with an end, so that both settle alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import structlog

from storemirror.apply.port import BatchObserver, Reread, StepHook, WriterSettings
from storemirror.apply.put_back import DeadLetterRound, PutBack
from storemirror.apply.readiness import check_ready, refuse_if_off
from storemirror.apply.retry import cancel, first_of
from storemirror.apply.stats import WriterStats
from storemirror.apply.writer import SqlWriterProcessor, create_sql_writer_processor
from storemirror.bus.port import (
    SUBSCRIPTION_SQL_WRITER,
    BusAdmin,
    Consumer,
    Publisher,
    SubscriptionStats,
)
from storemirror.clock import Clock
from storemirror.errors import RebaseUnderWay
from storemirror.model.entity import Model
from storemirror.sql.port import SqlMirror
from storemirror.telemetry import LogEvent

#: How long to wait for another delivery before the depth is looked at.
_RECEIVE_WAIT_S: Final = 0.2
#: Share of the time in which only receiving is done, unless nothing waits before that.
_RECEIVING_FIRST_SHARE: Final = 1 / 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStats:
    """What one drain did, and what it left.  Counts of deliveries."""

    received: int
    applied: int
    repaired: int
    duplicate: int
    stale: int
    expired: int
    abandoned: int
    dead_lettered: int
    #: Dead letters of the bus's own making that were put back at the start.
    resubmitted: int
    #: Marks of unverified documents that were cleared: rows hold newer versions.
    verified: int
    #: What waits, or is locked by someone, at the end.
    depth: int
    #: Age of the oldest of them, seconds; None when there is none.
    oldest_age_s: float | None
    duration_s: float

    @property
    def is_drained(self) -> bool:
        """Tell whether nothing was left."""
        return self.depth == 0

    def as_line(self) -> dict[str, object]:
        """Give everything as values that JSON can carry."""
        return {**asdict(self), "is_drained": self.is_drained}


async def drainRealtimeMirrorQueue(  # noqa: N802 - the name is a contract
    *,
    consumer: Consumer,
    publisher: Publisher,
    admin: BusAdmin,
    mirror: SqlMirror,
    model: Model,
    source: str,
    clock: Clock,
    reread: Reread,
    settings: WriterSettings,
    max_duration_s: float,
    stop: asyncio.Event | None = None,
    subscription: str = SUBSCRIPTION_SQL_WRITER,
    hooks: StepHook | None = None,
    on_batch: BatchObserver | None = None,
    dead_letters: DeadLetterRound | None = None,
) -> DrainStats:
    """
    Apply until nothing waits, or for `max_duration_s`.

    What the bus dead-lettered by itself is put back once: its cause, an outage, is gone.  That
    begins when nothing waits, or half of the time is over, and goes on beside receiving.  What the
    bus refuses stays there, and the log names it.

    `admin` counts what waits in `subscription`, which is the consumer's; after `max_duration_s`
    or once `stop` is set nothing more is received.  `dead_letters` is to be the same for all drains
    of a process; without it this one looks at all of them while there is time.  The rest: see
    `create_sql_writer_processor`.

    Raises:
        SwitchedOff: nothing was received.
        SqlUnavailable: SQL did not answer at the start; nothing was received.
        SchemaMismatch: what was held was given back.
        ClockSkewed: likewise.
        BusUnavailable, BusRefused: the depth could not be read; maybe nothing was received.
    """
    refuse_if_off(is_mirror_on=settings.is_mirror_on)
    begun_s = clock.monotonic_s()
    # A rebase is waited for as the writer waits, within the drain's own time.
    with contextlib.suppress(RebaseUnderWay):
        await check_ready(mirror, clock)
    processor = create_sql_writer_processor(
        consumer=consumer,
        publisher=publisher,
        mirror=mirror,
        model=model,
        source=source,
        clock=clock,
        reread=reread,
        settings=_hurried(settings),
        hooks=hooks,
        on_batch=on_batch,
    )
    await admin.stats(subscription)  # for its errors: receiving would wait for a bus that is away
    put_back = PutBack(admin, subscription, dead_letters or DeadLetterRound(max_count=None))
    await _run(processor, put_back, clock, max_duration_s, stop or asyncio.Event())
    counted = {"resubmitted": put_back.count, "verified": await mirror.clear_overtaken()}
    left = await admin.stats(subscription)
    return _finished(processor.stats, left, counted, clock.monotonic_s() - begun_s)


#: The same, as Python spells names.
drain_realtime_mirror_queue = drainRealtimeMirrorQueue


async def _run(
    processor: SqlWriterProcessor,
    put_back: PutBack,
    clock: Clock,
    max_duration_s: float,
    asked: asyncio.Event,
) -> None:
    """Apply and put back until nothing waits or the time is over."""
    stop, quiet = asyncio.Event(), asyncio.Event()

    async def put_back_later() -> None:
        first_s = max_duration_s * _RECEIVING_FIRST_SHARE
        await first_of(quiet.wait(), stop.wait(), clock.sleep(first_s))
        await put_back.run(stop)

    timer = asyncio.create_task(_set_after(stop, clock, max_duration_s, asked))
    putting_back = asyncio.create_task(put_back_later())

    async def look() -> None:
        # Before the depth: what is put back in between would be left behind.
        is_put_back = putting_back.done()
        is_waited_for = quiet.is_set() and not is_put_back
        if is_waited_for or await put_back.depth() > 0:
            return
        quiet.set()
        if is_put_back:
            stop.set()

    try:
        await processor.run(stop, on_idle=look)
        await putting_back
    finally:
        await cancel([timer, putting_back])


def _hurried(settings: WriterSettings) -> WriterSettings:
    """Let a drain wait for no more than it needs to see that nothing waits."""
    return replace(settings, receive_wait_s=min(settings.receive_wait_s, _RECEIVE_WAIT_S))


def _finished(
    done: WriterStats, left: SubscriptionStats, counted: Mapping[str, int], duration_s: float
) -> DrainStats:
    """Put a drain's figures together, and log them."""
    counters = done.counters()
    del counters["settled"], counters["lost_locks"]
    drained = DrainStats(
        **counters,
        **counted,
        depth=left.depth,
        oldest_age_s=left.oldest_age_s,
        duration_s=round(duration_s, 3),
    )
    _log.info(LogEvent.DRAIN_FINISHED.value, **drained.as_line())
    return drained


async def _set_after(
    stop: asyncio.Event, clock: Clock, duration_s: float, asked: asyncio.Event
) -> None:
    await first_of(clock.sleep(duration_s), asked.wait())
    stop.set()
