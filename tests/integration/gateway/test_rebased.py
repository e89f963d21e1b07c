"""While a rebase is under way nobody is served by rows of the undone time (#7)."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest

from storemirror.clock import SystemClock
from storemirror.gateway.port import ReadMode
from storemirror.sql.port import RebaseStep
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import (
    UNHURRIED,
    CallFailed,
    another_gateway,
    running_gateway,
)

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
LIST = "sqlGatewayDmListConversations"
MARK = {RebaseStep.MARKED: SystemClock().now_us()}


@pytest.mark.parametrize("last", [s for s in RebaseStep if s is not RebaseStep.DONE], ids=str)
async def test_firestore_serves_until_a_rebase_is_done(
    last: RebaseStep, new_database: NewDatabase, issuer: JwkIssuer
) -> None:
    """From the opening on the mirror takes events, and still has rows that nobody looked at."""
    settings = {**UNHURRIED, "STOREMIRROR_GATEWAY_READ_MODE": ReadMode.SQL.value}
    async with running_gateway(new_database, issuer, settings) as before:
        ledger = await before.parts.rebase_ledger()
        steps, place = list(RebaseStep), list(RebaseStep).index(last)
        await ledger.close("r1")
        for after, to in itertools.pairwise(steps[: place + 1]):
            await ledger.advance("r1", after=after, to=to, mark_us=MARK.get(to))
        async with another_gateway(before, {}) as world:
            assert (await world.call("ann", LIST))["source"] == "firestore"
            assert world.gateway.status()["fallbacks"] == {"schema-unverified": 1}
        alone = {"STOREMIRROR_GATEWAY_READ_MODE": ReadMode.SQL_ONLY.value}
        async with another_gateway(before, alone) as world:
            with pytest.raises(CallFailed, match="UNAVAILABLE"):
                await world.call("ann", LIST)
        for after, to in itertools.pairwise(steps[place:]):
            await ledger.advance("r1", after=after, to=to, mark_us=MARK.get(to))
        async with another_gateway(before, {}) as world:
            assert (await world.call("ann", LIST))["source"] == "sql"
