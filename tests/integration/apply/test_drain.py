"""The drainer: applies what waits, says what it did, and ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from storemirror.apply.drain import (
    DrainStats,
    drain_realtime_mirror_queue,
    drainRealtimeMirrorQueue,
)
from storemirror.apply.port import BatchReport, Step
from storemirror.apply.put_back import is_resubmittable
from storemirror.bus.port import (
    MAX_DELIVERY_REASON,
    RESUBMITTED_FROM,
    SUBSCRIPTION_SQL_WRITER,
    DeadLetter,
    Delivery,
    Message,
    Rejection,
)
from storemirror.errors import DeadLetterUnknown, SqlUnavailable, SwitchedOff
from tests.integration.apply.faulty import FaultyMirror
from tests.integration.apply.pipe import (
    FUTURE_US,
    HOUR_S,
    SETTINGS,
    SOURCE,
    NoReread,
    Pipe,
    UntilTold,
    a_chat_message,
)

pytestmark = pytest.mark.postgres

CHANGES = [a_chat_message(number) for number in range(40)]


async def drain(pipe: Pipe, *, max_duration_s: float = 30.0, **others: Any) -> DrainStats:
    arguments: dict[str, Any] = {
        "consumer": pipe.new_consumer(),
        "publisher": pipe.publisher,
        "admin": pipe.admin,
        "mirror": pipe.under_test.mirror,
        "model": pipe.model,
        "source": SOURCE,
        "clock": pipe.clock,
        "reread": NoReread(),
        "settings": SETTINGS,
        "max_duration_s": max_duration_s,
    }
    return await drainRealtimeMirrorQueue(**{**arguments, **others})


async def test_it_ends_when_nothing_waits(pipe: Pipe) -> None:
    """It is started every minute, and must not run into the next one."""
    await pipe.publish([*CHANGES, a_chat_message(99, at_us=FUTURE_US)])
    await pipe.publish_again(CHANGES[:10], run="again")
    drained = await drain(pipe)
    line = drained.as_line()
    duration_s = line.pop("duration_s")
    assert line == {
        "received": 51,
        "applied": 40,
        "repaired": 0,
        "duplicate": 10,
        "stale": 0,
        "expired": 0,
        "abandoned": 0,
        "dead_lettered": 1,
        "resubmitted": 0,
        "verified": 0,
        "depth": 0,
        "oldest_age_s": None,
        "is_drained": True,
    }
    assert isinstance(duration_s, float)
    assert json.dumps(drained.as_line())
    await pipe.assert_mirrors(CHANGES)


async def test_an_empty_queue_is_drained_at_once(pipe: Pipe) -> None:
    """Most of its runs find nothing."""
    drained = await drain(pipe)
    assert (drained.received, drained.is_drained) == (0, True)


async def test_it_ends_when_its_time_is_used_up(pipe: Pipe) -> None:
    """What it leaves is told: depth, and the age of the oldest."""
    await pipe.publish(CHANGES)
    await pipe.new_consumer().receive(1, max_wait_s=1.0)
    is_over, settled = asyncio.Event(), 0

    def count(report: BatchReport) -> None:
        nonlocal settled
        settled += len(report.settled)
        if settled == len(CHANGES) - 1:
            is_over.set()

    clock = UntilTold(is_over)
    drained = await drain(pipe, max_duration_s=HOUR_S, clock=clock, on_batch=count)
    assert drained.applied == len(CHANGES) - 1
    assert (drained.depth, drained.is_drained) == (1, False)
    assert drained.oldest_age_s is not None


async def test_without_time_it_puts_back_and_receives_nothing(pipe: Pipe) -> None:
    """Thousands of dead letters must not make it run into the next one."""
    await pipe.publish(CHANGES[:2])
    await use_up_deliveries(pipe)
    drained = await drain(pipe, max_duration_s=0.0)
    assert (drained.received, drained.depth) == (0, drained.resubmitted)


async def test_with_sql_down_nothing_is_received(pipe: Pipe) -> None:
    """An outage spends no deliveries, however often the drainer is started."""
    await pipe.publish(CHANGES)
    mirror = FaultyMirror(pipe)
    mirror.probe_faults.append(SqlUnavailable("gone"))
    with pytest.raises(SqlUnavailable):
        await drain(pipe, mirror=mirror)
    consumer = pipe.new_consumer()
    deliveries = await consumer.receive(len(CHANGES), max_wait_s=1.0)
    assert {delivery.delivery_count for delivery in deliveries} == {1}
    assert await pipe.dead_letters() == []


async def test_switched_off_it_says_so(pipe: Pipe) -> None:
    """The master switch holds for writer and drainer alike."""
    await pipe.publish(CHANGES)
    with pytest.raises(SwitchedOff):
        await drain(pipe, settings=replace(SETTINGS, is_mirror_on=False))
    assert await pipe.locked_count() == 0


async def use_up_deliveries(pipe: Pipe) -> None:
    """Receive and abandon until the bus itself sets everything aside."""
    consumer = pipe.new_consumer()
    while deliveries := await consumer.receive(100, max_wait_s=0.0):
        await consumer.abandon(deliveries)


async def test_what_the_bus_set_aside_by_itself_is_put_back_once(pipe: Pipe) -> None:
    """It was set aside for an outage, and the outage is over; twice would be a loop."""
    await pipe.publish(CHANGES[:5])
    await use_up_deliveries(pipe)
    assert {letter.reason for letter in await pipe.dead_letters()} == {MAX_DELIVERY_REASON}
    drained = await drain(pipe)
    assert (drained.resubmitted, drained.applied, drained.is_drained) == (5, 5, True)
    assert await pipe.dead_letters() == []


async def test_a_replacement_is_not_put_back_again(pipe: Pipe) -> None:
    """What fails twice is for a person."""
    await pipe.publish(CHANGES[:1])
    await use_up_deliveries(pipe)
    (letter,) = await pipe.dead_letters()
    await pipe.admin.resubmit(SUBSCRIPTION_SQL_WRITER, letter.sequence_number, run="by-hand")
    await use_up_deliveries(pipe)
    drained = await drain(pipe)
    assert (drained.resubmitted, drained.received) == (0, 0)
    assert len(await pipe.dead_letters()) == 1


async def test_what_was_set_aside_for_a_reason_stays(pipe: Pipe) -> None:
    """Its cause is not gone by itself."""
    await pipe.publish(CHANGES[:1])
    consumer = pipe.new_consumer()
    (delivery,) = await consumer.receive(1, max_wait_s=1.0)
    await consumer.dead_letter(
        [Rejection(delivery=delivery, reason="MappingFailed", description="x")]
    )
    assert (await drain(pipe)).resubmitted == 0


async def test_another_drainer_may_be_faster(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two schedulers may overlap; the second one's finding is gone, and that is no error."""
    await pipe.publish(CHANGES[:2])
    await use_up_deliveries(pipe)
    resubmit = pipe.admin.resubmit

    async def resubmit_second(subscription: str, sequence_number: int, *, run: str) -> str:
        await resubmit(subscription, sequence_number, run="other")
        return await resubmit(subscription, sequence_number, run=run)

    monkeypatch.setattr(pipe.admin, "resubmit", resubmit_second)
    drained = await drain(pipe)
    assert (drained.resubmitted, drained.applied) == (0, 2)
    with pytest.raises(DeadLetterUnknown):
        await resubmit(SUBSCRIPTION_SQL_WRITER, 1, run="again")


async def test_cut_off_it_leaves_no_timer_behind(pipe: Pipe) -> None:
    """A scheduler kills what runs too long."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(step: Step, deliveries: Sequence[Delivery]) -> None:
        reached.set()
        await never.wait()

    await pipe.publish(CHANGES)
    before = asyncio.all_tasks()
    running = asyncio.create_task(drain(pipe, hooks=hang))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    ours = [t for t in asyncio.all_tasks() - before if "apply" in repr(t.get_coro())]
    assert ours == []


def a_letter(**others: Any) -> DeadLetter:
    letter = DeadLetter(
        message=Message(message_id="m", body=b"", content_type=""),
        sequence_number=1,
        reason=MAX_DELIVERY_REASON,
        description="",
        delivery_count=11,
        enqueued_at_us=0,
        dead_lettered_at_us=0,
    )
    return replace(letter, **others)


def test_only_an_untouched_dead_letter_of_the_bus_itself_is_put_back() -> None:
    """Nobody's decision is undone, and nothing goes round in circles."""
    message = a_letter().message
    again = replace(message, properties={RESUBMITTED_FROM: "m"})
    assert is_resubmittable(a_letter())
    assert not is_resubmittable(a_letter(reason="MappingFailed"))
    assert not is_resubmittable(a_letter(message=again))
    assert not is_resubmittable(a_letter(acknowledged_reason="seen"))


def test_it_has_the_contracts_name_and_pythons() -> None:
    """Schedulers call it by the one, our own code by the other."""
    assert drain_realtime_mirror_queue is drainRealtimeMirrorQueue
