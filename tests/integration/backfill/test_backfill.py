"""A backfill on a real store, bus and database."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from storemirror.check.compare import MismatchKind
from storemirror.errors import ConfigError
from storemirror.event.change import Outcome
from storemirror.event.value import encode_fields
from storemirror.source.budget import ReadBudget
from storemirror.source.port import Write
from tests.integration.backfill.world import BackfillWorld

pytestmark = pytest.mark.postgres

PATHS = ("bus", "direct")


def unharmed() -> None:
    """Let a page pass."""


async def run_child(filled: BackfillWorld, *, log: Path, seed: int | None) -> int:
    """Backfill in a process of its own; gives its exit status."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.backfill.child",
        json.dumps(
            {
                "documents": filled.documents_dsn,
                "bus": filled.bus_dsn,
                "file": str(filled.file.path),
                "log": str(log),
                "seed": seed,
            }
        ),
    )
    return await process.wait()


class Killed(Exception):
    """The process ended here."""


@pytest.mark.parametrize("is_direct", [False, True], ids=PATHS)
async def test_documents_that_no_trigger_told_of_become_rows(
    filled: BackfillWorld, is_direct: bool
) -> None:
    """The first thing a new mirror does: the app was there before it."""
    await filled.live(300)
    await filled.forget_outbox()
    assert await filled.backfill(is_direct=is_direct)
    await filled.world.settle()
    found = await filled.world.check()
    assert found.is_clean, found.mismatches
    assert sum(c.document_count for c in found.counts.values()) > 100
    assert set(filled.store.read_counts.values()) == {1}
    assert not filled.file.path.exists()


@pytest.mark.parametrize("is_direct", [False, True], ids=PATHS)
async def test_the_app_writes_on_meanwhile(filled: BackfillWorld, is_direct: bool) -> None:
    """Backfill, triggers, deletes and re-creations at once: versions decide, nothing is doubled."""
    app = await filled.live(400)
    await filled.forget_outbox()

    async def go_on() -> None:
        for _ in range(400):
            await app.step()

    async with filled.writing(), asyncio.TaskGroup() as tasks:
        tasks.create_task(go_on())
        tasks.create_task(filled.backfill(is_direct=is_direct, page_size=7))
    assert app.counts.deleted > 0
    assert app.counts.recreated > 0
    found = await filled.world.check()
    assert found.is_clean, found.mismatches
    assert found.dead_letter_count == 0


@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_random_pages_it_finishes(filled: BackfillWorld, seed: int) -> None:
    """Ten errors at random pages: what was in hand is read once more, and nothing else is."""
    await filled.crowd(1_200)
    dice = random.Random(seed)
    kill_count = 0

    def kill() -> None:
        if filled.has_passed_first_pages and dice.random() < 0.2:
            raise Killed

    is_finished = False
    while not is_finished:
        filled.store.before_page = kill if kill_count < 10 else unharmed
        try:
            is_finished = await filled.backfill(page_size=5)
        except Killed:
            kill_count += 1
    assert kill_count == 10
    assert max(filled.store.read_counts.values()) == 2
    await filled.world.settle()
    found = await filled.world.check()
    assert found.is_clean, found.mismatches


async def test_killed_for_real_it_finishes(filled: BackfillWorld, tmp_path: Path) -> None:
    """SIGKILL at ten random steps: no page is read more than twice, none is lost."""
    await filled.crowd(1_200)
    log = tmp_path / "read.log"
    kill_count = 0
    for seed in range(100):
        ended = await run_child(filled, log=log, seed=seed if kill_count < 10 else None)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kill_count += 1
    assert kill_count == 10
    counts = Counter(log.read_text().split())
    assert max(counts.values()) == 2
    await filled.world.settle()
    found = await filled.world.check()
    assert found.is_clean, found.mismatches
    assert sum(c.document_count for c in found.counts.values()) == len(counts)


async def test_a_second_backfill_changes_nothing(filled: BackfillWorld) -> None:
    """A resync that duplicates everything is a complaint of every other tool."""
    await filled.live(200)
    await filled.forget_outbox()
    assert await filled.backfill(is_direct=True)
    first = filled.sink
    assert await filled.backfill(is_direct=True)
    second = filled.sink
    assert first is not None
    assert second is not None
    assert set(first.counts.outcomes) == {Outcome.APPLIED}
    assert second.counts.outcomes == {Outcome.DUPLICATE: first.counts.outcomes[Outcome.APPLIED]}


@pytest.mark.parametrize("max_reads", [20, 37, 100])
async def test_reads_never_exceed_their_limit(filled: BackfillWorld, max_reads: int) -> None:
    """It stops before the read that would be one too many, and goes on from there."""
    await filled.crowd(250)
    run_count = 0
    is_finished = False
    while not is_finished:
        read_before = filled.store.read_counts.total()
        budget = ReadBudget(max_reads)
        is_finished = await filled.backfill(budget=budget, page_size=10)
        assert budget.spent_count <= max_reads
        assert filled.store.read_counts.total() - read_before <= max_reads
        run_count += 1
    assert run_count > 2
    assert set(filled.store.read_counts.values()) == {1}
    await filled.world.settle()
    assert (await filled.world.check()).is_clean


async def test_a_stop_ends_it_after_the_pages_in_hand(filled: BackfillWorld) -> None:
    """Ctrl-C wastes no read."""
    await filled.live(200)
    await filled.forget_outbox()
    stop = asyncio.Event()
    filled.store.before_page = stop.set
    assert not await filled.backfill(stop=stop, page_size=5)
    filled.store.before_page = lambda: None
    assert await filled.backfill(page_size=5)
    assert set(filled.store.read_counts.values()) == {1}


@pytest.mark.parametrize("is_direct", [False, True], ids=PATHS)
async def test_a_document_that_does_not_fit_becomes_a_dead_letter(
    filled: BackfillWorld, is_direct: bool
) -> None:
    """It is counted and set aside with its reason; its neighbours are applied."""
    await filled.live(30)
    odd = Write(path="users/a/blocks/b", fields=encode_fields({"createdAt": "yesterday"}))
    long = Write(path=f"users/a/blocks/{'b' * 200}", fields=encode_fields({}))
    await filled.world.store.commit([odd, long])
    await filled.forget_outbox()
    assert await filled.backfill(is_direct=is_direct)
    await filled.world.settle()
    found = await filled.world.check()
    assert {m.kind for m in found.mismatches} == {MismatchKind.UNDELIVERABLE}
    assert found.dead_letter_count == 2
    assert filled.sink is not None
    assert filled.sink.counts.unfit == (2 if is_direct else 0)


async def test_progress_of_another_firestore_is_refused(filled: BackfillWorld) -> None:
    """Going on with it would leave most of this one unread."""
    await filled.live(50)
    await filled.backfill(budget=ReadBudget(10), page_size=2)
    state = json.loads(filled.file.path.read_bytes())
    state["source"] = state["source"].replace("demo", "other")
    filled.file.path.write_text(json.dumps(state))
    with pytest.raises(ConfigError, match="--restart"):
        await filled.backfill()


async def test_two_at_once_with_one_progress_file_are_refused(filled: BackfillWorld) -> None:
    """Each would overwrite what the other has done."""
    with filled.file.locked(), pytest.raises(ConfigError, match="another backfill"):
        await filled.backfill()
    await filled.live(5)
    assert await filled.backfill()
