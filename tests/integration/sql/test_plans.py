"""Plans made while the tables were small do not scan them once they are large."""

from __future__ import annotations

import pytest

from storemirror.clock import SystemClock
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents
from tests.support.databases import Databases
from tests.support.mirrors import MirrorUnderTest, new_mirror
from tests.support.planted import plant

pytestmark = pytest.mark.postgres

#: Rows that the procedures reach by key; children and audit among them.
ROW_COUNT = 20_000
TABLES = (
    "dm_conversation",
    "dm_participant",
    "dm_message",
    "dm_message_audit",
    "follow_edge",
    "user_block",
)


async def scanned(under_test: MirrorUnderTest) -> dict[str, tuple[int, int]]:
    """Give for each table how often it was scanned, and how many entries its indexes gave."""
    await under_test.database.fetch("SELECT pg_stat_force_next_flush()")
    found = await under_test.database.fetch(
        "SELECT t.relname, t.seq_scan, coalesce(sum(i.idx_tup_read), 0)::bigint"
        " FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)"
        " WHERE t.schemaname = 'storemirror' GROUP BY t.relname, t.seq_scan"
    )
    return {name: (scans, entries) for name, scans, entries in found if name in TABLES}


def mixed(docs: Documents, number: int, at: int) -> list[RowEvent]:
    """A few events of each procedure."""
    c, m = f"c{number}", f"m{number}"
    return [
        docs.conversation(c, at, participants={"a": None, f"u{number}": None}),
        docs.message(c, m, at),
        docs.follow(c, m, at),
        docs.block(c, m, at),
        docs.gone("DmMessage", (c, "gone"), at),
        docs.gone("DmConversation", (f"d{number}",), at),
        docs.gone("FollowEdge", (c, "gone"), at),
        docs.gone("UserBlock", (c, "gone"), at),
    ]


async def fill(under_test: MirrorUnderTest) -> None:
    """Put rows into every table, past the procedures, and leave no statistics of them."""
    for statement in (
        "INSERT INTO storemirror.dm_conversation (conversation_id, row_state)"
        " SELECT 'x' || n, 'stub' FROM generate_series(1, %s) AS n",
        "INSERT INTO storemirror.dm_participant (conversation_id, user_id)"
        " SELECT 'x' || n, 'u' FROM generate_series(1, %s) AS n",
        "INSERT INTO storemirror.dm_message"
        " (conversation_id, message_id, row_state, mapping_revision, sender_id, sent_at)"
        " SELECT 'x' || n %% 2000, n, 'live', 1, 'u', clock_timestamp()"
        " FROM generate_series(1, %s) AS n",
        "INSERT INTO storemirror.dm_message_audit"
        " SELECT 'x' || n %% 2000, n, n, n, 't', clock_timestamp()"
        " FROM generate_series(1, %s) AS n",
        "INSERT INTO storemirror.follow_edge (follower_id, followee_id, row_state)"
        " SELECT 'x' || n, 'y', 'live' FROM generate_series(1, %s) AS n",
        "INSERT INTO storemirror.user_block (blocker_id, blocked_id, row_state)"
        " SELECT 'x' || n, 'y', 'live' FROM generate_series(1, %s) AS n",
    ):
        await under_test.execute(statement.replace(" % 2000", " %% 2000"), (ROW_COUNT,))


async def work_done(under_test: MirrorUnderTest) -> tuple[dict[str, int], dict[str, int]]:
    """Let plans be cached on empty tables, fill these, and work on.

    Gives for each table how often it was scanned since, and how many entries indexes gave.
    """
    docs = Documents(under_test.model, SystemClock().now_us() - 3_600_000_000)
    for table in TABLES:
        await under_test.execute(f"ALTER TABLE storemirror.{table} SET (autovacuum_enabled = off)")
    # More often than it takes for a plan to be cached.
    for number in range(12):
        await under_test.mirror.apply(mixed(docs, number, 1))
        await under_test.mirror.apply([docs.message(f"c{number}", "alone", 1)])
    await fill(under_test)
    before = await scanned(under_test)
    for number in range(10):
        batch = mixed(docs, 100 + number, 1)
        assert set(await under_test.mirror.apply(batch)) == {Outcome.APPLIED}
        await under_test.mirror.apply([docs.message(f"x{number}", "more", 9)])
    after = await scanned(under_test)
    return (
        {table: after[table][0] - before[table][0] for table in TABLES},
        {table: after[table][1] - before[table][1] for table in TABLES},
    )


async def test_plans_of_empty_tables_do_not_scan_full_ones(
    new_database: Databases,
) -> None:
    """Seen without it: 42,000 rows scanned a batch, for ever, as the plan is cached."""
    async with new_mirror(load_model(), new_database) as under_test:
        scans, entries = await work_done(under_test)
    assert scans == dict.fromkeys(TABLES, 0)
    # A scan of a whole index would be no better than one of the table.
    assert 0 < sum(entries.values()) < ROW_COUNT, entries


async def test_without_pinned_plans_the_scans_are_seen(
    new_database: Databases,
) -> None:
    """Else the test above would hold for counters that count nothing."""
    async with new_mirror(load_model(), new_database) as under_test:
        await plant(
            under_test,
            ("SET enable_seqscan = off", ""),
            ("SET enable_hashjoin = off", ""),
            ("SET enable_mergejoin = off", ""),
        )
        scans, _ = await work_done(under_test)
    assert sum(scans.values()) > 0
