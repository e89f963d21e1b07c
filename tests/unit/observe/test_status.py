"""One snapshot of what the mirror is doing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message, Rejection, TopicSpec
from storemirror.clock import SystemClock
from storemirror.errors import BusRefused, DatabaseRefused, SqlUnavailable, StoreMirrorError
from storemirror.observe.status import read_status


async def test_a_snapshot_counts_what_waits_what_is_locked_and_what_is_dead() -> None:
    """Depth and dead letters are the two figures that the rollout watches."""
    clock = SystemClock()
    bus = MemoryBus(clock)
    admin, consumer = bus.admin(), bus.consumer(SUBSCRIPTION_SQL_WRITER)
    await admin.provision(TopicSpec())
    await bus.publisher().publish(
        [Message(message_id=str(n), body=b"{}", content_type="application/json") for n in range(5)]
    )
    first, second, _ = await consumer.receive(3, max_wait_s=0.0)
    await consumer.complete([first])
    await consumer.dead_letter([Rejection(delivery=second, reason="Poison", description="why")])

    status = await read_status(admin, SUBSCRIPTION_SQL_WRITER, clock)
    assert (status.depth, status.locked_count, status.completed_count) == (3, 1, 1)
    assert (status.dead_letter_count, status.acknowledged_count) == (1, 0)
    assert status.oldest_age_s is not None
    shown = json.loads(json.dumps(status.to_json()))
    assert shown["subscription"] == SUBSCRIPTION_SQL_WRITER
    assert shown["read_at"].endswith("Z")
    assert shown["unverified_count"] is None, "no mirror was named: not known is not none"


class Mirror:
    """Of a mirror what a snapshot asks for."""

    def __init__(self, told: int | StoreMirrorError) -> None:
        self._told = told

    async def unverified_count(self) -> int:
        if isinstance(self._told, StoreMirrorError):
            raise self._told
        return self._told


@pytest.mark.parametrize(
    ("told", "shown"),
    [(0, 0), (3, 3), (SqlUnavailable("gone"), None), (DatabaseRefused("x"), None)],
)
async def test_what_is_unverified_is_told_as_far_as_it_is_known(
    told: int | StoreMirrorError, shown: int | None
) -> None:
    """An outage of the mirror is when one looks at the bus; and a gate must not take it for 0."""
    bus = MemoryBus(SystemClock())
    await bus.admin().provision(TopicSpec())
    mirror: Any = Mirror(told)
    status = await read_status(bus.admin(), SUBSCRIPTION_SQL_WRITER, SystemClock(), mirror=mirror)
    assert status.unverified_count == shown


async def test_an_unknown_subscription_is_refused() -> None:
    """No figure is better than a zero that means nothing."""
    clock = SystemClock()
    bus = MemoryBus(clock)
    await bus.admin().provision(TopicSpec())
    with pytest.raises(BusRefused):
        await read_status(bus.admin(), "sql-wirter", clock)
