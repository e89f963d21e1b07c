"""
PostgreSQL only: what the procedures ask of the transaction that calls them.

SQL Server's adapter says its level at every connection, and knows no answer before the commit;
what snapshots for readers change there is seen in tests/integration/sqlserver/test_snapshots.py.
"""

from __future__ import annotations

import json

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from storemirror.sql.postgres.batch import BatchEncoder
from storemirror.sql.postgres.connection import psycopg, sql
from storemirror.sql.postgres.mirror import PostgresMirror
from tests.support.databases import Databases
from tests.support.events import written
from tests.support.mirrors import PROJECT, STORE, installed_mirror, new_mirror

pytestmark = pytest.mark.postgres


async def test_a_snapshot_older_than_the_locks_is_refused(new_database: Databases) -> None:
    """Under REPEATABLE READ a row could be judged by what it was before its lock was had."""
    async with (
        new_mirror(load_model(), new_database) as installed,
        installed.database.connection() as conn,
    ):
        await conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.Error, match="under READ COMMITTED, not repeatable read"):
            await conn.execute(
                "SELECT * FROM storemirror.upsert_follow_edge(%s::jsonb)", (json.dumps([{}]),)
            )
        await conn.execute("ROLLBACK")


async def test_another_default_of_the_database_makes_no_difference(
    new_database: Databases,
) -> None:
    """Administrators set defaults; the mirror says itself what it needs."""
    model = load_model()
    event = written(model, "FollowEdge", ("a", "b"), SystemClock().now_us() - 1_000_000)
    dsn = await new_database()
    name = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
    async with installed_mirror(model, dsn) as installed:
        await installed.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = serializable").format(
                name
            )
        )
    # Connections of the first pool keep the level they were made with.
    async with installed_mirror(model, dsn) as installed:
        assert await installed.mirror.apply([event]) == [Outcome.APPLIED]


async def test_rows_are_on_disk_before_their_events_are_settled(new_database: Databases) -> None:
    """With asynchronous commit a crash could take rows whose events are gone from the bus."""
    async with new_mirror(load_model(), new_database) as installed:
        async with installed.database.transaction() as conn:
            await conn.execute("SET LOCAL synchronous_commit = off")
            now_us = SystemClock().now_us() - 1_000_000
            event = written(installed.model, "FollowEdge", ("a", "b"), now_us)
            revisions = {entity.name: 1 for entity in installed.model}
            batch = BatchEncoder(installed.model, revisions).events_json([event])
            await conn.execute("SELECT * FROM storemirror.upsert_follow_edge(%s::jsonb)", (batch,))
            setting = await (await conn.execute("SHOW synchronous_commit")).fetchone()
        assert setting == ("on",)


async def test_a_lock_that_nobody_lets_go_of_does_not_hold_up_a_lane_for_ever(
    new_database: Databases,
) -> None:
    """A stalled session, or a connection cut without a word, looks just like this."""
    model = load_model()
    now_us = SystemClock().now_us() - 1_000_000
    event = written(model, "FollowEdge", ("a", "b"), now_us)
    async with new_mirror(model, new_database) as installed:
        impatient = PostgresMirror(
            installed.database,
            installed.rendering,
            project=PROJECT,
            store=STORE,
            apply_timeout_s=0.3,
        )
        await impatient.verify_schema()
        async with installed.database.transaction() as stalled:
            await stalled.execute("LOCK TABLE storemirror.follow_edge IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(SqlUnavailable, match="written or not is unknown"):
                await impatient.apply([event])
        assert await installed.mirror.apply([event]) == [Outcome.APPLIED]
