"""An index that takes another one's place is built once, before any lock; a crash costs no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SchemaLocked, SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.sql.patience import LockPatience
from storemirror.sql.port import SchemaStatus
from storemirror.sql.postgres.connection import MIRROR, Connection, Database
from storemirror.sql.postgres.schema import PostgresSchema
from tests.integration.sql.test_deploy_script import run_psql
from tests.integration.sql.test_latest_index import LATEST, NEXT, message, numbers
from tests.integration.sql.test_schema_locks import BRIEF, DUMP, dumping, schema_of
from tests.support.gates import until
from tests.support.mirrors import PROJECT, STORE, MirrorUnderTest

pytestmark = pytest.mark.postgres

DEPLOYING: Final = "a deployment"
#: Of the whole database as it was: what is built meanwhile is not whole before it has ended.
SNAPSHOT: Final = (
    b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    b"SELECT count(*) FROM pg_class",
)


@contextlib.asynccontextmanager
async def deploying(
    earlier: MirrorUnderTest, clock: SystemClock | None = None
) -> AsyncIterator[asyncio.Task[SchemaStatus]]:
    """Have a `schema apply` under way, in a session of its own."""
    database = Database(earlier.dsn, MIRROR, max_size=1, application_name=DEPLOYING)
    await database.open()
    schema = PostgresSchema(
        database, earlier.rendering, project=PROJECT, store=STORE, clock=clock or SystemClock()
    )
    task = asyncio.create_task(schema.apply())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.aclose()


async def wait_for_snapshots(
    earlier: MirrorUnderTest, task: asyncio.Task[Any], dump: Connection
) -> None:
    """Wait until the index is built, but for the dump's transaction."""
    waiting: Final = (
        "SELECT 1 FROM pg_stat_progress_create_index"
        " WHERE phase = 'waiting for old snapshots' AND current_locker_pid = %s"
    )

    async def is_waiting() -> bool:
        return bool(await earlier.database.fetch(waiting, (dump.info.backend_pid,)))

    assert await until(task, is_waiting)


async def under_way(earlier: MirrorUnderTest) -> tuple[str, ...]:
    """Give what `schema status` says of it."""
    return (await earlier.schema.status()).under_way


async def test_it_is_built_once_however_often_the_lock_is_refused(earlier: MirrorUnderTest) -> None:
    """Behind a dump each of ten tries built it, and took it back; so did the next apply."""
    schema = schema_of(earlier, earlier.database, BRIEF, SystemClock())
    async with dumping(earlier):
        with pytest.raises(SchemaLocked, match="nothing was changed"):
            await schema.apply()
        built = (await numbers(earlier))[NEXT]
        [told] = await under_way(earlier)
        assert f"{NEXT} is built" in told
        with pytest.raises(SchemaLocked):
            await schema.apply()
        assert (await numbers(earlier))[NEXT] == built
    await earlier.schema.apply()
    after = await numbers(earlier)
    assert after[LATEST] == built
    assert NEXT not in after
    assert await under_way(earlier) == ()


async def test_everybody_reads_and_writes_while_it_is_built(earlier: MirrorUnderTest) -> None:
    """Within the transaction of the tables every writer waited for the whole of it."""
    async with contextlib.AsyncExitStack() as held:
        conn = await held.enter_async_context(dumping(earlier, *SNAPSHOT))
        async with deploying(earlier) as task:
            await wait_for_snapshots(earlier, task, conn)
            [told] = await under_way(earlier)
            assert f"waiting for old snapshots of session {conn.info.backend_pid} ({DUMP})" in told
            assert await earlier.mirror.apply(message(earlier, "m", "u")) == [Outcome.APPLIED]
            await held.aclose()
            assert (await task).under_way == ()
    assert (await earlier.schema.plan()).is_empty


async def test_a_build_that_was_killed_is_begun_anew(earlier: MirrorUnderTest) -> None:
    """What it leaves is no index that answers anything, and has the right name and columns."""
    async with dumping(earlier, *SNAPSHOT) as conn, deploying(earlier) as task:
        await wait_for_snapshots(earlier, task, conn)
        left = (await numbers(earlier))[NEXT]
        await earlier.database.fetch(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            (DEPLOYING,),
        )
        with pytest.raises(SqlUnavailable):
            await task
    assert (await numbers(earlier))[NEXT] == left
    [told] = await under_way(earlier)
    assert "is not whole" in told
    await earlier.schema.apply()
    assert left not in (await numbers(earlier)).values()
    assert (await earlier.schema.plan()).is_empty
    assert await under_way(earlier) == ()


async def test_a_build_that_gives_up_names_whom_it_waited_for_and_leaves_nothing(
    earlier: MirrorUnderTest,
) -> None:
    """An index that is not whole costs each write its upkeep, and answers no read."""
    before = await numbers(earlier)
    impatient = LockPatience(wait_s=5.0, build_wait_s=0.05)
    schema = schema_of(earlier, earlier.database, impatient, SystemClock())
    async with dumping(earlier, *SNAPSHOT) as conn:
        with pytest.raises(SchemaLocked, match="nothing was changed") as caught:
            await schema.apply()
        assert f"session {conn.info.backend_pid} ({DUMP})" in str(caught.value)
    assert await numbers(earlier) == before
    await earlier.schema.apply()
    assert (await earlier.schema.plan()).is_empty


async def test_what_ended_after_the_swap_is_gone_on_from(earlier: MirrorUnderTest) -> None:
    """The tables are another transaction than what is registered; the index is with the tables."""
    await earlier.execute("DELETE FROM storemirror.schema_info")
    once = LockPatience(wait_s=2.0, try_count=1)
    schema = schema_of(earlier, earlier.database, once, SystemClock())
    async with dumping(earlier, b"LOCK TABLE storemirror.schema_info IN EXCLUSIVE MODE"):
        with pytest.raises(SchemaLocked, match="tables and procedures are changed"):
            await schema.apply()
    swapped = await numbers(earlier)
    assert NEXT not in swapped
    await earlier.schema.apply()
    assert await numbers(earlier) == swapped
    assert (await earlier.schema.plan()).is_empty


class Ending(SystemClock):
    """A clock whose first sleeper lets a transaction end."""

    def __init__(self, held: contextlib.AsyncExitStack) -> None:
        self.held = held

    async def sleep(self, duration_s: float) -> None:
        await self.held.aclose()
        await super().sleep(duration_s)


async def test_a_second_deployment_waits_and_stands_not_in_the_way_of_the_first(
    earlier: MirrorUnderTest,
) -> None:
    """Waiting within one statement it had a snapshot, for which the first one's build waits."""
    async with contextlib.AsyncExitStack() as held:
        conn = await held.enter_async_context(dumping(earlier, *SNAPSHOT))
        async with deploying(earlier) as first:
            await wait_for_snapshots(earlier, first, conn)
            async with deploying(earlier, Ending(held)) as second:
                assert (await second).differences == ()
                assert (await first).differences == ()
    assert (await earlier.schema.plan()).is_empty


async def test_the_script_ends_at_once_while_another_deployment_is_under_way(
    earlier: MirrorUnderTest,
) -> None:
    """It says so, and changes nothing."""
    before = await numbers(earlier)
    async with earlier.database.transaction() as conn:
        await conn.execute("SELECT pg_advisory_lock(%s)", (earlier.rendering.deploy_lock,))
        run = run_psql(earlier.dsn)
        await conn.execute("SELECT pg_advisory_unlock(%s)", (earlier.rendering.deploy_lock,))
    assert run.returncode != 0
    assert "another deployment into this schema is under way; nothing was changed" in run.stderr
    assert await numbers(earlier) == before


async def test_the_script_builds_anew_what_is_not_whole(earlier: MirrorUnderTest) -> None:
    """As `schema apply` does."""
    await earlier.execute(
        f"CREATE INDEX {NEXT} ON storemirror.dm_message"
        " (conversation_id, sent_at DESC, message_id DESC) INCLUDE (sender_id)"
        " WHERE row_state = 'live'"
    )
    await earlier.execute(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'storemirror.dm_message_latest_next'::regclass"
    )
    left = (await numbers(earlier))[NEXT]
    run = run_psql(earlier.dsn)
    assert (run.returncode, run.stderr) == (0, "")
    after = await numbers(earlier)
    assert left not in after.values()
    assert NEXT not in after
    assert (await earlier.schema.plan()).is_empty
