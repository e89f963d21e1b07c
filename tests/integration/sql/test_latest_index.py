"""The index that an inbox counts by takes the place of an earlier release's; nobody loses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import DatabaseRefused, EventRefused
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from storemirror.sql.plan import Step
from storemirror.sql.port import RowEvent
from tests.integration.sql.test_deploy_script import catalogue, run_psql
from tests.support.events import written
from tests.support.mirrors import MirrorUnderTest
from tests.support.tsql_mirrors import TsqlMirror, tsql_mirror

pytestmark = pytest.mark.postgres

LATEST: Final = "dm_message_latest"
#: What somebody builds before, with CONCURRENTLY.
NEXT: Final = "dm_message_latest_next"
ORDERED: Final = "storemirror.dm_message (conversation_id, sent_at DESC, message_id DESC)"
#: The same of SQL Server's, in the letters of PostgreSQL.
NEXT_THERE: Final = "ix_dmmessage_latest_next"
#: Ids that no index takes, for they do not compress: 2,704 bytes are the most.
LONG_ID: Final = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(1_500))


async def numbers(under_test: MirrorUnderTest) -> dict[str, int]:
    """Give the indexes of messages with the numbers that PostgreSQL knows them by."""
    query: Final = (
        "SELECT c.relname, c.oid::bigint FROM pg_index AS x JOIN pg_class AS c"
        " ON c.oid = x.indexrelid WHERE x.indrelid = 'storemirror.dm_message'::regclass"
    )
    return dict(await under_test.database.fetch(query))


def message(under_test: MirrorUnderTest, name: str, sender: str) -> list[RowEvent]:
    """Give the event of one message."""
    now_us = SystemClock().now_us()
    return [
        written(under_test.model, "DmMessage", ("c", name), now_us, senderId=sender, sentAt=now_us)
    ]


async def test_an_earlier_release_s_index_is_told_and_replaced(earlier: MirrorUnderTest) -> None:
    """And a writer of either release works before it and after."""
    assert (await earlier.schema.status()).differences == ()
    plan = await earlier.schema.plan()
    [change] = plan.changes
    assert (change.step, change.kind, change.name) == (Step.REPLACE, "index", LATEST)
    assert "including sender_id" in change.detail
    before = await numbers(earlier)
    await earlier.schema.apply()
    assert (await earlier.schema.plan()).is_empty
    after = await numbers(earlier)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {LATEST}
    assert await earlier.mirror.apply(message(earlier, "m", "u")) == [Outcome.APPLIED]


async def test_the_script_replaces_it_as_schema_apply_does(earlier: MirrorUnderTest) -> None:
    """Two ways of deploying must not be two schemas, on what is there already neither."""
    run = run_psql(earlier.dsn)
    assert (run.returncode, run.stderr) == (0, "")
    assert (await earlier.schema.plan()).is_empty
    before = await catalogue(earlier.database)
    await earlier.schema.apply()
    assert await catalogue(earlier.database) == before


async def test_an_index_that_was_built_before_is_taken(earlier: MirrorUnderTest) -> None:
    """Of a large table it is built with CONCURRENTLY, so that no writer waits meanwhile."""
    await earlier.execute(
        f"CREATE INDEX CONCURRENTLY {NEXT} ON {ORDERED} INCLUDE (sender_id)"
        " WHERE row_state = 'live'"
    )
    built = (await numbers(earlier))[NEXT]
    await earlier.schema.apply()
    after = await numbers(earlier)
    assert after[LATEST] == built
    assert NEXT not in after


@pytest.mark.parametrize(
    "definition",
    [
        pytest.param(f"{ORDERED} WHERE row_state = 'live'", id="without the sender"),
        pytest.param(f"{ORDERED} INCLUDE (sender_id)", id="of every row"),
        pytest.param(
            "storemirror.dm_message (conversation_id, sent_at DESC, message_id DESC, sender_id)"
            " WHERE row_state = 'live'",
            id="ordered by the sender",
        ),
    ],
)
async def test_what_was_built_otherwise_is_not_taken(
    earlier: MirrorUnderTest, definition: str
) -> None:
    """An index of the right name may be the wrong one, or what a build that failed has left."""
    await earlier.execute(f"CREATE INDEX {NEXT} ON {definition}")
    built = (await numbers(earlier))[NEXT]
    await earlier.schema.apply()
    assert (await earlier.schema.plan()).is_empty
    assert built not in (await numbers(earlier)).values()


async def test_a_message_whose_sender_no_index_takes_is_refused_alone(
    earlier: MirrorUnderTest,
) -> None:
    """It is set aside as an id that cannot be a key is; the mirror goes on."""
    await earlier.schema.apply()
    words = r"too long for an index .* size \d+ .* maximum 2704 for index \"dm_message_latest\""
    with pytest.raises(EventRefused, match=words) as caught:
        await earlier.mirror.apply(message(earlier, "odd", LONG_ID))
    assert LONG_ID[:9] not in str(caught.value)
    assert await earlier.mirror.apply(message(earlier, "m", "u")) == [Outcome.APPLIED]


async def test_a_row_whose_sender_no_index_takes_stops_the_change_and_loses_nothing(
    earlier: MirrorUnderTest,
) -> None:
    """The earlier index serves until somebody has decided about that row."""
    assert await earlier.mirror.apply(message(earlier, "odd", LONG_ID)) == [Outcome.APPLIED]
    before = await catalogue(earlier.database)
    with pytest.raises(DatabaseRefused, match=r"index row size .* exceeds"):
        await earlier.schema.apply()
    assert await catalogue(earlier.database) == before
    assert await earlier.mirror.apply(message(earlier, "m", "u")) == [Outcome.APPLIED]


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param("(conversationid, sentat DESC, messageid DESC)", id="without the sender"),
        pytest.param(
            "(conversationid, editedat DESC, messageid DESC) INCLUDE (senderid)", id="otherwise"
        ),
        pytest.param(
            "(conversationid, sentat DESC, messageid DESC) INCLUDE (senderid, body)", id="with more"
        ),
    ],
)
async def test_an_index_of_other_columns_is_replaced(
    new_database: Callable[[], Awaitable[str]], columns: str
) -> None:
    """An earlier release made one, which would fetch a row for each unread message."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        made = latest_of(tsql)
        tsql.deploy()
        assert latest_of(tsql) == made
        tsql.conn.execute("DROP INDEX ms.ix_dmmessage_latest")
        earlier = f"CREATE INDEX ix_dmmessage_latest ON ms.dmmessage {columns}"
        tsql.conn.execute(f"{earlier} WHERE rowstate = 'live'".encode())
        tsql.deploy()
        replaced = latest_of(tsql)
    assert replaced[1:] == made[1:]
    assert "INCLUDE (senderid)" in made[1]


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("", id="nothing"),
        pytest.param("(conversationid, sentat DESC, messageid DESC)", id="without the sender"),
        pytest.param(
            "(conversationid, sentat DESC, messageid DESC) INCLUDE (senderid)", id="of every row"
        ),
    ],
)
async def test_on_sql_server_it_is_built_once_and_swapped(
    new_database: Callable[[], Awaitable[str]], left: str
) -> None:
    """Whatever an earlier build has left, and at whatever step the deployment ended."""
    with tsql_mirror(load_model(), await new_database()) as tsql:
        wanted = latest_of(tsql)[1]
        earlier = "ms.dmmessage (conversationid, sentat DESC, messageid DESC)"
        tsql.conn.execute("DROP INDEX ms.ix_dmmessage_latest")
        tsql.conn.execute(
            f"CREATE INDEX ix_dmmessage_latest ON {earlier} WHERE rowstate = 'live'".encode()
        )
        if left:
            tsql.conn.execute(f"CREATE INDEX {NEXT_THERE} ON ms.dmmessage {left}".encode())
        serving = latest_of(tsql)
        tsql.server.install(tsql.rendering.next_indexes_batches())
        built = latest_of(tsql, NEXT_THERE)
        assert built[1] == wanted.replace("ix_dmmessage_latest", NEXT_THERE)
        # Ended here, and run again.
        tsql.server.install(tsql.rendering.next_indexes_batches())
        assert latest_of(tsql, NEXT_THERE) == built
        assert latest_of(tsql) == serving
        tsql.server.install(tsql.rendering.lock_tables_batches())
        tsql.server.install(tsql.rendering.indexes_batches())
        assert latest_of(tsql) == (built[0], wanted)
        # Ended here, and run again, all of it.
        tsql.server.install(tsql.rendering.next_indexes_batches())
        tsql.server.install(tsql.rendering.indexes_batches())
        tsql.deploy()
        assert latest_of(tsql) == (built[0], wanted)
        assert tsql.conn.execute(
            "SELECT to_regclass('ms.ix_dmmessage_latest_next')"
        ).fetchall() == [(None,)]


def latest_of(tsql: TsqlMirror, name: str = "ix_dmmessage_latest") -> tuple[int, str]:
    """Give the number and the definition of the index over the latest messages."""
    [found] = tsql.conn.execute(
        "SELECT to_regclass('ms.' || indexname)::oid::bigint, indexdef FROM pg_indexes"
        " WHERE schemaname = 'ms' AND indexname = %s",
        (name,),
    )
    return found[0], found[1]
