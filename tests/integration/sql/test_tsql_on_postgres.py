"""What is rendered for SQL Server does what PostgreSQL's procedures do; see tests/standins/tsql."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storemirror.clock import EPOCH
from storemirror.event.change import Origin
from storemirror.model.entity import Entity, Model
from storemirror.model.load import load_model
from storemirror.sql.names import snake_case
from storemirror.sql.port import RowEvent
from tests.standins.tsql.server import Thrown
from tests.support.babelfish import kept_name
from tests.support.declarations import EVERY_KIND
from tests.support.events import deleted, written
from tests.support.mirrors import MirrorUnderTest, installed_mirror
from tests.support.tsql_events import events_json, keys_json
from tests.support.tsql_mirrors import SCHEMA, TsqlMirror, tsql_mirror

BEGIN_US = 1_700_000_000_000_000
BEGIN = EPOCH + timedelta(microseconds=BEGIN_US)
META = (
    *("row_state", "last_event_id", "last_event_type", "last_event_time", "last_event_version"),
    *("last_event_origin", "last_event_digest", "mapping_revision"),
)
NewDatabase = Callable[[], Awaitable[str]]


@contextlib.asynccontextmanager
async def both(
    new_database: NewDatabase, **options: Any
) -> AsyncIterator[tuple[MirrorUnderTest, TsqlMirror]]:
    """Have both dialects' procedures side by side in one database."""
    model, dsn = load_model(), await new_database()
    async with installed_mirror(model, dsn) as postgres:
        with tsql_mirror(model, dsn, **options) as tsql:
            yield postgres, tsql


def tables_of(entity: Entity) -> Iterator[tuple[str, list[str]]]:
    """Give each table of an entity with the columns to compare, as PostgreSQL spells both."""
    keys = [snake_case(part.name) for part in entity.keys]
    columns = [c.name for c in (*entity.columns, *entity.rollup_columns)]
    columns += [c.name for c in entity.derived]
    yield snake_case(entity.name), [*keys, *META, *map(snake_case, columns)]
    for child in entity.children:
        names = (child.key.name, *(c.name for c in child.columns))
        yield snake_case(child.name), [*keys, *map(snake_case, names)]
    if entity.has_audit:
        audit = ("last_event_version", "last_event_id", "last_event_type", "last_event_time")
        yield f"{snake_case(entity.name)}_audit", [*keys, *audit]


def rows_of(conn: psycopg.Connection[Any], table: str, columns: Sequence[str]) -> list[Any]:
    """Read a table; without the stubs of which nothing is told, which SQL Server needs not make."""
    query = f"SELECT {', '.join(columns)} FROM {table}"
    rows = [tuple(map(_plain, row)) for row in conn.execute(query.encode()).fetchall()]
    stubs = [row for row in rows if "stub" in row and not any(row[len(columns) - 5 :])]
    return sorted((row for row in rows if row not in stubs), key=repr)


def _plain(value: object) -> object:
    """Make times of both kinds, and JSON of both, alike."""
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    return json.dumps(value) if isinstance(value, list | dict) else value


def assert_alike(postgres: MirrorUnderTest, tsql: TsqlMirror) -> None:
    """Compare every table."""
    for entity in tsql.model:
        for table, columns in tables_of(entity):
            flat = [column.replace("_", "") for column in columns]
            expected = rows_of(tsql.conn, f"storemirror.{table}", columns)
            found = rows_of(tsql.conn, f"{SCHEMA}.{table.replace('_', '')}", flat)
            assert found == expected, table
    assert postgres.model is tsql.model


def clear(tsql: TsqlMirror) -> None:
    """Empty every table on both sides."""
    tables = [table for entity in tsql.model for table, _ in tables_of(entity)]
    for table in (*tables, "purge_horizon", "rebase"):
        own = "" if table in tables else "storemirror"
        tsql.conn.execute(f"DELETE FROM storemirror.{table}".encode())
        tsql.conn.execute(f"DELETE FROM {SCHEMA}.{own}{table.replace('_', '')}".encode())


def random_event(model: Model, luck: random.Random) -> RowEvent:
    """Make an event that meets others: few keys, few moments."""
    at_us = BEGIN_US + luck.randrange(1, 6)
    origin = luck.choice([*[Origin.TRIGGER] * 3, *[Origin.DUAL_WRITE] * 3, *Origin])
    seen = {Origin.TRIGGER, Origin.LISTENER, Origin.DUAL_WRITE}
    common: dict[str, Any] = {
        "origin": origin,
        "observed_at_us": at_us if origin in seen else BEGIN_US + luck.randrange(1, 8),
    }
    if origin is Origin.REPAIR and luck.random() < 0.5:
        common["expected_version"] = 2 * (BEGIN_US + luck.randrange(1, 6)) + luck.randrange(2)
    name = luck.choice([*["DmMessage"] * 4, *["DmConversation"] * 3, "FollowEdge"])
    first = f"c{luck.randrange(2)}"
    key = (first,) if name == "DmConversation" else (first, f"m{luck.randrange(3)}")
    if luck.random() < 0.3:
        return deleted(model, name, key, at_us, **common)
    return written(model, name, key, at_us, **common, **_contents(name, luck))


def _contents(name: str, luck: random.Random) -> dict[str, Any]:
    if name == "FollowEdge":
        return {"createdAt": luck.choice([None, BEGIN_US])}
    if name == "DmMessage":
        body = luck.choice([None, "hi", "hi ", "\U0001f600" * 141])
        return {"senderId": "s", "sentAt": BEGIN_US + luck.randrange(5), "body": body}
    users = luck.sample(["a", "b", "c", "d"], luck.randrange(4))
    read_at = {user: luck.choice([None, BEGIN_US + luck.randrange(3)]) for user in users}
    return {"createdAt": BEGIN_US, "title": luck.choice([None, "t"]), "participants": read_at}


def raise_marks(conn: psycopg.Connection[Any], luck: random.Random) -> None:
    """Let something have been purged, and commit times have gone backwards once, or not."""
    for is_there, mine, theirs in (
        (luck.random() < 0.5, "storemirrorpurgehorizon", "purge_horizon"),
        (luck.random() < 0.3, "storemirrorrebase", "rebase"),
    ):
        moment = BEGIN + timedelta(microseconds=luck.randrange(4))
        if not is_there:
            continue
        row = ("DmMessage",) if theirs == "purge_horizon" else ("r", "opened")
        names = "entity, horizon{}at" if theirs == "purge_horizon" else "run, step, mark{}at"
        for table, gap, value in (
            (f"{SCHEMA}.{mine}", "", moment.replace(tzinfo=None)),
            (f"storemirror.{theirs}", "_", moment),
        ):
            places = ", ".join(["%s"] * (len(row) + 1))
            query = f"INSERT INTO {table} ({names.format(gap)}) VALUES ({places})"
            conn.execute(query.encode(), (*row, value))


async def compare_histories(
    postgres: MirrorUnderTest, tsql: TsqlMirror, luck: random.Random, batch_count: int
) -> None:
    """Apply random batches on both sides, and compare all that comes of them after each."""
    clear(tsql)
    raise_marks(tsql.conn, luck)
    for _ in range(batch_count):
        batch = [random_event(tsql.model, luck) for _ in range(luck.randrange(10, 25))]
        batch += luck.choices(batch, k=2)
        expected = [outcome.value for outcome in await postgres.mirror.apply(batch)]
        assert tsql.apply(batch) == expected
        assert_alike(postgres, tsql)
    assert tsql.call("FindDmMessageRollupDifferences") == []


async def compare_many_histories(postgres: MirrorUnderTest, tsql: TsqlMirror) -> None:
    """Compare until something differs, if it does."""
    for seed in range(12):
        await compare_histories(postgres, tsql, random.Random(seed), batch_count=3)


@pytest.mark.parametrize(
    ("seed", "honours_hints"), [(0, True), (1, True), (2, True), (3, False)], ids=str
)
async def test_a_random_history_ends_as_in_postgresql(
    new_database: NewDatabase, seed: int, *, honours_hints: bool
) -> None:
    """Two dialects of one contract: every outcome, every row, every roll-up, every audit row."""
    async with both(new_database, honours_hints=honours_hints) as (postgres, tsql):
        await compare_histories(postgres, tsql, random.Random(seed), batch_count=4)


@pytest.mark.parametrize(
    "fault",
    [
        ("d._Version < e.LastEventVersion THEN", "d._Version <= e.LastEventVersion THEN"),
        ("WHEN e.LastEventOrigin = N'dual-write' THEN N'duplicate'", "WHEN 1 = 0 THEN N''"),
        ("ELSE f.[MessageCount] + c._Delta", "ELSE f.[MessageCount] + 1"),
        ("ORDER BY m.[SentAt] DESC, m.[MessageId] DESC", "ORDER BY m.[SentAt] DESC, m.[MessageId]"),
        ("WHERE w._Winner IS NOT NULL AND x._Row IS NULL", "WHERE 1 = 0"),
    ],
    ids=["version", "dual-write", "count", "latest", "children"],
)
async def test_a_planted_fault_is_found(new_database: NewDatabase, fault: tuple[str, str]) -> None:
    """Else histories that meet nothing would pass for a proof."""
    async with both(new_database, fault=fault) as (postgres, tsql):
        with pytest.raises(AssertionError):
            await compare_many_histories(postgres, tsql)


async def test_the_deployment_runs_again(new_database: NewDatabase) -> None:
    """It is idempotent, and an administrator need not know whether it ran."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        message = written(
            tsql.model, "DmMessage", ("c", "m"), BEGIN_US, senderId="s", sentAt=BEGIN_US
        )
        assert tsql.apply([message]) == ["applied"]
        tsql.deploy()
        assert tsql.apply([message]) == ["duplicate"]
        revisions = tsql.conn.execute(
            "SELECT DISTINCT mappingrevision FROM ms.storemirrordeclaration"
        )
        assert revisions.fetchall() == [(1,)]


async def test_the_deployment_knows_its_names_as_babelfish_keeps_them(
    new_database: NewDatabase,
) -> None:
    """Else it would make what is there a second time, and be refused."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        for table, name, is_index in named_of(tsql):
            what = f"INDEX {SCHEMA}.{name}" if is_index else f"TABLE {SCHEMA}.{table}"
            constraint = "" if is_index else f" CONSTRAINT {name}"
            renamed = f"ALTER {what} RENAME{constraint} TO {kept_name(name, table)}"
            tsql.conn.execute(renamed.encode())
        kept = named_of(tsql)
        assert any(is_index for _, _, is_index in kept)
        assert not all(is_index for _, _, is_index in kept)
        tsql.deploy()
        assert named_of(tsql) == kept


def named_of(tsql: TsqlMirror) -> list[tuple[str, str, bool]]:
    """Give table and name of indexes, and of the constraints that are never dropped."""
    return tsql.conn.execute(
        "SELECT tablename, indexname, true FROM pg_indexes"
        " WHERE schemaname = 'ms' AND indexname LIKE 'ix%'"
        " UNION ALL SELECT t.relname, c.conname, false FROM pg_constraint AS c"
        " JOIN pg_class AS t ON t.oid = c.conrelid"
        " WHERE c.contype = 'c' AND c.conname LIKE 'ck%rowstate%' ORDER BY 1, 2"
    ).fetchall()


async def test_a_table_that_was_there_is_adopted(new_database: NewDatabase) -> None:
    """Its rows are live, below every version; what belongs to them is made and counted."""
    tsql = TsqlMirror(load_model(), await new_database())
    try:
        tsql.conn.execute("""
            CREATE SCHEMA ms;
            CREATE TABLE ms.dmconversation (conversationid text COLLATE "C" PRIMARY KEY, own int);
            CREATE TABLE ms.dmmessage (
                conversationid text COLLATE "C", messageid text COLLATE "C", sentat timestamp(6),
                PRIMARY KEY (conversationid, messageid));
            CREATE TABLE ms.dmparticipant (
                conversationid text COLLATE "C", userid text COLLATE "C",
                PRIMARY KEY (conversationid, userid));
            INSERT INTO ms.dmconversation VALUES ('a', 7);
            INSERT INTO ms.dmmessage VALUES ('a', 'm', '2026-01-01'), ('b', 'm', '2026-01-02');
            INSERT INTO ms.dmparticipant VALUES ('c', 'u');
        """)
        tsql.deploy()
        found = tsql.conn.execute(
            "SELECT conversationid, rowstate, lasteventversion, messagecount, own,"
            " lastactivityat::date::text FROM ms.dmconversation ORDER BY 1"
        )
        assert found.fetchall() == [
            ("a", "live", 0, 1, 7, "2026-01-01"),
            ("b", "stub", 0, 1, None, "2026-01-02"),
            ("c", "live", 0, 0, None, None),
        ]
        message = written(tsql.model, "DmMessage", ("a", "m"), BEGIN_US, senderId="s", sentAt=0)
        assert tsql.apply([message]) == ["applied"]
    finally:
        tsql.conn.close()


async def test_damaged_aggregates_are_named_and_mended(new_database: NewDatabase) -> None:
    """A trailing space more is a difference, though SQL Server's `=` passes over it."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        message = written(
            tsql.model, "DmMessage", ("c", "m"), BEGIN_US, senderId="s", sentAt=BEGIN_US, body="hi"
        )
        tsql.apply([message])
        tsql.conn.execute(
            "UPDATE ms.dmconversation SET messagecount = 7, lastmessagepreview = 'hi '"
        )
        expected = [("c", "lastMessagePreview"), ("c", "messageCount")]
        assert tsql.call("FindDmMessageRollupDifferences") == expected
        assert tsql.call("FindDmMessageRollupDifferences", Limit=1) == expected[:1]
        assert tsql.call("RecomputeDmMessageRollup", Parents='[{"ConversationId": "d"}]') == [(0,)]
        assert tsql.call("RecomputeDmMessageRollup") == [(1,)]
        assert tsql.call("FindDmMessageRollupDifferences") == []


async def test_tombstones_go_behind_the_horizon(new_database: NewDatabase) -> None:
    """What is reported of them later is asked about again, not believed."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        tsql.apply([deleted(tsql.model, "FollowEdge", ("a", "b"), BEGIN_US)])
        tsql.conn.execute("UPDATE ms.followedge SET appliedat = appliedat - interval '1 hour'")
        tsql.server.locks.clear()
        assert tsql.call("PurgeFollowEdge", OlderThanSeconds=7200, MaxCount=5) == [(0,)]
        assert tsql.call("PurgeFollowEdge", OlderThanSeconds=600, MaxCount=5) == [(1,)]
        assert tsql.server.locks == [(tsql.rendering.purge_lock, "Exclusive")]
        assert tsql.apply([written(tsql.model, "FollowEdge", ("a", "b"), BEGIN_US)]) == ["expired"]


async def test_a_parent_is_purged_only_without_child_rows(new_database: NewDatabase) -> None:
    """Else its roll-up would begin at nothing once it comes back."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        message = written(
            tsql.model, "DmMessage", ("c", "m"), BEGIN_US, senderId="s", sentAt=BEGIN_US
        )
        tsql.apply([message])
        tsql.call("EnsureParents", Rows=keys_json(tsql.model, {"DmConversation": [("d",)]}))
        tsql.conn.execute("UPDATE ms.dmconversation SET appliedat = appliedat - interval '1 hour'")
        assert tsql.call("PurgeDmConversation", OlderThanSeconds=600, MaxCount=5) == [(1,)]
        left = tsql.conn.execute("SELECT conversationid FROM ms.dmconversation").fetchall()
        assert left == [("c",)]


async def test_how_two_users_stand_is_told_by_live_rows(new_database: NewDatabase) -> None:
    """A tombstone is no edge; and nobody is called by a name with a space behind it."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        tsql.apply(
            [
                written(tsql.model, "FollowEdge", ("a", "b"), BEGIN_US),
                deleted(tsql.model, "FollowEdge", ("b", "a"), BEGIN_US),
                written(tsql.model, "UserBlock", ("b", "a"), BEGIN_US),
            ]
        )
        stands = tsql.call("GetFollowRelationship", Viewer="a", Target="b")
        assert stands == [(True, False, False, True)]
        nobody = tsql.call("GetFollowRelationship", Viewer="a ", Target="b")
        assert nobody == [(False, False, False, False)]


def sound_event() -> dict[str, object]:
    """One event of FollowEdge that would be applied."""
    edge = written(load_model(), "FollowEdge", ("a", "b"), BEGIN_US)
    [event] = json.loads(events_json([edge]))
    found: dict[str, object] = event
    return found


@pytest.mark.parametrize(
    ("changed", "number", "words"),
    [
        ({"LastEventVersion": str(2**62)}, 51002, "more than 5 minutes in the future"),
        ({"LastEventId": None}, 51003, "lacks id, type"),
        ({"LastEventTime": None}, 51003, "lacks id, type"),
        ({"_Position": None}, 51003, "_Position"),
        ({"LastEventVersion": "21"}, 51003, "not of this procedure's verb"),
        ({"FollowerId": ""}, 51006, "key part"),
        ({"FollowerId": "a "}, 51006, "ends in a space"),
        ({"FollowerId": "a" * 129}, 51006, "longer than its column"),
    ],
)
async def test_an_unsound_event_is_refused(
    new_database: NewDatabase, changed: dict[str, object], number: int, words: str
) -> None:
    """By its number the adapter knows that the event is to blame, and nothing was written."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        events = json.dumps([sound_event() | changed])
        with pytest.raises(Thrown, match=words) as caught:
            tsql.call("UpsertFollowEdge", Events=events)
        assert caught.value.number == number
        assert tsql.conn.execute("SELECT count(*) FROM ms.followedge").fetchone() == (0,)


@pytest.mark.parametrize("events", ["[]", "{}", "no JSON", None, json.dumps([{}] * 1001)])
async def test_a_call_without_events_is_refused(
    new_database: NewDatabase, events: str | None
) -> None:
    """An empty or endless array is no call that a sound caller makes."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        with pytest.raises(Thrown, match="1 to 1,000 events") as caught:
            tsql.call("UpsertFollowEdge", Events=events)
        assert caught.value.number == 51003


async def test_two_events_at_one_place_are_refused(new_database: NewDatabase) -> None:
    """The order of outcomes would tell nothing."""
    twice = json.dumps([sound_event(), sound_event()])
    with (
        tsql_mirror(load_model(), await new_database()) as tsql,
        pytest.raises(Thrown, match="same _Position"),
    ):
        tsql.call("UpsertFollowEdge", Events=twice)


async def test_a_missing_parent_is_told(new_database: NewDatabase) -> None:
    """Its stub must be made in a transaction of its own first."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        message = written(
            tsql.model, "DmMessage", ("c", "m"), BEGIN_US, senderId="s", sentAt=BEGIN_US
        )
        with pytest.raises(Thrown, match="SM001: 1 of the parents in DmConversation") as caught:
            tsql.call("UpsertDmMessage", Events=events_json([message]))
        assert caught.value.number == 51001


@pytest.mark.parametrize("step", ["closed", "purged", "marked"])
async def test_a_closed_mirror_takes_no_event(new_database: NewDatabase, step: str) -> None:
    """Versions are set to 0 meanwhile: an older event could win."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        tsql.conn.execute("INSERT INTO ms.storemirrorrebase (run, step) VALUES ('r7', %s)", (step,))
        with pytest.raises(Thrown, match="rebase r7 is under way") as caught:
            tsql.call("UpsertFollowEdge", Events=json.dumps([sound_event()]))
        assert caught.value.number == 51005


async def test_another_firestore_or_a_later_version_is_not_registered(
    new_database: NewDatabase,
) -> None:
    """One mirror would be filled from two sides."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        made = tsql.rendering
        sound = {"Project": "demo", "StoreDatabase": "(default)", "SchemaVersion": 1}
        for changed, number in (
            ({"Project": "Demo"}, 51010),
            ({"StoreDatabase": "other"}, 51010),
            ({"SchemaVersion": 0}, 51011),
        ):
            with pytest.raises(Thrown) as caught:
                tsql.server.call(made.register_deployment, **(sound | changed), Declarations="[]")
            assert caught.value.number == number


async def test_every_kind_of_value_goes_in(new_database: NewDatabase, tmp_path: Path) -> None:
    """A column that is named or converted wrongly would show in no other test."""
    file = tmp_path / "every.toml"
    file.write_text(EVERY_KIND)
    with tsql_mirror(load_model([file]), await new_database()) as tsql:
        values: dict[str, object] = {
            "Text1": "t",
            "Order": None,
            "Another": "a ",
            "Position": str(-(2**63)),
            "Score": "1e+308",
            "IsOpen": True,
            "Select": "0001-01-01T00:00:00.000001Z",
            "Blob": "00ff",
            "Ref": "r",
            "Place": '{"latitude": 1}',
            "Anything": "3",
            "RawDocument": "{}",
            "Children": {
                "EveryTag": [{"Tag": "x"}, {"Tag": "x"}],
                "EveryMember": [{"MemberId": "m", "Blob": "01", "IsOn": False, "Count": "5"}],
            },
        }
        event = sound_event() | {"TenantId": "t", "EveryId": "e"} | values
        assert tsql.call("UpsertEvery", Events=json.dumps([event]))[0][1] == "applied"
        found = tsql.conn.execute(
            "SELECT text1, another, position, score, isopen, blob, anything, first, rawdocument"
            " FROM ms.every"
        )
        assert found.fetchall() == [
            ("t", "a ", -(2**63), 1e308, True, b"\x00\xff", "3", "a ", "{}")
        ]
        part = sound_event() | {"TenantId": "t", "EveryId": "e", "PartId": "p", "Rank": "r"}
        part |= {"Body": "123456789", "Blob": "02"}
        assert tsql.call("UpsertEveryPart", Events=json.dumps([part]))[0][1] == "applied"
        rolled = tsql.conn.execute(
            "SELECT partcount, lastpart, lastrank, lastbody, lastblob FROM ms.every"
        )
        assert rolled.fetchall() == [(1, "p", "r", "1234567", b"\x02")]
        counts = "SELECT (SELECT count(*) FROM ms.everytag), (SELECT count(*) FROM ms.everymember)"
        assert tsql.conn.execute(counts).fetchall() == [(1, 1)]
