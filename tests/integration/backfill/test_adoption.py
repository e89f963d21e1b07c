"""Tables that a team made itself become the mirror's, and end equal to the documents."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from storemirror.clock import datetime_from_us
from storemirror.event.change import RowState
from storemirror.model.load import load_model
from storemirror.sql.plan import Step
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import running_world
from tests.support.databases import Databases
from tests.support.mirrors import MirrorUnderTest

pytestmark = pytest.mark.postgres

#: A mirror as one makes it by hand: keys and some columns under our names, columns of its own.
HAND_MADE = b"""
CREATE SCHEMA storemirror;
CREATE TABLE storemirror.dm_conversation (
    conversation_id varchar(128) COLLATE "C" NOT NULL,
    tenant text NOT NULL DEFAULT 'main',
    title varchar(80),
    message_count integer,
    last_message_id text,
    CONSTRAINT conversations_pk PRIMARY KEY (conversation_id)
);
CREATE TABLE storemirror.dm_participant (
    conversation_id text COLLATE "C",
    user_id text COLLATE "C",
    role text DEFAULT 'member',
    PRIMARY KEY (conversation_id, user_id)
);
CREATE TABLE storemirror.dm_message (
    number bigserial PRIMARY KEY,
    conversation_id varchar(128) COLLATE "C" NOT NULL REFERENCES storemirror.dm_conversation,
    message_id varchar COLLATE "C" NOT NULL,
    sender_id text NOT NULL,
    body text,
    note_of_support text,
    UNIQUE (conversation_id, message_id)
);
CREATE TABLE storemirror.follow_edge (
    follower_id text NOT NULL,
    followee_id text NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (follower_id, followee_id)
);
INSERT INTO storemirror.dm_conversation (conversation_id, tenant, title, message_count)
VALUES ('c1', 'acme', 'old title', 7), ('c2', 'acme', 'gone', NULL);
INSERT INTO storemirror.dm_participant (conversation_id, user_id, role)
VALUES ('c1', 'ada', 'owner'), ('c1', 'left', 'member'), ('ghost', 'ada', 'owner');
INSERT INTO storemirror.dm_message (conversation_id, message_id, sender_id, body, note_of_support)
VALUES ('c1', 'm1', 'ada', 'old', 'seen'), ('c1', 'm2', 'ada', 'gone', NULL),
       ('c2', 'm1', 'bob', 'gone', NULL);
INSERT INTO storemirror.follow_edge (follower_id, followee_id)
VALUES ('ada', 'bob'), ('ada', 'Zoe'), ('bob', 'gone');
"""
#: What stands in the way, and what the word for harmless alterations does about it.
ALTERED = [
    "alter column dm_conversation.conversation_id type: text, compared byte by byte",
    "alter column dm_conversation.title type: text, may be NULL",
    "alter column dm_conversation.message_count type: bigint",
    "alter column dm_message.conversation_id type: text, compared byte by byte",
    "alter column dm_message.message_id type: text, compared byte by byte",
    "alter column dm_message.sender_id nullable: text, may be NULL",
    "alter column follow_edge.follower_id type: text, compared byte by byte",
    "alter column follow_edge.followee_id type: text, compared byte by byte",
]


@contextlib.asynccontextmanager
async def hand_made(dsn: str) -> AsyncIterator[MirrorUnderTest]:
    """Fill a database as a team would have, and connect to it."""
    under_test = MirrorUnderTest(load_model(), dsn)
    await under_test.database.open()
    try:
        await under_test.execute(HAND_MADE)
        yield under_test
    finally:
        await under_test.database.aclose()


@pytest.fixture
async def adopted(new_database: Databases, tmp_path: Path) -> AsyncIterator[BackfillWorld]:
    """A world whose mirror was made by hand, and adopted; its documents are those of `write`."""
    dsn = await new_database()
    async with hand_made(dsn) as under_test:
        await under_test.schema.apply(may_alter_columns=True)
    async with running_world(load_model(), new_database, adopted_dsn=dsn) as world:
        filled = BackfillWorld(world, tmp_path)
        await write(filled)
        yield filled


async def write(filled: BackfillWorld) -> None:
    """Give the documents that stand behind the rows, and some that have none; no trigger tells."""
    now = datetime_from_us(filled.world.clock.now_us())
    sent: dict[str, object] = {"senderId": "ada", "sentAt": now}
    people: dict[str, object] = {"participantIds": ["ada", "bob"], "createdAt": now}
    documents: dict[str, dict[str, object]] = {
        "conversations/c1": {"title": "new title", **people},
        "conversations/c3": {"title": "only here", **people},
        "conversations/c1/messages/m1": {"body": "new", **sent},
        "conversations/c1/messages/m3": {"body": "only here", **sent},
        "conversations/c4/messages/m1": {"body": "no parent", **sent},
        "users/ada/following/bob": {"createdAt": now},
        "users/ada/following/Zoe": {"createdAt": now},
        "users/ada/following/new": {"createdAt": now},
    }
    for path, document in documents.items():
        await filled.world.write(path, document)
    await filled.forget_outbox()


async def rows(under_test: MirrorUnderTest, query: str) -> list[tuple[Any, ...]]:
    """Read past the adapter."""
    return await under_test.database.fetch(query.encode())


async def test_the_plan_shows_an_adoption_before_it_is_done(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """A team reads what will happen to its tables, and what they lack, before anything does."""
    async with hand_made(await new_database()) as under_test:
        refused = await under_test.schema.plan()
        assert [r.column for r in refused.refusals] == [
            "conversation_id",
            "title",
            "message_count",
            "conversation_id",
            "message_id",
            "sender_id",
            "follower_id",
            "followee_id",
        ]
        plan = await under_test.schema.plan(may_alter_columns=True)
        assert not plan.is_refused
        assert [c.name for c in plan.changes if c.step is Step.ADOPT] == [
            "dm_conversation",
            "dm_message",
            "follow_edge",
        ]
        assert [str(c) for c in plan.changes if c.step is Step.ALTER] == ALTERED
        assert {b.check for b in plan.backfills} == {"conversations", "messages", "follow"}
        assert all(b.is_adoption for b in plan.backfills)
        assert "dm_message.note_of_support" in plan.kept
        added = [c.name for c in plan.changes if (c.step, c.kind) == (Step.ADD, "column")]
        assert "dm_message.sent_at" in added
        assert "follow_edge.row_state" in added
        assert await rows(under_test, "SELECT to_regclass('storemirror.schema_info')") == [(None,)]


async def test_adopted_rows_are_live_at_version_0_with_exact_roll_ups(
    adopted: BackfillWorld,
) -> None:
    """Everything that is ever reported of their documents is newer."""
    sql = adopted.world.sql
    found = await rows(
        sql,
        "SELECT conversation_id, row_state, last_event_version, message_count, tenant"
        " FROM storemirror.dm_conversation ORDER BY 1",
    )
    assert found == [
        ("c1", "live", 0, 2, "acme"),
        ("c2", "live", 0, 1, "acme"),
        # Its participants were there without it.
        ("ghost", "live", 0, 0, "main"),
    ]
    assert (await sql.schema.plan()).is_empty
    counts = await sql.schema.outdated_counts(max_count=100)
    assert counts == {"DmConversation": 3, "DmMessage": 3, "FollowEdge": 3, "UserBlock": 0}


async def test_backfill_and_reconcile_make_adopted_tables_equal(adopted: BackfillWorld) -> None:
    """The whole way: documents' contents, what is gone, what was never there; own columns stay."""
    world = adopted.world
    assert not (await world.check()).is_clean
    assert await adopted.backfill()
    await world.settle()
    reconciled = await adopted.reconcile()
    deleted = {check: counts.deleted_count for check, counts in reconciled.counts.items()}
    assert deleted == {"conversations": 2, "messages": 2, "follow": 1, "blocks": 0}
    await world.settle()
    assert (await world.check()).is_clean
    assert await world.mirror.rollup_differences(world.model["DmMessage"], limit=9) == []
    assert set((await world.sql.schema.outdated_counts(max_count=9)).values()) == {0}
    assert await rows(
        world.sql,
        "SELECT message_id, body, note_of_support, row_state FROM storemirror.dm_message"
        " WHERE conversation_id = 'c1' ORDER BY 1",
    ) == [
        ("m1", "new", "seen", "live"),
        ("m2", None, None, "tombstone"),
        ("m3", "only here", None, "live"),
    ]
    assert await rows(
        world.sql,
        "SELECT conversation_id, user_id, role FROM storemirror.dm_participant ORDER BY 1, 2",
    ) == [
        ("c1", "ada", "owner"),
        ("c1", "bob", "member"),
        ("c3", "ada", "member"),
        ("c3", "bob", "member"),
    ]
    assert await rows(world.sql, "SELECT count(imported_at) FROM storemirror.follow_edge") == [(4,)]
    stub = await world.mirror.row(world.model["DmConversation"], ("c4",))
    assert stub is not None
    assert (stub.state, stub.columns["messageCount"]) == (RowState.STUB, 1)


async def test_an_adoption_that_was_cut_short_is_finished_by_the_next(
    new_database: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are committed before roll-ups are computed; a crash in between must not last."""
    async with hand_made(await new_database()) as under_test:
        with monkeypatch.context() as patch:
            patch.setattr(under_test.rendering, "adopt_sql", lambda: "SELECT 1/0")
            with pytest.raises(Exception, match="division by zero"):
                await under_test.schema.apply(may_alter_columns=True)
        assert not (await under_test.schema.status()).is_installed
        again = await under_test.schema.plan()
        assert [c.name for c in again.changes if c.step is Step.RECOMPUTE] == ["DmMessage"]
        await under_test.schema.apply()
        counted = "SELECT message_count FROM storemirror.dm_conversation ORDER BY conversation_id"
        assert await rows(under_test, counted) == [(2,), (1,), (0,)]
