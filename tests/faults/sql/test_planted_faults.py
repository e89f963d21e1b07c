"""
Each rule of the procedures is seen to be guarded: without it, a small schedule ends otherwise.

A comparison that nobody has seen fail proves nothing; the one used here is the one that every test
of orders and concurrency ends with.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from storemirror.clock import SystemClock
from storemirror.event.change import Origin
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed
from tests.faults.sql.planted import FAULTS, POSTGRES
from tests.support.reference import Reference


def schedule(docs: Documents) -> list[Sequence[RowEvent]]:
    """A few documents, in an order that needs every rule."""
    t = docs.base_us
    return [
        [docs.message("c", "m1", 10), docs.message("c", "m2", 20), docs.message("c", "m0", 20)],
        [docs.message("c", "m1", 10), docs.message("c", "m1", 5, body="older")],
        [docs.conversation("c", 10, participants={"a": t, "b": None})],
        [docs.conversation("c", 15, participants={"a": t + 1, "e": None})],
        [docs.gone("DmMessage", ("c", "m2"), 20)],
        [docs.message("c", "m2", 20), docs.message("c", "m2", 15)],
        [docs.message("c", "m1", 30, sent=50), docs.message("c", "m1", 40, sent=2)],
        [docs.gone("DmConversation", ("c",), 15), docs.gone("DmMessage", ("d", "m"), 9)],
        [docs.message("d", "m", 9, origin=Origin.DUAL_WRITE), docs.message("c", "m0", 60)],
        [
            docs.message("c", "x", 70, body="sent", origin=Origin.DUAL_WRITE),
            docs.message("c", "x", 70, body="stored"),
            docs.message("c", "x", 70, body="repaired", origin=Origin.REPAIR),
        ],
        [docs.follow("late", "u", 1, observed=-10), docs.follow("a", "b", 1)],
    ]


async def is_found(sql: Installed) -> bool:
    """Run the schedule, and tell whether it ends otherwise than the reference."""
    docs = Documents(sql.model, SystemClock().now_us() - 3_600_000_000)
    reference = Reference(sql.model, horizon_us={"FollowEdge": docs.base_us})
    await sql.set_horizon(sql.model["FollowEdge"], docs.base_us)
    for batch in schedule(docs):
        if await differs(sql, reference, batch):
            return True
    # A damage for repairs to mend.
    for name in ("c", "d"):
        await sql.damage_rollup(sql.model["DmConversation"], (name,), "messageCount", 50)
    repairs = [
        docs.message("c", "m1", 40, sent=2, origin=Origin.REPAIR),
        docs.gone("DmMessage", ("d", "m"), 9, origin=Origin.REPAIR),
    ]
    return await differs(sql, reference, repairs)


async def differs(sql: Installed, reference: Reference, batch: Sequence[RowEvent]) -> bool:
    """Apply a batch on both sides, and tell whether outcomes or rows differ."""
    expected = reference.apply(batch)
    try:
        assert await sql.mirror.apply(batch) == expected
        await sql.assert_equal(reference)
    except (AssertionError, ValueError, msgspec.ValidationError):
        # The latter two: an outcome that there is not.
        return True
    return False


async def test_the_schedule_ends_as_the_reference_without_a_fault(sql: Installed) -> None:
    """Else every fault below would seem to be found."""
    assert not await is_found(sql)


@pytest.mark.parametrize("fault", POSTGRES)
async def test_a_planted_fault_is_found(fault: str, sql: Installed, dialect: str) -> None:
    """The comparison sees it."""
    await sql.plant(FAULTS[dialect][fault])
    assert await is_found(sql)
