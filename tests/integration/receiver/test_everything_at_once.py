"""Ten thousand documents: a backfill, the triggers, the writer and the app, all at once."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.cloud import firestore

from storemirror.clock import SystemClock
from storemirror.source.backfill import Backfill, begin_backfill, estimate_reads
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink
from storemirror.source.budget import ReadBudget
from storemirror.source.firestore import FirestoreDocumentStore, open_firestore
from storemirror.source.firestore_calls import FirestoreAddress
from storemirror.source.reread import SourceReread
from tests.integration.apply.pipe import START_US, Pipe, moment
from tests.integration.receiver.hosted import Hosted, hosted
from tests.integration.receiver.test_emulator import (
    a_conversation,
    a_message,
    checked,
    delivered,
    delivered_count,
)
from tests.support.deliveries import SOURCE
from tests.support.emulator import delivering_emulator
from tests.support.googles_client import googles_client
from tests.support.mirrors import PROJECT

pytestmark = pytest.mark.postgres

PATHS = [
    *(f"conversations/c{c}" for c in range(400)),
    *(f"conversations/c{c}/messages/m{m}" for c in range(400) for m in range(20)),
    *(f"users/u{u}/following/v{v}" for u in range(100) for v in range(10)),
    *(f"users/u{u}/blocks/v{v}" for u in range(100) for v in range(6)),
]
#: Most documents that Firestore takes in one batched write.
BATCH_MAX_COUNT = 500
#: The app goes on for so many writes at least, and until the backfill is through.
WRITE_MIN_COUNT = 400
WRITE_MAX_COUNT = 5_000


def contents_of(path: str, step: int) -> dict[str, object]:
    """Give a document that its collection's declaration takes, another one at each step."""
    match path.split("/"):
        case ["conversations", _]:
            return a_conversation(step)
        case ["conversations", *_]:
            return a_message(step)
    return {"createdAt": moment(START_US + step)}


def fill(client: firestore.Client) -> None:
    """Write every document before any trigger is there."""
    for start in range(0, len(PATHS), BATCH_MAX_COUNT):
        batch = client.batch()
        for path in PATHS[start : start + BATCH_MAX_COUNT]:
            batch.set(client.document(path), contents_of(path, 0))
        batch.commit()


@dataclass
class LivingApp:
    """Writes, deletes and re-creates at random, one write after the other."""

    client: firestore.Client
    backfill_ended: threading.Event
    written_count: int = 0
    recreated_count: int = 0

    def live(self) -> None:
        """Go on until the backfill has ended, and a while at least."""
        dice = random.Random(3)
        while self._goes_on:
            path = dice.choice(PATHS)
            document = self.client.document(path)
            if dice.random() < 0.3:
                document.delete()
                self.written_count += 1
                if dice.random() < 0.5:
                    continue
                self.recreated_count += 1
            self.written_count += 1
            document.set(contents_of(path, self.written_count))

    @property
    def _goes_on(self) -> bool:
        if self.written_count >= WRITE_MAX_COUNT:
            return False
        return self.written_count < WRITE_MIN_COUNT or not self.backfill_ended.is_set()


async def backfilled(store: FirestoreDocumentStore, pipe: Pipe, file: ProgressFile) -> int:
    """Backfill through the bus, as the command does; gives how many documents were read."""
    budget, entities = ReadBudget(), list(pipe.model)
    estimate = await estimate_reads(store, entities, budget=budget, price_per_100k_usd=0.06)
    state = await begin_backfill(
        store, entities, estimate, file, budget=budget, source=SOURCE, page_size=200
    )
    sink = BusSink(pipe.publisher, pipe.clock, source=SOURCE, run=state.run)
    work = Backfill(
        state, file, store=store, model=pipe.model, sink=sink, budget=budget, page_size=200
    )
    assert await work.run(asyncio.Event())
    return state.document_count


async def mirrored_live(
    receiver: Hosted, app: LivingApp, store: FirestoreDocumentStore, file: ProgressFile
) -> int:
    """Let app, deliveries, backfill and writer run together; gives the documents backfilled."""
    pipe = receiver.pipe
    stop = asyncio.Event()
    reread = SourceReread(store, pipe.model, source=SOURCE)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pipe.processor(reread=reread).run(stop))
        living = tasks.create_task(asyncio.to_thread(app.live))
        try:
            news = receiver.receiver.answered.next()
            while delivered_count(receiver) < 20:
                await news.wait()
                news = receiver.receiver.answered.next()
            count = await backfilled(store, pipe, file)
        finally:
            app.backfill_ended.set()
            await living
            stop.set()
    return count


@pytest.mark.timeout(600)
async def test_ten_thousand_documents_come_in_while_the_app_lives_on(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever of trigger and backfill comes first, both sides end equal; nothing is doubled."""
    with (
        delivering_emulator(tmp_path / "emulator.log") as emulator,
        googles_client(emulator.host, monkeypatch) as client,
    ):
        await asyncio.to_thread(fill, client)
        address = FirestoreAddress(project=PROJECT, emulator_host=emulator.host)
        store = open_firestore(address, SystemClock())
        app = LivingApp(client, threading.Event())
        async with hosted(pipe, port=emulator.receiver_port) as receiver:
            await asyncio.to_thread(emulator.register, pipe.model)
            count = await mirrored_live(receiver, app, store, ProgressFile(tmp_path / "p.json"))
            await delivered(receiver, app.written_count)
        await pipe.run_until_empty(pipe.processor())
        result = await checked(pipe, store)
        await store.aclose()
    assert result.is_clean, result.to_json()
    assert result.dead_letter_count == 0
    assert count > 0.9 * len(PATHS)
    assert app.recreated_count > 0
    totals = list(result.counts.values())
    assert sum(c.row_count for c in totals) == sum(c.document_count for c in totals)
