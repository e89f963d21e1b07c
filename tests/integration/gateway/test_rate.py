"""How often one caller may call: one client in a loop must not take the others' share."""

from __future__ import annotations

import asyncio

from storemirror.gateway.port import Caller
from storemirror.gateway.rate import SWEEP_INTERVAL_S, Rate
from tests.integration.receiver.hosted import ForwardClock


async def test_each_caller_has_a_count_of_their_own() -> None:
    """A user and a service of one name are two callers."""
    rate = Rate(2, ForwardClock())
    callers = [Caller(uid="u1"), Caller(uid="u2"), Caller(uid="u1", is_service=True)]
    taken = [[await rate.takes(caller) for _ in range(3)] for caller in callers]
    assert taken == [[True, True, False]] * 3


async def test_services_have_a_rate_of_their_own() -> None:
    """A service asks for all of its users: a user's rate would be spent at once (issue 7)."""
    rate = Rate(2, ForwardClock(), service_calls_per_minute=4)
    user, service = Caller(uid="u1"), Caller(uid="s1", is_service=True)
    assert [await rate.takes(user) for _ in range(3)] == [True, True, False]
    assert [await rate.takes(service) for _ in range(5)] == [True, True, True, True, False]


async def test_a_callable_may_have_a_rate_of_its_own() -> None:
    """Conversations fill others' inboxes: nobody opens hundreds a minute (issue 7)."""
    rate, ann = Rate(5, ForwardClock(), by_callable={"open": 2}), Caller(uid="u1")
    assert [await rate.takes(ann, "open") for _ in range(3)] == [True, True, False]
    assert await rate.takes(Caller(uid="u2"), "open")
    assert [await rate.takes(ann, "list") for _ in range(3)] == [True, True, False]


async def test_calls_at_a_time_are_all_counted() -> None:
    """None slips in between the count and the look at it."""
    rate = Rate(10, ForwardClock())
    taken = await asyncio.gather(*(rate.takes(Caller(uid="u1")) for _ in range(50)))
    assert taken.count(True) == 10


async def test_counts_are_swept_once_in_a_while() -> None:
    """At every call it would cost more than the call, once there are thousands of callers."""
    clock = ForwardClock()
    rate = Rate(1_000, clock)
    counts = rate.counts
    await rate.takes(Caller(uid="u1"))
    looked = counts.timer
    for n in range(100):
        await rate.takes(Caller(uid=f"u{n}"))
        assert counts.timer is looked
    for key in list(counts.expirations):
        counts.expirations[key] = 0.0
    clock.shift_s = SWEEP_INTERVAL_S
    await rate.takes(Caller(uid="u1"))
    assert counts.timer is not None
    await counts.timer
    assert len(counts.storage) == 1
    await rate.takes(Caller(uid="u1"))
    assert counts.timer is looked
