"""Whether SQL is this Firestore's mirror, and when that is looked at again."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from storemirror.errors import (
    RebaseUnderWay,
    SchemaBoundElsewhere,
    SqlUnavailable,
    StoreMirrorError,
)
from storemirror.gateway.schema_watch import LOOK_AGAIN_S, RETRY_S, SchemaWatch
from tests.contract.bus.clocks import ManualClock

WAITS_S = 5.0


class Schema:
    """What a look finds, and how often one was taken."""

    def __init__(self, error: StoreMirrorError | None = None) -> None:
        self.error = error
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_looked_at = asyncio.Event()
        self.look_count = 0
        self.clock = ManualClock()
        self.watch = SchemaWatch(self._verify, self.clock)

    async def _verify(self) -> None:
        self.look_count += 1
        self.is_looked_at.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def holds(self) -> bool:
        return await self.watch.holds(waits_s=WAITS_S)

    async def holds_after(self, passed_s: float) -> bool:
        """Let time pass, and tell what is known once the look that is due was taken."""
        self.clock.advance(passed_s)
        await self.holds()
        assert self.watch._looking is not None
        await self.watch._looking
        return await self.holds()


async def test_one_look_serves_all_who_wait_for_the_first() -> None:
    """It takes several round trips, and a gateway that starts has many callers at once."""
    schema = Schema()
    schema.gate.clear()
    asked = [asyncio.create_task(schema.holds()) for _ in range(3)]
    await schema.is_looked_at.wait()
    schema.gate.set()
    assert await asyncio.gather(*asked) == [True, True, True]
    assert schema.look_count == 1


async def test_a_mirror_that_is_rebased_is_none_until_that_is_done() -> None:
    """Unlike an outage it answers reads, with rows of the undone time (issue 7)."""
    schema = Schema()
    assert await schema.holds()
    schema.error = RebaseUnderWay("rebase r is under way")
    assert not await schema.holds_after(LOOK_AGAIN_S)
    schema.error = None
    assert await schema.holds_after(RETRY_S)


async def test_nobody_waits_longer_than_they_can() -> None:
    """A database that says nothing costs a caller its patience, and not more."""
    schema = Schema()
    schema.gate.clear()
    assert not await schema.watch.holds(waits_s=0.01)
    await schema.watch.aclose()


async def test_another_firestores_mirror_is_told_and_looked_at_again() -> None:
    """Somebody mends the address, or binds the schema, while the gateway runs."""
    schema = Schema(SchemaBoundElsewhere("this schema mirrors projects/other"))
    with capture_logs() as logs:
        assert not await schema.holds()
        assert not await schema.holds_after(RETRY_S)
        schema.error = None
        assert await schema.holds_after(RETRY_S)
    assert [log["event"] for log in logs] == [
        "gateway.schema_unverified",
        "gateway.schema_verified",
    ]
    assert "projects/other" in logs[0]["error"]


async def test_what_was_seen_is_looked_at_again_beside_the_calls() -> None:
    """The address may lead elsewhere after a failover; nobody waits for the look."""
    schema = Schema()
    assert await schema.holds()
    schema.clock.advance(LOOK_AGAIN_S / 2)
    assert await schema.holds()
    assert schema.look_count == 1
    schema.error = SchemaBoundElsewhere("this schema mirrors projects/other")
    assert not await schema.holds_after(LOOK_AGAIN_S)


@pytest.mark.parametrize("was_seen", [True, False])
async def test_an_outage_says_nothing_of_the_schema(was_seen: bool) -> None:
    """What was seen stands: reads have a breaker of their own."""
    schema = Schema()
    if was_seen:
        assert await schema.holds()
    schema.error = SqlUnavailable("planted")
    assert await schema.holds_after(LOOK_AGAIN_S) is was_seen
