"""`storemirror check` says what it costs, never asks, and stops where the reads end."""

from __future__ import annotations

import pytest

from storemirror.event.value import encode_fields
from storemirror.source.port import Write
from tests.acceptance.conftest import Operator

pytestmark = pytest.mark.postgres


@pytest.fixture
async def mirrored(deployed: Operator) -> Operator:
    """Ten documents of one kind, in SQL too."""
    fields = encode_fields({"createdAt": None})
    async with deployed.parts() as parts:
        store = await parts.embedded_store()
        await store.commit([Write(path=f"users/u{n}/blocks/v", fields=fields) for n in range(10)])
        async with store.outbox_batch():
            pass
    assert (await deployed.runs("backfill", "--yes", "--direct")).status == 0
    return deployed


async def test_a_check_says_its_cost_and_asks_nobody(mirrored: Operator) -> None:
    """It runs every night, where nobody is: the cost is said, on standard error."""
    ended = await mirrored.runs("check", "--json", "--price", "100")
    assert ended.status == 0, ended.err
    # Four counts, ten documents and three empty kinds.
    assert "about 17 document reads, about $0.02 at $100 for 100,000" in ended.err
    assert ended.json()["estimate"]["reads"] == 17
    # And the read that tells the time.
    assert (ended.json()["read_count"], ended.json()["is_complete"]) == (18, True)


async def test_a_limit_is_in_the_price(mirrored: Operator) -> None:
    """What is not compared is not read, so it is not said to be paid for either."""
    ended = await mirrored.runs("check", "--json", "--limit", "2", "--check", "blocks")
    assert ended.status == 0, ended.err
    assert ended.json()["estimate"]["documents"] == {"UserBlock": 2}
    assert ended.json()["read_count"] == 1 + 1 + 2


async def test_reads_that_run_out_end_it_with_3(mirrored: Operator) -> None:
    """Nothing differed so far, which is not to say that both sides agree."""
    ended = await mirrored.runs("check", "--max-reads", "12")
    assert ended.status == 3
    assert "stops before read 13" in ended.err
    assert "compared: conversations, messages, follow; in part: blocks" in ended.err
    assert "--max-reads" in ended.err.splitlines()[-1]
    too_few = await mirrored.runs("check", "--max-reads", "3")
    assert too_few.status == 4
    assert "counting" in too_few.err


async def test_a_difference_found_before_the_reads_ran_out_is_said(mirrored: Operator) -> None:
    """What was shown is shown; that the rest was not compared is said beside it."""
    async with mirrored.parts() as parts:
        mirror = await parts.mirror()
        async with mirror._database.connection() as conn:  # type: ignore[attr-defined]
            await conn.execute("UPDATE storemirror.user_block SET created_at = now()")
    ended = await mirrored.runs("check", "--check", "blocks", "--max-reads", "12", "--repair")
    assert ended.status == 1
    assert "users/u0/blocks/v" in ended.out
    assert "the reads are spent (12) before all was compared; in part: blocks" in ended.out
    # Half of the ten reads went into the scan, half into looking again; a repair is one more each.
    assert "no reads were left for 5 documents" in ended.out
