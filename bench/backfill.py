"""
*backfill*: documents of Google's Firestore emulator onto the bus, beside a bare scan of them.

The bare scan is what Google's own client does at best: one query over the collection group, its
snapshots counted and thrown away.  The backfill counts first, reads page by page at one pinned
moment, makes events, has them durable on the PostgreSQL bus, and saves its progress.
"""

from __future__ import annotations

import asyncio
import os
import random
import string
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Final

from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from bench.databases import BenchServer
from bench.machine import rss_mb
from bench.workload import PROJECT, new_message
from bench.world import PipelineFailed
from storemirror.clock import Clock
from storemirror.config import load_settings
from storemirror.event.value import encode_fields
from storemirror.source.backfill import PAGE_SIZE, Backfill, begin_backfill, estimate_reads
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink
from storemirror.source.budget import ReadBudget
from storemirror.source.port import DocumentStore, Write
from storemirror.wiring import Parts
from tests.support.emulator_process import running_process

_COMMIT: Final = 500
_MESSAGES_A_CONVERSATION: Final = 100
#: What Firestore's automatic ids are made of, and how long they are.
_ID_LETTERS: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 20


@dataclass(frozen=True, slots=True)
class BackfillFigures:
    """Medians of the rounds, each with both contestants in turn."""

    documents_per_s: float
    bare_scan_per_s: float
    #: Of each round, backfill to bare scan.
    shares: list[float]
    document_count: int
    #: Reads of one backfill, counting included.
    read_count: int
    #: Resident memory of this process, MiB: before the first backfill, and during the last one at
    #: most, in the mean of its second quarter, and of its last.
    rss_mb_before: float
    rss_mb_max: float
    rss_mb_early: float
    rss_mb_late: float

    @property
    def share(self) -> float:
        """Give the median of the rounds' shares."""
        return median(self.shares)


async def measure_backfill(
    server: BenchServer, *, document_count: int, round_count: int, seed: int
) -> BackfillFigures:
    """
    Fill an emulator with messages, then scan and backfill it in turns.

    Raises:
        EmulatorMissing: this machine has no emulator.
        PipelineFailed: the bus does not hold an event a document afterwards.
    """
    with (
        tempfile.TemporaryDirectory(prefix="storemirror-bench-") as folder,
        running_process(Path(folder) / "emulator.log") as host,
    ):
        settings = {
            "STOREMIRROR_FIRESTORE_PROJECT": PROJECT,
            "STOREMIRROR_DOCUMENTS_KIND": "firestore",
            "FIRESTORE_EMULATOR_HOST": host,
            "STOREMIRROR_BUS_DSN": server.server.dsn(await server.create_database()),
        }
        return await _measured(Path(folder), settings, document_count, round_count, seed)


async def _measured(
    folder: Path, settings: Mapping[str, str], document_count: int, round_count: int, seed: int
) -> BackfillFigures:
    bare_per_s, backfill_per_s = [], []
    rss: list[float] = []
    read_counts: list[int] = []
    async with Parts(load_settings(None, settings)) as parts:
        await (await parts.bus_admin()).provision(parts.topic())
        store = await parts.store()
        await _fill(store, parts.clock, document_count, seed)
        scanned = _scanner(settings["FIRESTORE_EMULATOR_HOST"])
        await asyncio.to_thread(scanned)  # the emulator's first scan is its slowest
        rss_before = rss_mb(os.getpid())
        for number in range(round_count):
            bare_per_s.append(await _rate(parts.clock, _in_thread(scanned), document_count))
            rss.clear()
            work = _backfilled(parts, store, folder / f"{number}.json", read_counts, rss)
            backfill_per_s.append(await _rate(parts.clock, work, document_count))
        stats = await (await parts.bus_admin()).stats(parts.subscription)
    if stats.depth != document_count * round_count:
        raise PipelineFailed(
            f"{document_count * round_count} documents read, {stats.depth} events on the bus"
        )
    quarter = max(1, len(rss) // 4)
    pairs = zip(backfill_per_s, bare_per_s, strict=True)
    return BackfillFigures(
        documents_per_s=median(backfill_per_s),
        bare_scan_per_s=median(bare_per_s),
        shares=[ours / bare for ours, bare in pairs],
        document_count=document_count,
        read_count=read_counts[-1],
        rss_mb_before=rss_before,
        rss_mb_max=max(rss),
        rss_mb_early=mean(rss[quarter : 2 * quarter]),
        rss_mb_late=mean(rss[-quarter:]),
    )


async def _rate(clock: Clock, work: Awaitable[int], document_count: int) -> float:
    """Give documents a second; every document must be among what was read."""
    begun_s = clock.monotonic_s()
    found_count = await work
    if found_count != document_count:
        raise PipelineFailed(f"{found_count} of {document_count} documents were read")
    return document_count / (clock.monotonic_s() - begun_s)


async def _in_thread(scan: Callable[[], int]) -> int:
    return await asyncio.to_thread(scan)


def _scanner(host: str) -> Callable[[], int]:
    """Give the bare scan: Google's client, one query, nothing kept."""
    # The client of Google's own reads this variable, and has no argument for it.
    os.environ["FIRESTORE_EMULATOR_HOST"] = host
    client = firestore.Client(project=PROJECT, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    return lambda: sum(1 for _ in client.collection_group("messages").stream())


async def _backfilled(
    parts: Parts, store: DocumentStore, path: Path, read_counts: list[int], rss: list[float]
) -> int:
    """Run a whole backfill, as the command does; gives how many documents it read."""
    budget, file = ReadBudget(), ProgressFile(path)
    entities = [entity for entity in parts.model if entity.name == "DmMessage"]
    estimate = await estimate_reads(store, entities, budget=budget, price_per_100k_usd=0.06)
    state = await begin_backfill(
        store, entities, estimate, file, budget=budget, source=parts.source, page_size=PAGE_SIZE
    )
    work = Backfill(
        state,
        file,
        store=store,
        model=parts.model,
        sink=BusSink(await parts.publisher(), parts.clock, source=parts.source, run=state.run),
        budget=budget,
        page_size=PAGE_SIZE,
        on_progress=lambda _: rss.append(rss_mb(os.getpid())),
    )
    await work.run(asyncio.Event())
    read_counts.append(budget.spent_count)
    return state.document_count


async def _fill(store: DocumentStore, clock: Clock, document_count: int, seed: int) -> None:
    """Write messages under ids as Firestore makes them, a hundred a conversation."""
    draw = random.Random(seed)  # noqa: S311 - a workload, no secret

    def new_id() -> str:
        return "".join(draw.choices(_ID_LETTERS, k=_ID_LENGTH))

    conversation = new_id()
    for start in range(0, document_count, _COMMIT):
        writes = []
        for number in range(start, min(start + _COMMIT, document_count)):
            if number % _MESSAGES_A_CONVERSATION == 0:
                conversation = new_id()
            document = new_message(draw, clock.now_us())
            path = f"conversations/{conversation}/messages/{new_id()}"
            writes.append(Write(path=path, fields=encode_fields(document)))
        await store.commit(writes)
