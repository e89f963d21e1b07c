"""`storemirror rebase` by its command, a process of its own that is killed on the way."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from storemirror.clock import EPOCH
from storemirror.event.value import encode_fields
from storemirror.source.port import Write
from storemirror.sql.postgres.connection import DOCUMENTS, Database
from tests.acceptance.conftest import Operator, going_command
from tests.support.restores import back_up, restore

pytestmark = pytest.mark.postgres


async def write(operator: Operator, *writes: Write) -> None:
    """Commit without any trigger hearing of it."""
    async with operator.parts() as parts:
        store = await parts.embedded_store()
        await store.commit(writes)
        async with store.outbox_batch():
            pass


@contextlib.asynccontextmanager
async def documents(operator: Operator) -> AsyncIterator[Database]:
    database = Database(operator.environment["STOREMIRROR_DOCUMENTS_DSN"], DOCUMENTS, max_size=2)
    await database.open()
    yield database
    await database.aclose()


def a_block(number: int, at: datetime | None = None) -> Write:
    return Write(path=f"users/u{number}/blocks/v", fields=encode_fields({"createdAt": at}))


@pytest.fixture
async def restored(deployed: Operator) -> Operator:
    """Blocks of which some were changed and added after a backup, which then was restored."""
    await write(deployed, *(a_block(number) for number in range(10)))
    assert (await deployed.runs("backfill", "--yes", "--direct")).status == 0
    async with documents(deployed) as database:
        async with database.connection() as conn:
            await back_up(conn)
        changed = [a_block(number, EPOCH) for number in range(3)]
        await write(deployed, *changed, a_block(90), a_block(91))
        assert (await deployed.runs("backfill", "--yes", "--direct")).status == 0
        async with database.connection() as conn:
            await restore(conn)
    return deployed


#: Held, they keep a rebase from setting its mark, and from reading a document after that.
MARKING = b"SELECT pg_advisory_xact_lock(1)"
READING = b"LOCK TABLE documents.document IN ACCESS EXCLUSIVE MODE"


@contextlib.asynccontextmanager
async def holding(database: Database, lock: bytes) -> AsyncIterator[None]:
    async with database.transaction() as conn:
        await conn.execute(lock)
        yield


async def killed_at(operator: Operator, words: str) -> None:
    """Run the command, and kill it when it has said these words; locks keep it where it is."""
    async with operator.parts() as parts:
        # What the restore left to be indexed takes the lock of the mark as well.
        await (await parts.embedded_store()).prepare()
    async with documents(operator) as database, contextlib.AsyncExitStack() as held:
        marking = await held.enter_async_context(contextlib.AsyncExitStack())
        await marking.enter_async_context(holding(database, MARKING))
        process = await held.enter_async_context(
            going_command(
                "rebase", "--yes", environment=operator.environment, folder=operator.folder
            )
        )
        assert process.stderr is not None
        async for line in process.stderr:
            if words in line.decode():
                process.send_signal(signal.SIGKILL)
                break
            if b"the bus is purged" in line:
                await held.enter_async_context(holding(database, READING))
                await marking.aclose()
        await process.communicate()
    assert process.returncode == -signal.SIGKILL


async def test_a_restore_is_said_and_a_rebase_priced(restored: Operator) -> None:
    """The operator reads what happened, which command mends it, and what that costs."""
    check = await restored.runs("check")
    assert check.status == 1
    assert "3 documents older than the row" in check.out
    assert "storemirror rebase" in check.out
    planned = await restored.runs("rebase", "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert planned.json()["step"] is None
    # Four counts, ten documents and three empty kinds, twice.
    assert planned.json()["estimate"]["reads"] == 4 + 2 * (10 + 3)
    unasked = await restored.runs("rebase")
    assert unasked.status == 2
    assert "--yes" in unasked.err
    off = await restored.runs("rebase", "--yes", USE_SQL_DM_WRITE_MIRROR="false")
    assert off.status == 7


async def test_one_command_mends_it(restored: Operator) -> None:
    """Beside it only the writers run; here the drainer does their work."""
    done = await restored.runs("rebase", "--yes")
    assert done.status == 0, done.err
    assert "writers wait" in done.err
    assert "2 deletes" in done.out
    assert (await restored.runs("drain")).json()["applied"] == 2
    after = await restored.runs("check")
    assert after.status == 0, after.out


@pytest.mark.parametrize("words", ["the mirror is closed", "the mirror is open"])
async def test_a_rebase_that_was_killed_goes_on_by_the_same_command(
    words: str, restored: Operator
) -> None:
    """SIGKILL leaves no time to open the mirror again; the next run must."""
    await killed_at(restored, words)
    meanwhile = await restored.runs("check")
    assert meanwhile.status == 3
    assert "is under way" in meanwhile.err
    drained = await restored.runs("drain", "--max-seconds", "1")
    assert drained.status == 0, drained.err
    done = await restored.runs("rebase", "--yes", "--json")
    assert done.status == 0, done.err
    assert "begun before" in done.err
    assert done.json()["is_finished"] is True


async def test_ctrl_c_ends_the_wait_for_writers(restored: Operator) -> None:
    """No writer runs, so that the second reading waits: whoever gives up must not wait on."""
    async with restored.parts() as parts:
        await (await parts.embedded_store()).commit([a_block(50)])
    wish = ("rebase", "--yes", "--drain-seconds", "120")
    async with going_command(
        *wish, environment=restored.environment, folder=restored.folder
    ) as process:
        assert process.stderr is not None
        async for line in process.stderr:
            if "every document was read once" in line.decode():
                process.send_signal(signal.SIGINT)
                break
        out, _ = await process.communicate()
    assert process.returncode == 130
    assert b"the same command goes on" in out


async def test_reads_that_run_out_leave_the_mirror_open(restored: Operator) -> None:
    """The bill is bounded, and the same command goes on."""
    first = await restored.runs("rebase", "--yes", "--max-reads", "10", "--json")
    assert first.status == 1, first.err
    assert first.json()["step"] == "opened"
    assert first.json()["read_count"] <= 10
    assert (await restored.runs("rebase", "--yes")).status == 0


async def test_a_rebase_of_an_older_schema_is_refused(restored: Operator) -> None:
    """Its procedures would let writers in."""
    async with restored.parts() as parts:
        database = (await parts.rebase_ledger())._database  # type: ignore[attr-defined]
        async with database.connection() as conn:
            await conn.execute(
                "UPDATE storemirror.schema_info SET schema_version = schema_version - 1"
            )
    assert (await restored.runs("rebase", "--dry-run")).status == 0
    refused = await restored.runs("rebase", "--yes")
    assert refused.status == 6
    assert "schema apply" in refused.err
    assert (await restored.runs("schema", "apply")).status == 0
    assert (await restored.runs("rebase", "--yes")).status == 0
