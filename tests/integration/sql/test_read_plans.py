"""What users read is found by index, whatever the tables held when the plans were made."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import pytest

from storemirror.clock import SECOND_US, datetime_from_us
from storemirror.model.load import load_model
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.reads import PostgresReads, reading_database
from storemirror.sql.reads import Place
from tests.support.databases import Databases
from tests.support.mirrors import SCHEMA, MirrorUnderTest, new_mirror

pytestmark = pytest.mark.postgres

CONVERSATION_COUNT: Final = 2_000
MESSAGE_COUNT: Final = 100_000
#: Conversations that "me" takes part in.
OWN_COUNT: Final = 40
PAGE: Final = 20
VACUUM_TIMEOUT_S: Final = 60
#: When the first message was sent; the others follow, a second apart.
BEGIN_US: Final = 1_700_000_000_000_000
BEGIN: Final = "to_timestamp(1700000000)"
#: Somewhere in the middle of a conversation, and of the inbox.
PLACE: Final[Place] = (BEGIN_US + MESSAGE_COUNT // 2 * SECOND_US, "m")
INBOX_PLACE: Final[Place] = (BEGIN_US + 98_030 * SECOND_US, "c")

#: Every conversation has two participants and fifty messages; the first ones are also "me"'s.
FILL: Final = (
    "INSERT INTO storemirror.dm_conversation"
    " (conversation_id, row_state, mapping_revision, title, created_at, message_count,"
    " last_message_id, last_message_at, last_message_preview)"
    f" SELECT 'c' || n, 'live', 1, 'title', {BEGIN}, 50, 'm' || 98000 + n,"
    f" {BEGIN} + (98000 + n) * interval '1 second', 'hello'"
    f" FROM generate_series(1, {CONVERSATION_COUNT}) AS n",
    "INSERT INTO storemirror.dm_participant (conversation_id, user_id)"
    f" SELECT 'c' || n, u || mod(n, 500) FROM generate_series(1, {CONVERSATION_COUNT}) AS n,"
    " unnest(ARRAY['a', 'b']) AS u",
    "INSERT INTO storemirror.dm_participant (conversation_id, user_id, last_read_at)"
    f" SELECT 'c' || n, 'me', {BEGIN} + 60000 * interval '1 second'"
    f" FROM generate_series(1, {OWN_COUNT}) AS n",
    "INSERT INTO storemirror.dm_message"
    " (conversation_id, message_id, row_state, mapping_revision, sender_id, body, sent_at)"
    f" SELECT 'c' || 1 + mod(n - 1, {CONVERSATION_COUNT}), 'm' || n, 'live', 1,"
    f" 'a' || mod(1 + mod(n - 1, {CONVERSATION_COUNT}), 500), 'hello',"
    f" {BEGIN} + n * interval '1 second'"
    f" FROM generate_series(1, {MESSAGE_COUNT}) AS n",
    "INSERT INTO storemirror.follow_edge (follower_id, followee_id, row_state)"
    " SELECT 'a' || n, 'b' || n, 'live' FROM generate_series(1, 20000) AS n",
    "INSERT INTO storemirror.user_block (blocker_id, blocked_id, row_state)"
    " SELECT 'a' || n, 'b' || n, 'live' FROM generate_series(1, 20000) AS n",
    # Of others' conversations, and of one of "me" that is old by now.
    "INSERT INTO storemirror.unverified_document (message_id, reason, version)"
    " SELECT 'unfit:x' || n, 'MappingFailed', 2 FROM generate_series(1, 20000) AS n"
    " UNION ALL SELECT 'unfit:c7', 'MappingFailed', -1",
)
TABLES: Final = (
    *("dm_conversation", "dm_participant", "dm_message", "follow_edge", "user_block"),
    "unverified_document",
)


async def inbox_but_unfit(reads: PostgresReads, user: str) -> None:
    """Read as after a page that lacked a conversation."""
    newest, behind = reads.statements.inbox_but_unfit
    given: dict[str, object] = {"viewer": user, "count": PAGE + 1}
    await reads._database.fetch_prepared(newest, given)
    place = {"at": datetime_from_us(INBOX_PLACE[0]), "id": INBOX_PLACE[1]}
    await reads._database.fetch_prepared(behind, given | place)


async def every_read(reads: PostgresReads, user: str = "me", conversation: str = "c7") -> None:
    """Run each statement that there is."""
    entity = load_model()["DmMessage"]
    await reads.inbox(user, older_than=None, limit=PAGE)
    await reads.inbox(user, older_than=INBOX_PLACE, limit=PAGE)
    await inbox_but_unfit(reads, user)
    await reads.messages(user, conversation, limit=PAGE)
    await reads.messages(user, conversation, older_than=PLACE, limit=PAGE)
    await reads.messages(user, conversation, newer_than=PLACE, limit=PAGE)
    await reads.relationship(user, "a1")
    await reads.version_of(entity, (conversation, "m7"))


def arguments(place: Place) -> Mapping[str, sql.Composable]:
    """Give what a parameter of a prepared statement is given, by its name."""
    return {
        "viewer": sql.Literal("me"),
        "target": sql.Literal("a1"),
        "conversation": sql.Literal("c7"),
        "count": sql.Literal(PAGE + 1),
        "at": sql.SQL("to_timestamp({})").format(place[0] // SECOND_US),
        "id": sql.Literal(place[1]),
        "k0": sql.Literal("c7"),
        "k1": sql.Literal("m7"),
    }


async def plans_of(database: Database, reads: PostgresReads) -> dict[str, Mapping[str, Any]]:
    """Run each statement as it was prepared on the only connection, and give its plan."""
    prepared = await database.fetch("SELECT statement, name FROM pg_prepared_statements")
    names: dict[str, str] = dict(prepared)
    statements = reads.statements
    found = {}
    for what, statement in {
        "inbox": statements.inbox[0],
        "inbox behind": statements.inbox[1],
        "inbox but unfit": statements.inbox_but_unfit[0],
        "inbox but unfit behind": statements.inbox_but_unfit[1],
        "newest": statements.messages[None],
        "older": statements.messages[False],
        "newer": statements.messages[True],
        "relationship": statements.relationship,
        "version": statements.version_of(load_model()["DmMessage"]),
    }.items():
        given = arguments(INBOX_PLACE if "inbox" in what else PLACE)
        order = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement.decode())))
        text = statement.decode()
        for number, name in enumerate(order, start=1):
            text = text.replace(f"%({name})s", f"${number}")
        call = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {} ({})").format(
            sql.Identifier(names[text]), sql.SQL(", ").join(given[name] for name in order)
        )
        [([plan],)] = await database.fetch(call)
        found[what] = plan["Plan"]
    return found


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Walk a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def scans(plan: Mapping[str, Any]) -> set[str]:
    """Give the indexes that are searched, and whatever else is read in its own words."""
    return {
        node["Index Name"] if is_search(node) else f"{node['Node Type']} {node.get('Alias', '')}"
        for node in nodes(plan)
        if "Scan" in node["Node Type"] and "Plans" not in node
    }


def unwanted(plans: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Give for each statement what it reads otherwise than it should."""
    found = {what: scans(plan) - WANTED[what] for what, plan in plans.items()}
    return {what: read for what, read in found.items() if read}


def is_search(node: Mapping[str, Any]) -> bool:
    """Tell whether an index is gone into by a key; without one all of it is read."""
    return node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" in node


def row_count(plan: Mapping[str, Any]) -> int:
    """Count the rows that were looked at."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes(plan)
        if "Scan" in node["Node Type"] and "Plans" not in node
    )


def fetched_count(plan: Mapping[str, Any]) -> int:
    """Count the rows that were fetched for the unread count, whose index holds all it asks."""
    [counted] = [
        n for n in nodes(plan) if n.get("Index Name") == "dm_message_latest" and "Filter" in n
    ]
    assert counted["Node Type"] == "Index Only Scan"
    return int(counted["Heap Fetches"])


def block_count(plan: Mapping[str, Any]) -> int:
    """Count the pages of tables and indexes that were looked at."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


INBOX: Final = {
    *("dm_participant_by_user_id", "dm_participant_pkey"),
    *("dm_conversation_pkey", "dm_message_pkey", "dm_message_latest"),
    "unverified_document_pkey",
}
#: A participant is found by both parts of its key, in either order.
TALK: Final = INBOX - {"dm_message_pkey"}
#: Statement -> the indexes that it may search.
WANTED: Final[Mapping[str, set[str]]] = {
    "inbox": INBOX,
    "inbox behind": INBOX,
    "inbox but unfit": INBOX,
    "inbox but unfit behind": INBOX,
    "newest": TALK,
    "older": TALK,
    "newer": TALK,
    "relationship": {"follow_edge_pkey", "user_block_pkey"},
    "version": {"dm_message_pkey"},
}


@pytest.fixture
async def under_test(
    new_database: Databases,
) -> AsyncIterator[MirrorUnderTest]:
    """A mirror without rows, whose statistics nobody gathers."""
    async with new_mirror(load_model(), new_database) as made:
        for table in TABLES:
            alter = sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)")
            await made.execute(alter.format(sql.Identifier(SCHEMA, table)))
        yield made


@contextlib.asynccontextmanager
async def reading(under_test: MirrorUnderTest, database: Database) -> AsyncIterator[PostgresReads]:
    """Prepare every statement on one connection while the tables are empty; then fill them."""
    await database.open()
    try:
        reads = PostgresReads(database, under_test.rendering)
        await every_read(reads)
        for statement in FILL:
            await under_test.execute(statement)
        yield reads
    finally:
        await database.aclose()


async def test_reads_of_full_tables_search_indexes_alone(under_test: MirrorUnderTest) -> None:
    """By plans that were made on empty tables, and by those that statistics make anew."""
    database = reading_database(under_test.dsn, max_size=1)
    async with reading(under_test, database) as reads:
        before = await plans_of(database, reads)
        for table in TABLES:
            await under_test.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(SCHEMA, table)))
        after = await plans_of(database, reads)
    assert unwanted(before) == {}
    assert unwanted(after) == {}


async def test_an_inbox_costs_no_more_than_its_user_s_own(under_test: MirrorUnderTest) -> None:
    """The rows that are looked at are as many without everybody else's 98,000 messages."""
    database = reading_database(under_test.dsn, max_size=1)
    async with reading(under_test, database) as reads:
        among_all = await plans_of(database, reads)
        for table in ("dm_message", "dm_participant", "dm_conversation"):
            await under_test.execute(
                sql.SQL(
                    "DELETE FROM {} WHERE conversation_id NOT IN"
                    " (SELECT 'c' || n FROM generate_series(1, %s) AS n)"
                ).format(sql.Identifier(SCHEMA, table)),
                (OWN_COUNT,),
            )
        alone = await plans_of(database, reads)
    inboxes = ("inbox", "inbox behind")
    counts = {what: row_count(among_all[what]) for what in inboxes}
    assert counts == {what: row_count(alone[what]) for what in inboxes}
    # Each of the user's conversations, and of a page's the unread messages and participants.
    assert all(PAGE < count <= 2 * OWN_COUNT + (PAGE + 1) * 25 for count in counts.values()), counts
    # Each row lies in a page of the table, below a few pages of an index.
    assert all(block_count(among_all[what]) <= 5 * counts[what] for what in inboxes)
    # Besides a page: the conversation, its mark, the participant, one more, and what lies around.
    assert all(row_count(among_all[what]) <= PAGE + 6 for what in ("newest", "older", "newer"))


async def test_unread_messages_are_counted_in_the_index(under_test: MirrorUnderTest) -> None:
    """A message's row lies in a page of its own, and a page of an inbox has hundreds unread."""
    database = reading_database(under_test.dsn, max_size=1)
    async with reading(under_test, database) as reads:
        await vacuum_messages(under_test)
        vacuumed = await plans_of(database, reads)
        await under_test.execute("UPDATE storemirror.dm_message SET body = 'changed'")
        changed = await plans_of(database, reads)
    inboxes = ("inbox", "inbox behind")
    assert {what: fetched_count(vacuumed[what]) for what in inboxes} == dict.fromkeys(inboxes, 0)
    # A row of a conversation or of others lies below three pages at most; unread ones lie in one.
    assert all(block_count(vacuumed[what]) <= OWN_COUNT * 5 + (PAGE + 1) * 16 for what in inboxes)
    # Until the next VACUUM it is no worse than it was without the sender.
    assert all(PAGE < fetched_count(changed[what]) <= (PAGE + 1) * 25 * 2 for what in inboxes)


async def vacuum_messages(under_test: MirrorUnderTest) -> None:
    """Let no page be left that somebody may see otherwise; whoever has an old snapshot ends."""
    unseen = "SELECT relallvisible < relpages FROM pg_class WHERE relname = 'dm_message'"
    async with asyncio.timeout(VACUUM_TIMEOUT_S):
        while True:
            await under_test.execute("VACUUM storemirror.dm_message")
            if await under_test.database.fetch(unseen) == [(False,)]:
                return


async def test_without_the_settings_tables_are_scanned(under_test: MirrorUnderTest) -> None:
    """Else the tests above would hold for plans that say nothing."""
    plain = Database(
        under_test.dsn, MIRROR, max_size=1, session={"plan_cache_mode": "force_generic_plan"}
    )
    async with reading(under_test, plain) as reads:
        found = await plans_of(plain, reads)
    assert "Seq Scan" in str(unwanted(found)["inbox"])
    assert row_count(found["inbox"]) > CONVERSATION_COUNT
