"""A purge that dies half way leaves too much, never too little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.event.change import Outcome, RowState
from storemirror.model.load import load_model
from tests.contract.sql.documents import Documents
from tests.support.mirrors import MirrorUnderTest, installed_mirror

pytestmark = pytest.mark.postgres

WAITING_PURGE = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL%%purge%%'"
    " AND datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
)


async def waiting_purge(under_test: MirrorUnderTest) -> int:
    """Give the process that purges, once it waits for a lock."""
    clock = SystemClock()
    async with asyncio.timeout(30):
        while not (found := await under_test.database.fetch(WAITING_PURGE)):
            await clock.sleep(0.005)
    return int(found[0][0])


async def test_a_killed_purge_has_raised_the_horizon_before(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Were the rows gone first, a late event would revive its document until the next purge."""
    model = load_model()
    docs = Documents(model, SystemClock().now_us() - 3_600_000_000)
    edge = model["FollowEdge"]
    async with installed_mirror(model, await new_database()) as under_test:
        await under_test.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 1)])
        await under_test.execute(
            "UPDATE storemirror.follow_edge SET applied_at = clock_timestamp() - interval '1 day'"
        )
        async with under_test.database.transaction() as conn:
            # A reader's row lock, of which the purge knows nothing: it waits in its DELETE.
            await conn.execute("SELECT 1 FROM storemirror.follow_edge FOR UPDATE")
            purging = asyncio.create_task(
                under_test.mirror.purge(edge, older_than_s=3_600, max_count=10)
            )
            pid = await waiting_purge(under_test)
            await under_test.database.fetch("SELECT pg_terminate_backend(%s)", (pid,))
            with pytest.raises(SqlUnavailable):
                await purging
        row = await under_test.mirror.row(edge, ("a", "b"))
        assert row is not None
        assert row.state is RowState.TOMBSTONE
        horizons = await under_test.database.fetch("SELECT entity FROM storemirror.purge_horizon")
        assert horizons == [("FollowEdge",)]
        # Writers are not held up by what it had locked, and the next purge goes through.
        assert await under_test.mirror.apply([docs.follow("a", "b", 1)]) == [Outcome.STALE]
        assert await under_test.mirror.purge(edge, older_than_s=3_600, max_count=10) == 1
