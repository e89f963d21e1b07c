"""A purge that dies half way leaves too much, never too little."""

from __future__ import annotations

from storemirror.clock import SystemClock
from storemirror.event.change import Outcome, RowState
from storemirror.model.load import load_model
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Server

DAY_S = 86_400


async def test_a_killed_purge_has_raised_the_horizon_before(server: Server) -> None:
    """Were the rows gone first, a late event would revive its document until the next purge."""
    model = load_model()
    docs = Documents(model, SystemClock().now_us() - 3_600_000_000)
    edge, key = model["FollowEdge"], ("a", "b")
    under_test = await server.installed(model)
    await under_test.mirror.apply([docs.gone("FollowEdge", key, 1)])
    await under_test.age(edge, DAY_S)
    await under_test.kill_purge(edge, key, older_than_s=3_600)
    row = await under_test.mirror.row(edge, key)
    assert row is not None
    assert row.state is RowState.TOMBSTONE
    assert await under_test.horizon_us(edge) is not None
    # Writers are not held up by what it had locked, and the next purge goes through.
    assert await under_test.mirror.apply([docs.follow("a", "b", 1)]) == [Outcome.STALE]
    assert await under_test.mirror.purge(edge, older_than_s=3_600, max_count=10) == 1
