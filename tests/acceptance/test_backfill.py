"""Backfill and reconcile by their commands, each a process of its own."""

from __future__ import annotations

import signal

import pytest

from storemirror.event.value import encode_fields
from storemirror.source.port import Write
from tests.acceptance.conftest import Operator, going_command

pytestmark = pytest.mark.postgres


async def import_documents(operator: Operator, count: int) -> None:
    """Write as a managed import does: no trigger hears of it."""
    fields = encode_fields({"createdAt": None})
    async with operator.parts() as parts:
        store = await parts.embedded_store()
        await store.commit(
            [Write(path=f"users/u{n}/blocks/v", fields=fields) for n in range(count)]
        )
        async with store.outbox_batch():
            pass


async def remove_document(operator: Operator, path: str) -> None:
    async with operator.parts() as parts:
        store = await parts.embedded_store()
        await store.commit([Write(path=path, fields=None)])
        async with store.outbox_batch():
            pass


async def test_a_backfill_says_its_cost_and_makes_both_sides_agree(deployed: Operator) -> None:
    """The first command on a project that was there before the mirror."""
    await import_documents(deployed, 30)
    ended = await deployed.runs("backfill", "--yes", "--json")
    assert ended.status == 0, ended.err
    assert "$0.00 at $0.06 for 100,000" in ended.err
    assert ended.json()["is_finished"] is True
    assert ended.json()["published"] == ended.json()["document_count"] == 30
    assert (await deployed.runs("drain")).json()["applied"] == 30
    assert (await deployed.runs("check")).status == 0


async def test_a_backfill_straight_into_sql_needs_no_writer(deployed: Operator) -> None:
    """The bus stays free for what the app writes meanwhile."""
    await import_documents(deployed, 30)
    ended = await deployed.runs("backfill", "--yes", "--direct")
    assert ended.status == 0, ended.err
    assert "applied: 30" in ended.out
    assert (await deployed.runs("check")).status == 0
    off = await deployed.runs("backfill", "--yes", "--direct", USE_SQL_DM_WRITE_MIRROR="false")
    assert off.status == 7


async def test_reads_are_limited_and_the_same_command_goes_on(deployed: Operator) -> None:
    """A bill larger than allowed is impossible; what was paid for is not paid twice."""
    await import_documents(deployed, 30)
    command = ("backfill", "--yes", "--max-reads", "20", "--json")
    statuses = [(await deployed.runs(*command)).status for _ in range(2)]
    assert statuses == [1, 0]
    assert (await deployed.runs("drain")).json()["applied"] == 30
    too_few = await deployed.runs("backfill", "--yes", "--max-reads", "2")
    assert too_few.status == 4
    assert "counting" in too_few.err


async def test_nobody_pays_without_having_been_asked(deployed: Operator) -> None:
    """In a script there is nobody to ask: it must say --yes."""
    for command in ("backfill", "reconcile"):
        ended = await deployed.runs(command)
        assert ended.status == 2
        assert "--yes" in ended.err


async def test_without_a_writer_it_waits_and_ctrl_c_leaves_the_rest(deployed: Operator) -> None:
    """The bus does not grow without bound, and nothing that was paid for is lost."""
    await import_documents(deployed, 30)
    command = ("backfill", "--yes", "--page-size", "5", "--max-depth", "10")
    async with going_command(
        *command, environment=deployed.environment, folder=deployed.folder
    ) as process:
        assert process.stderr is not None
        while b"waiting: " not in (line := await process.stderr.readline()):
            assert line, "it ended without having waited"
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == 130
    assert b"the same command goes on" in out
    depth = (await deployed.runs("bus", "status", "--json")).json()["depth"]
    assert 0 < depth < 15
    assert (await deployed.runs("drain")).json()["applied"] == depth
    ended = await deployed.runs("backfill", "--yes", "--json")
    assert ended.status == 0, ended.err
    assert ended.json()["published"] == 30 - depth


async def test_a_damaged_progress_file_is_named(deployed: Operator) -> None:
    """It is refused, not guessed at; --restart begins anew."""
    await import_documents(deployed, 3)
    (deployed.folder / ".storemirror-backfill.json").write_text('{"format": 1}')
    ended = await deployed.runs("backfill", "--yes")
    assert ended.status == 4
    assert ".storemirror-backfill.json" in ended.err
    assert (await deployed.runs("backfill", "--yes", "--restart")).status == 0


async def test_an_unknown_check_is_refused(deployed: Operator) -> None:
    """A misspelt name would otherwise read nothing and say that all is done."""
    for command in ("backfill", "reconcile"):
        ended = await deployed.runs(command, "--yes", "--check", "mesages")
        assert ended.status == 4
        assert "messages" in ended.err


async def test_gaps_are_shown_then_mended(deployed: Operator) -> None:
    """First a dry run, whose status says whether there is anything to do."""
    await import_documents(deployed, 5)
    assert (await deployed.runs("backfill", "--yes", "--direct")).status == 0
    await remove_document(deployed, "users/u0/blocks/v")
    await import_documents(deployed, 1)
    await remove_document(deployed, "users/u1/blocks/v")
    planned = await deployed.runs("reconcile", "--yes", "--dry-run", "--json")
    assert planned.status == 1, planned.err
    assert planned.json()["checks"]["blocks"]["deleted_count"] == 1
    assert planned.json()["checks"]["blocks"]["older_count"] == 1
    done = await deployed.runs("reconcile", "--yes")
    assert done.status == 0, done.err
    assert "1 deletes" in done.out
    assert (await deployed.runs("drain")).json()["applied"] == 2
    assert (await deployed.runs("check")).status == 0
    assert (await deployed.runs("reconcile", "--yes", "--dry-run")).status == 0
