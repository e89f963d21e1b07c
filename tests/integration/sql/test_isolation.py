"""PostgreSQL only: the isolation level that the procedures rest on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import DatabaseRefused
from storemirror.model.load import load_model
from storemirror.sql.postgres.connection import psycopg, sql
from tests.support.events import written
from tests.support.mirrors import installed_mirror

pytestmark = pytest.mark.postgres


async def test_a_snapshot_older_than_the_locks_is_refused(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Under REPEATABLE READ a row could be judged by what it was before its lock was had."""
    model = load_model()
    event = written(model, "FollowEdge", ("a", "b"), SystemClock().now_us() - 1_000_000)
    dsn = await new_database()
    async with installed_mirror(model, dsn) as installed:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        await installed.execute(
            sql.SQL(
                "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'"
            ).format(sql.Identifier(str(name)))
        )
    # Connections of the old pool keep the level they were made with.
    async with installed_mirror(model, dsn) as installed:
        with pytest.raises(DatabaseRefused, match="under READ COMMITTED, not repeatable read"):
            await installed.mirror.apply([event])
        assert await installed.mirror.row(event.entity, event.key) is None
