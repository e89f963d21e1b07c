"""Dead letters are purged: marked first, then removed, and nothing is lost in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from storemirror.apply.dead_letters import PurgeFilter, PurgePlan, plan_purge, purge
from storemirror.apply.drain import drain_realtime_mirror_queue
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, Rejection
from storemirror.errors import BusUnavailable
from storemirror.event.change import Change
from tests.integration.apply.pipe import (
    SETTINGS,
    SOURCE,
    START_US,
    NoReread,
    Pipe,
    a_change,
    a_follow,
    message_of,
    moment,
)

pytestmark = pytest.mark.postgres


def told(change: Change) -> Message:
    """A message as the triggers make it, with what a mark is made of."""
    properties = {"path": change.path, "version": str(change.version)}
    return replace(message_of(change), properties=properties)


async def set_aside(pipe: Pipe, *messages: Message) -> None:
    """Publish and dead-letter, with three reasons in turn."""
    await pipe.publisher.publish(messages)
    consumer = pipe.new_consumer()
    received = await consumer.receive(len(messages), max_wait_s=5.0)
    await consumer.dead_letter(
        [Rejection(delivery=d, reason=f"R{n % 3}", description="") for n, d in enumerate(received)]
    )


async def planned(pipe: Pipe, chosen: PurgeFilter | None = None) -> PurgePlan:
    return await plan_purge(
        pipe.admin, SUBSCRIPTION_SQL_WRITER, pipe.model, chosen or PurgeFilter()
    )


async def purged(pipe: Pipe, plan: PurgePlan) -> int:
    return await purge(plan, pipe.admin, SUBSCRIPTION_SQL_WRITER, pipe.under_test.mirror)


async def test_a_plan_counts_by_reason_and_changes_nothing(pipe: Pipe) -> None:
    """It is what a person is asked about."""
    await set_aside(pipe, *(told(a_follow(n)) for n in range(250)))
    plan = await planned(pipe)
    assert plan.reasons == {"R0": 84, "R1": 83, "R2": 83}
    assert (await pipe.stats()).dead_letter_count == 250
    assert await pipe.under_test.mirror.unverified_count() == 0


async def test_a_purge_takes_what_was_planned_and_marks_it(pipe: Pipe) -> None:
    """What was set aside after the question was asked has not been seen by anybody."""
    await set_aside(pipe, *(told(a_follow(n)) for n in range(250)))
    plan = await planned(pipe, PurgeFilter(reason="R1"))
    await set_aside(pipe, told(a_follow(999)))
    assert await purged(pipe, plan) == 83
    marks = await pipe.under_test.mirror.unverified()
    assert {mark.path for mark in marks} == {f"users/u{n}/following/v" for n in range(1, 250, 3)}
    assert (await pipe.stats()).dead_letter_count == 250 + 1 - 83


async def test_one_that_was_resubmitted_meanwhile_is_marked_and_not_counted(pipe: Pipe) -> None:
    """Its event is on its way again; the mark goes with the next check."""
    await set_aside(pipe, told(a_follow(1)), told(a_follow(2)))
    plan = await planned(pipe)
    await pipe.admin.resubmit(SUBSCRIPTION_SQL_WRITER, min(plan.marks), run="r1")
    assert await purged(pipe, plan) == 1
    assert await pipe.under_test.mirror.unverified_count() == 2


async def test_a_bus_that_fails_leaves_the_mark_with_the_dead_letter(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both, and not neither: it is done again."""
    await set_aside(pipe, told(a_follow(1)))
    plan = await planned(pipe)

    async def fail(subscription: str, sequence_numbers: Sequence[int]) -> list[int]:
        raise BusUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(pipe.admin, "remove_dead_letters", fail)
        with pytest.raises(BusUnavailable):
            await purged(pipe, plan)
    assert await pipe.under_test.mirror.unverified_count() == 1
    assert (await pipe.stats()).dead_letter_count == 1
    assert await purged(pipe, await planned(pipe)) == 1
    assert await pipe.under_test.mirror.unverified_count() == 1


async def verified_by_a_newer_event_of_u1(pipe: Pipe) -> int:
    """Publish one and drain; gives how many marks it cleared."""
    newer = a_change("users/u1/following/v", {"createdAt": moment(START_US)}, START_US + 9)
    await pipe.publish([newer])
    drained = await drain_realtime_mirror_queue(
        consumer=pipe.new_consumer(),
        publisher=pipe.publisher,
        admin=pipe.admin,
        mirror=pipe.under_test.mirror,
        model=pipe.model,
        source=SOURCE,
        clock=pipe.clock,
        reread=NoReread(),
        settings=SETTINGS,
        max_duration_s=30.0,
    )
    return drained.verified


async def test_a_newer_event_clears_the_mark_with_the_next_drain(pipe: Pipe) -> None:
    """What was lost has been overtaken; of another document nothing is known still."""
    await set_aside(pipe, told(a_follow(1)), told(a_follow(2)))
    await purged(pipe, await planned(pipe))
    assert await verified_by_a_newer_event_of_u1(pipe) == 1
    (left,) = await pipe.under_test.mirror.unverified()
    assert left.path == "users/u2/following/v"


async def test_a_newer_event_of_what_the_properties_name_clears_no_mark(pipe: Pipe) -> None:
    """The loss is another document's, and would be forgotten.  Refs #4."""
    forged = {"path": "users/u1/following/v", "version": "2"}
    await set_aside(pipe, replace(message_of(a_follow(2)), properties=forged))
    await purged(pipe, await planned(pipe))
    assert await verified_by_a_newer_event_of_u1(pipe) == 0
    (left,) = await pipe.under_test.mirror.unverified()
    assert (left.message_id, left.path) == (a_follow(2).event_id, None)
