"""Triggers that deliver late are lag within the grace, and a loss after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.check.compare import MismatchKind
from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import run_check
from storemirror.clock import SystemClock, datetime_from_us
from storemirror.errors import CheckIncomplete
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.event.value import encode_fields
from storemirror.source.triggers import message_of
from tests.integration.check.world import SOURCE, World

pytestmark = pytest.mark.postgres

EDGE = "users/u1/following/u2"
OTHER = "users/u1/following/u3"
#: More than any of these tests takes in truth.
GRACE_S = 60.0


class Meanwhile(SystemClock):
    """A clock whose waits take no time: what would happen meanwhile is done instead."""

    def __init__(self, *steps: Callable[[], Awaitable[object]]) -> None:
        self.steps = list(steps)
        self.waited_s = 0.0

    def monotonic_s(self) -> float:
        return self.waited_s

    async def sleep(self, duration_s: float) -> None:
        self.waited_s += duration_s
        if self.steps:
            await self.steps.pop(0)()


async def checked(world: World, clock: Meanwhile, **settings: Any) -> CheckResult:
    """Check as on Firestore: nobody can tell what the triggers have still to deliver."""
    return await run_check(
        store=world.store,
        mirror=world.mirror,
        model=world.model,
        bus_admin=world.admin,
        subscription=SUBSCRIPTION_SQL_WRITER,
        pending=None,
        clock=clock,
        settings=CheckSettings(**({"grace_s": GRACE_S} | settings)),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, {}), ({}, {"createdAt": datetime_from_us(1)}), ({}, None)],
    ids=["created", "changed", "deleted"],
)
async def test_what_is_delivered_within_the_grace_is_late_and_no_difference(
    world: World, before: dict[str, object] | None, after: dict[str, object] | None
) -> None:
    """Lag is never reported as a mismatch, whatever it is that is late."""
    if before is not None:
        await world.write(EDGE, before)
        await world.catch_up()
    await world.write(EDGE, after)
    clock = Meanwhile(world.catch_up)
    found = await checked(world, clock)
    assert found.is_clean
    assert (found.mismatch_count, found.late_count) == (0, 1)
    assert clock.waited_s < GRACE_S


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, {}, MismatchKind.MISSING_ROW),
        ({}, {"createdAt": datetime_from_us(1)}, MismatchKind.OLDER_ROW),
        ({}, None, MismatchKind.ROW_OF_GONE_DOCUMENT),
    ],
    ids=["created", "changed", "deleted"],
)
async def test_what_is_never_delivered_is_a_difference_after_the_grace(
    world: World,
    before: dict[str, object] | None,
    after: dict[str, object] | None,
    kind: MismatchKind,
) -> None:
    """A loss must not hide for ever behind a trigger that may still come."""
    if before is not None:
        await world.write(EDGE, before)
        await world.catch_up()
    await world.write(EDGE, after)
    clock = Meanwhile()
    found = await checked(world, clock)
    assert [(m.kind, m.path) for m in found.mismatches] == [(kind, EDGE)]
    assert found.late_count == 0
    assert clock.waited_s == pytest.approx(GRACE_S)


async def test_a_commit_as_old_as_the_grace_is_not_waited_for(world: World) -> None:
    """A check that finds a thousand old losses must not wait at each of them."""
    await world.write(EDGE, {})
    clock = Meanwhile()
    found = await checked(world, clock, grace_s=0.000_001)
    assert [m.kind for m in found.mismatches] == [MismatchKind.MISSING_ROW]
    assert clock.waited_s == 0.0


async def test_a_dual_write_that_its_trigger_mends_later_is_late(world: World) -> None:
    """Versions are equal, contents differ: the client did not know what the server made of it."""
    at_us = await world.write(EDGE, {"createdAt": datetime_from_us(5)})
    fields = encode_fields({"createdAt": datetime_from_us(4)})
    change = Change(
        path=EDGE,
        version=version_of(at_us, is_deleted=False),
        origin=Origin.DUAL_WRITE,
        observed_at_us=at_us,
        fields=fields,
        digest=digest_of(fields),
    )
    message = message_of(change, "FollowEdge", SOURCE, run="dual")
    await world.mirror.apply([world.decoder.decode(message)])
    found = await checked(world, Meanwhile(world.catch_up))
    assert found.is_clean
    assert found.late_count == 1


async def test_a_document_that_changes_while_it_is_waited_for_gets_a_grace_of_its_own(
    world: World,
) -> None:
    """The second change may be late as well."""
    await world.write(EDGE, {})

    async def change_unheard() -> None:
        await world.write(EDGE, {"createdAt": datetime_from_us(1)})

    async def nothing() -> None: ...

    # 34 looks at the row fill the first grace.
    clock = Meanwhile(change_unheard, *[nothing] * 34, world.catch_up)
    found = await checked(world, clock)
    assert found.is_clean
    assert found.late_count == 1
    assert clock.waited_s > GRACE_S


async def test_a_document_that_always_changes_unheard_is_not_called_equal(world: World) -> None:
    """Each change is young, and none is delivered: neither lag nor loss was shown."""
    await world.write(EDGE, {})
    numbers = iter(range(1, 1_000))

    async def change_unheard() -> None:
        await world.write(EDGE, {"createdAt": datetime_from_us(next(numbers))})

    with pytest.raises(CheckIncomplete, match=f"1 documents changed at every look.*{EDGE}"):
        await checked(world, Meanwhile(*[change_unheard] * 500), max_rounds=2)


async def test_lateness_of_one_does_not_hide_the_loss_of_another(world: World) -> None:
    """Both are looked at in the same rounds, and judged apart."""
    await world.write(EDGE, {})
    await world.write(OTHER, {})
    await world.publish()
    deliveries = await world.consumer.receive(10, max_wait_s=0.0)
    [lost] = [d for d in deliveries if d.message.properties["path"] == OTHER]
    await world.consumer.complete([lost])
    [late] = [d for d in deliveries if d is not lost]
    await world.consumer.complete([late])

    async def deliver() -> None:
        await world.mirror.apply([world.decoder.decode(late.message)])

    found = await checked(world, Meanwhile(deliver))
    assert [(m.kind, m.path) for m in found.mismatches] == [(MismatchKind.MISSING_ROW, OTHER)]
    assert found.late_count == 1


async def test_a_store_that_can_tell_what_is_pending_needs_no_grace(world: World) -> None:
    """There the backlog is waited for, and what differs then was lost."""
    await world.write(EDGE, {})
    async with world.store.outbox_batch():
        pass
    found = await world.check()
    assert [m.kind for m in found.mismatches] == [MismatchKind.MISSING_ROW]
