"""A backfill of Firestore itself, as Google's emulator stands for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.check.result import CheckSettings
from storemirror.check.run import run_check
from storemirror.clock import SystemClock
from storemirror.event.value import encode_fields
from storemirror.source.backfill import Backfill, begin_backfill, estimate_reads
from storemirror.source.backfill_plan import BackfillState
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink
from storemirror.source.budget import ReadBudget
from storemirror.source.firestore import FirestoreDocumentStore, open_firestore
from storemirror.source.firestore_calls import FirestoreAddress
from storemirror.source.port import Write
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import SOURCE

pytestmark = pytest.mark.postgres

PAGE_SIZE = 10


@pytest.fixture
async def firestore(
    emulator_host: str, firestore_project: str
) -> AsyncIterator[FirestoreDocumentStore]:
    """A Firestore with documents of two entities, and a stranger in the same group."""
    address = FirestoreAddress(project=firestore_project, emulator_host=emulator_host)
    opened = open_firestore(address, SystemClock())
    fields = encode_fields({"createdAt": None})
    paths = [f"users/{who}{n}/following/v{n}" for who in "0Hkz" for n in range(60)]
    paths += [f"users/u{n}/blocks/b" for n in range(30)] + ["zoo/u1/blocks/b"]
    for start in range(0, len(paths), 100):
        await opened.commit([Write(path=p, fields=fields) for p in paths[start : start + 100]])
    yield opened
    await opened.aclose()


async def backfill(
    filled: BackfillWorld,
    store: FirestoreDocumentStore,
    state: BackfillState,
    file: ProgressFile,
    budget: ReadBudget,
    stop: asyncio.Event,
) -> bool:
    world = filled.world
    work = Backfill(
        state,
        file,
        store=store,
        model=world.model,
        sink=BusSink(world.publisher, world.clock, source=SOURCE, run=state.run),
        budget=budget,
        page_size=PAGE_SIZE,
        on_progress=lambda progress: stop.set() if progress.document_count > 100 else None,
    )
    return await work.run(stop)


async def test_documents_of_firestore_become_rows_at_what_was_said(
    filled: BackfillWorld, firestore: FirestoreDocumentStore, tmp_path: Path
) -> None:
    """Stopped and gone on with at the same moment; reads are what Firestore was asked for."""
    entities = list(filled.world.model)
    file, budget = ProgressFile(tmp_path / "p.json"), ReadBudget()
    read_before = firestore.read_count
    estimate = await estimate_reads(firestore, entities, budget=budget, price_per_100k_usd=0.06)
    assert estimate.document_count == 271
    state = await begin_backfill(
        firestore, entities, estimate, file, budget=budget, source=SOURCE, page_size=PAGE_SIZE
    )
    assert not await backfill(filled, firestore, state, file, budget, asyncio.Event())
    moment_us = state.read_time_us
    resumed = file.load()
    assert resumed is not None
    assert await backfill(filled, firestore, resumed, file, budget, stop_never())
    assert resumed.read_time_us == moment_us
    assert resumed.document_count == 270
    assert firestore.read_count - read_before <= budget.spent_count
    await filled.world.settle()
    found = await run_check(
        store=firestore,
        mirror=filled.world.mirror,
        model=filled.world.model,
        bus_admin=filled.world.admin,
        subscription=SUBSCRIPTION_SQL_WRITER,
        pending=None,
        clock=filled.world.clock,
        settings=CheckSettings(drain_timeout_s=60.0),
    )
    assert found.is_clean, found.mismatches


class _Never(asyncio.Event):
    """Is never set."""

    def set(self) -> None:
        """Stay as it is."""


def stop_never() -> asyncio.Event:
    return _Never()
