"""The document store is out: events that came without their contents wait for it."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import DatabaseRefused, SourceUnavailable, SqlUnavailable
from tests.faults.apply.test_source_out import LATE, Source
from tests.integration.apply.faulty import FaultyConsumer, FaultyMirror
from tests.integration.apply.pipe import HOUR_S, Pipe, a_follow, message_of, referring_to

pytestmark = pytest.mark.postgres


async def test_an_end_does_not_wait_for_the_next_try(pipe: Pipe) -> None:
    """It lies up to ten seconds ahead, and whoever stops a writer has a deadline."""
    await pipe.publisher.publish([referring_to(LATE[0])])
    stop, source = asyncio.Event(), Source(SourceUnavailable("silent"))

    async def watch(_: int) -> bool:
        stop.set()
        return False

    source.answers = watch
    writer = pipe.processor(reread=source, clock=EndlessPauses(), shutdown_timeout_s=HOUR_S)
    await writer.run(stop)
    assert (writer.stats.abandoned, source.try_count) == (0, 1)
    assert (await pipe.stats()).depth == 1


class EndlessPauses(SystemClock):
    """A clock on which no pause ends by itself."""

    async def sleep(self, duration_s: float) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("ends_meanwhile", [False, True])
async def test_an_outage_of_the_database_costs_what_waits_no_delivery(
    pipe: Pipe, *, ends_meanwhile: bool
) -> None:
    """All others are applied between two outages; these would pay for every one (#5)."""
    messages = [referring_to(change) for change in LATE[:3]] + [message_of(a_follow(1))]
    await pipe.publisher.publish(messages)
    mirror, source, stop = FaultyMirror(pipe), Source(SourceUnavailable("silent")), asyncio.Event()
    mirror.apply_faults.append(DatabaseRefused("read only"))

    async def is_out() -> None:
        """The database is out until a document was read, or the writer ends."""
        if source.try_count and mirror.sizes and not source.answer_count:
            source.answers = always
            raise SqlUnavailable("silent")
        if ends_meanwhile and source.answer_count:
            stop.set()
            raise SqlUnavailable("silent")

    mirror.before_probe = is_out
    consumer = FaultyConsumer(pipe.new_consumer())
    writer = pipe.processor(mirror=mirror, consumer=consumer, reread=source)
    await writer.run(stop, on_idle=pipe.stop_when_empty(stop))
    assert {d.delivery_count for d in consumer.received} == {1}
    assert writer.stats.abandoned == (1 if ends_meanwhile else 0), "the edge, by the end"
    assert (await pipe.stats()).depth == (4 if ends_meanwhile else 0)
    assert await pipe.dead_letters() == []


async def always(_: int) -> bool:
    """A document store that answers."""
    return True
