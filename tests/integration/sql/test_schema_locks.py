"""`schema apply` stands in nobody's way for long, and says who stands in its own, on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import SchemaLocked
from storemirror.model.load import load_model
from storemirror.sql.patience import LockPatience
from storemirror.sql.plan import SchemaPlan
from storemirror.sql.postgres.connection import MIRROR, Connection, Database
from storemirror.sql.postgres.schema import PostgresSchema
from tests.integration.sql.test_deploy_script import catalogue, run_psql
from tests.support.mirrors import PROJECT, STORE, MirrorUnderTest, installed_mirror

pytestmark = pytest.mark.postgres

DUMP = "a dump"
BRIEF = LockPatience(wait_s=0.05, pause_s=0.0, try_count=2)


@pytest.fixture
async def under_test(
    new_database: Callable[[], Awaitable[str]],
) -> AsyncIterator[MirrorUnderTest]:
    """A mirror that is installed."""
    async with installed_mirror(load_model(), await new_database()) as made:
        yield made


@contextlib.asynccontextmanager
async def dumping(under_test: MirrorUnderTest, *statements: bytes) -> AsyncIterator[Connection]:
    """Have a transaction that reads every message, as pg_dump's does for hours."""
    database = Database(under_test.dsn, MIRROR, max_size=1, application_name=DUMP)
    await database.open()
    async with database.transaction() as conn:
        for statement in statements or (b"SELECT count(*) FROM storemirror.dm_message",):
            await conn.execute(statement)
        yield conn
    await database.aclose()


class Freeing(SystemClock):
    """A clock whose sleeper lets a transaction end."""

    def __init__(self, held: contextlib.AsyncExitStack) -> None:
        self.held = held
        self.slept_count = 0

    async def sleep(self, duration_s: float) -> None:
        self.slept_count += 1
        await self.held.aclose()


def schema_of(
    under_test: MirrorUnderTest, database: Database, patience: LockPatience, clock: SystemClock
) -> PostgresSchema:
    """Make what applies, with as much patience."""
    return PostgresSchema(
        database,
        under_test.rendering,
        project=PROJECT,
        store=STORE,
        patience=patience,
        clock=clock,
    )


async def test_nothing_to_do_waits_for_nobody(under_test: MirrorUnderTest) -> None:
    """A pipeline applies at each deployment: readers queued behind it until the dump had ended."""
    told: list[SchemaPlan] = []
    impatient = Database(under_test.dsn, MIRROR, options="-c lock_timeout=1s")
    await impatient.open()
    schema = PostgresSchema(impatient, under_test.rendering, project=PROJECT, store=STORE)
    async with dumping(under_test):
        status = await schema.apply(on_planned=told.append)
    await impatient.aclose()
    assert told[0].is_empty
    assert status.differences == ()


async def test_a_change_gives_way_and_names_who_holds_the_table(
    under_test: MirrorUnderTest,
) -> None:
    """Waiting without end made every reader wait; without the name nobody knows whom to ask."""
    await under_test.execute("DROP INDEX storemirror.dm_message_purge")
    before = await under_test.schema.plan()
    schema = schema_of(under_test, under_test.database, BRIEF, SystemClock())
    async with dumping(under_test) as conn:
        with pytest.raises(SchemaLocked) as caught:
            await schema.apply()
        message = str(caught.value)
        assert f"session {conn.info.backend_pid} ({DUMP})" in message
    assert "nothing was changed" in message
    assert "count" not in message
    assert "run `storemirror schema apply` again" in caught.value.hint
    assert await under_test.schema.plan() == before
    await schema.apply()
    assert (await under_test.schema.plan()).is_empty


async def test_a_writer_that_stands_still_is_named(under_test: MirrorUnderTest) -> None:
    """The writers' lock is waited for first: every writer queued behind that as well."""
    await under_test.execute("DROP INDEX storemirror.dm_message_purge")
    schema = schema_of(under_test, under_test.database, BRIEF, SystemClock())
    lock = f"SELECT pg_advisory_xact_lock_shared({under_test.rendering.purge_lock})".encode()
    async with dumping(under_test, lock) as conn:
        with pytest.raises(SchemaLocked, match=rf"session {conn.info.backend_pid} \({DUMP}\)"):
            await schema.apply()


async def test_a_change_is_tried_again_once_the_dump_has_ended(
    under_test: MirrorUnderTest,
) -> None:
    """A report of some seconds is no reason for a deployment to fail."""
    await under_test.execute("DROP INDEX storemirror.dm_message_purge")
    told: list[SchemaPlan] = []
    async with contextlib.AsyncExitStack() as held:
        await held.enter_async_context(dumping(under_test))
        clock = Freeing(held)
        schema = schema_of(under_test, under_test.database, BRIEF, clock)
        status = await schema.apply(on_planned=told.append)
    assert clock.slept_count == 1
    assert len(told) == 1
    assert status.differences == ()
    assert (await under_test.schema.plan()).is_empty


async def test_what_was_changed_before_the_lock_is_told(under_test: MirrorUnderTest) -> None:
    """Tables come first, and stay; who reads "nothing was changed" would look no further."""
    await under_test.execute("DROP INDEX storemirror.dm_message_purge")
    await under_test.execute("DELETE FROM storemirror.schema_info")
    schema = schema_of(under_test, under_test.database, BRIEF, SystemClock())
    async with dumping(under_test, b"LOCK TABLE storemirror.schema_info IN EXCLUSIVE MODE"):
        with pytest.raises(SchemaLocked, match="tables and procedures are changed"):
            await schema.apply()
    await schema.apply()
    assert (await under_test.schema.plan()).is_empty


@pytest.mark.parametrize("is_writer", [False, True], ids=["a table", "the writers' lock"])
async def test_the_script_gives_way_and_names_who_stands_in_it(
    under_test: MirrorUnderTest, tmp_path: Path, *, is_writer: bool
) -> None:
    """It waited without end, and every reader behind it; who ran it saw nothing."""
    script = tmp_path / "brief.sql"
    script.write_text(under_test.rendering.deploy_sql(BRIEF))
    await under_test.execute("DROP INDEX storemirror.dm_message_purge")
    before = await catalogue(under_test.database)
    lock = f"SELECT pg_advisory_xact_lock_shared({under_test.rendering.purge_lock})".encode()
    async with dumping(under_test, *([lock] if is_writer else [])) as conn:
        run = run_psql(under_test.dsn, script=script)
        assert run.returncode != 0
        assert "the schema is in use: a lock was not given in 50 ms, at 2 tries" in run.stderr
        assert f"session {conn.info.backend_pid} ({DUMP})" in run.stderr
        assert "nothing was changed" in run.stderr
    assert await catalogue(under_test.database) == before
    run = run_psql(under_test.dsn)
    assert (run.returncode, run.stderr) == (0, "")
    assert (await under_test.schema.plan()).is_empty


async def test_the_script_has_the_patience_of_schema_apply(under_test: MirrorUnderTest) -> None:
    """Whoever deploys by script is in the same database, with the same users."""
    patience = LockPatience()
    script = under_test.rendering.deploy_sql()
    assert f"SET LOCAL lock_timeout = {patience.wait_ms};" in script
    assert f"FOR v_try IN 1 .. {patience.try_count} LOOP" in script
    assert f"PERFORM pg_sleep({patience.pause_s});" in script
    assert f"SET lock_timeout = {patience.build_wait_ms};" in script
