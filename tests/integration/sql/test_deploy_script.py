"""What a database administrator runs with `psql` is what `storemirror schema apply` installs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storemirror.clock import SystemClock
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from storemirror.sql.postgres.connection import Database
from storemirror.sql.postgres.rendering import DEPLOY_FILE
from storemirror.sql.postgres.server import found_bin_dir
from tests.support.events import written
from tests.support.mirrors import PROJECT, STORE, MirrorUnderTest

pytestmark = pytest.mark.postgres

SCRIPT = Path(__file__).parents[3] / "deploy" / "postgresql" / DEPLOY_FILE

#: Everything in the schema that can differ: one row an object, name and definition.
CATALOGUE = """
SELECT 'routine ' || p.oid::regprocedure,
       concat_ws(' ', p.prokind, p.provolatile, p.proconfig, pg_get_function_arguments(p.oid),
                 p.prorettype::regtype, p.prosrc)
FROM pg_proc p WHERE p.pronamespace = 'storemirror'::regnamespace
UNION ALL
SELECT 'column ' || a.attrelid::regclass || '.' || a.attname,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation,
                 a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'storemirror'::regnamespace AND a.attnum > 0
UNION ALL
SELECT 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'storemirror'::regnamespace
UNION ALL
SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'storemirror'
UNION ALL
SELECT 'declaration ' || entity, mapping_revision || digest FROM storemirror.declaration
UNION ALL
SELECT 'info', concat_ws(' ', schema_version, project, database) FROM storemirror.schema_info
"""


def run_psql(
    dsn: str, *, project: str = PROJECT, script: Path = SCRIPT
) -> subprocess.CompletedProcess[str]:
    """Run the script as its first lines say."""
    named = os.environ.get("STOREMIRROR_TEST_POSTGRES_BIN")
    psql = found_bin_dir(Path(named) if named else None) / "psql"
    variables = ["-v", "ON_ERROR_STOP=1", "-v", f"project={project}", "-v", f"database={STORE}"]
    return subprocess.run(
        [psql, "--no-psqlrc", *variables, "-f", script, dsn],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[MirrorUnderTest]:
    """Connect to a database in which nothing is installed."""
    under_test = MirrorUnderTest(load_model(), dsn)
    await under_test.database.open()
    try:
        yield under_test
    finally:
        await under_test.database.aclose()


async def catalogue(database: Database) -> dict[str, str]:
    """Give every object in the schema with its definition."""
    return dict(await database.fetch(CATALOGUE))


def test_the_script_is_fresh() -> None:
    """An administrator reads it before running it: it must be what this code works on."""
    under_test = MirrorUnderTest(load_model(), "dbname=unused")
    rendered = under_test.rendering.files()
    assert rendered == {DEPLOY_FILE: SCRIPT.read_text()}, (
        "run `storemirror schema render --out deploy/postgresql`"
    )


async def test_the_script_installs_what_schema_apply_installs(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Two ways of deploying must not be two schemas."""
    async with (
        opened(await new_database()) as by_script,
        opened(await new_database()) as by_code,
    ):
        await by_code.schema.apply()
        run = run_psql(by_script.dsn)
        assert (run.returncode, run.stderr) == (0, "")
        assert await catalogue(by_script.database) == await catalogue(by_code.database)
        assert await by_script.schema.status() == await by_code.schema.status()
        # What the script shows at its end is what the runbook asks the administrator to see.
        for table in ("dm_conversation", "dm_message", "dm_message_audit", "follow_edge"):
            assert table in run.stdout


async def test_the_script_can_run_again_and_after_schema_apply(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """And a writer works on what it leaves."""
    async with opened(await new_database()) as under_test:
        await under_test.schema.apply()
        before = await catalogue(under_test.database)
        for _ in range(2):
            run = run_psql(under_test.dsn)
            assert (run.returncode, run.stderr) == (0, "")
        assert await catalogue(under_test.database) == before
        now_us = SystemClock().now_us()
        event = written(
            under_test.model, "DmMessage", ("c", "m"), now_us, senderId="u", sentAt=now_us
        )
        assert await under_test.mirror.apply([event]) == [Outcome.APPLIED]


async def test_the_script_refuses_another_firestore_and_changes_nothing(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """The administrator may have the wrong database open."""
    async with opened(await new_database()) as under_test:
        await under_test.schema.apply()
        await under_test.execute("DROP FUNCTION storemirror.upsert_dm_message")
        before = await catalogue(under_test.database)
        run = run_psql(under_test.dsn, project="other")
        assert run.returncode != 0
        assert "this schema mirrors project demo" in run.stderr
        assert await catalogue(under_test.database) == before


#: Tables made by hand that lack nothing which StoreMirror cannot add.
HAND_MADE = b"""
CREATE SCHEMA storemirror;
CREATE TABLE storemirror.dm_conversation (
    conversation_id text COLLATE "C" CONSTRAINT mine PRIMARY KEY, tenant text, title text
);
CREATE TABLE storemirror.dm_message (
    message_id text COLLATE "C" NOT NULL, conversation_id text COLLATE "C" NOT NULL, body text,
    UNIQUE (conversation_id, message_id)
);
INSERT INTO storemirror.dm_conversation VALUES ('c', 'acme', 'title');
INSERT INTO storemirror.dm_message VALUES ('m1', 'c', 'hello'), ('m2', 'c', NULL), ('m1', 'd', '');
"""


async def test_the_script_adopts_tables_as_schema_apply_does(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """Rows live at version 0, counts exact, the team's own column untouched."""
    async with (
        opened(await new_database()) as by_script,
        opened(await new_database()) as by_code,
    ):
        for under_test in (by_script, by_code):
            await under_test.execute(HAND_MADE)
        await by_code.schema.apply()
        run = run_psql(by_script.dsn)
        assert (run.returncode, run.stderr) == (0, "")
        assert await catalogue(by_script.database) == await catalogue(by_code.database)
        for under_test in (by_script, by_code):
            assert (await under_test.schema.plan()).is_empty
            assert await under_test.database.fetch(
                "SELECT conversation_id, tenant, row_state, last_event_version, message_count"
                " FROM storemirror.dm_conversation ORDER BY 1"
            ) == [("c", "acme", "live", 0, 2), ("d", None, "stub", 0, 1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            b"ALTER TABLE storemirror.dm_conversation DROP CONSTRAINT mine;"
            b" ALTER TABLE storemirror.dm_conversation ALTER conversation_id SET NOT NULL",
            "no unique key on (conversation_id)",
        ),
        (
            b'ALTER TABLE storemirror.dm_message ALTER message_id TYPE text COLLATE "POSIX"',
            "message_id may be NULL or is not compared byte by byte",
        ),
        (
            b"ALTER TABLE storemirror.dm_message ALTER body TYPE varchar(9)",
            "body is character varying, not text",
        ),
        (
            b"ALTER TABLE storemirror.dm_conversation ALTER tenant SET NOT NULL",
            "tenant is NOT NULL without a default",
        ),
    ],
    ids=["key", "collation", "type", "own column"],
)
async def test_the_script_refuses_tables_that_cannot_be_mirrored_into(
    change: bytes, words: str, new_database: Callable[[], Awaitable[str]]
) -> None:
    """It does not look before, so it takes everything back."""
    async with opened(await new_database()) as under_test:
        await under_test.execute(HAND_MADE)
        await under_test.execute(change)
        run = run_psql(under_test.dsn)
        assert run.returncode != 0
        assert words in run.stderr
        assert "storemirror schema diff" in run.stderr
        assert (await under_test.schema.plan()).is_refused
        found = await under_test.database.fetch("SELECT to_regclass('storemirror.schema_info')")
        assert found == [(None,)]
