"""A backfill in a process of its own, which kills itself at a random page.

Takes one argument, JSON: DSNs, the progress file, a log that gets the path of every document
that was read, and the seed of the killing; without a seed it lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path

from storemirror import loop
from storemirror.bus.postgres import PostgresPublisher
from storemirror.clock import SystemClock
from storemirror.model.load import load_model
from storemirror.source.backfill import Backfill, begin_backfill, estimate_reads, resumed_backfill
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink
from storemirror.source.budget import ReadBudget
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.sql.postgres.connection import BUS, DOCUMENTS, Database
from tests.integration.backfill.world import (
    CountingStore,
    first_ranges,
    have_advanced,
)
from tests.integration.check.world import SOURCE

WORKER_COUNT = 4
PAGE_SIZE = 5


async def main() -> None:
    """Begin or go on, as the command does."""
    told = json.loads(sys.argv[1])
    clock, budget, model = SystemClock(), ReadBudget(), load_model()
    documents, bus = Database(told["documents"], DOCUMENTS), Database(told["bus"], BUS)
    await documents.open()
    await bus.open()
    store = CountingStore(EmbeddedDocumentStore(documents))
    file = ProgressFile(Path(told["file"]))
    with file.locked():
        state = resumed_backfill(file, list(model), source=SOURCE)
        if state is None:
            counted = await estimate_reads(
                store, list(model), budget=budget, price_per_100k_usd=0.06
            )
            state = await begin_backfill(
                store, list(model), counted, file, budget=budget, source=SOURCE, page_size=PAGE_SIZE
            )
        dice = random.Random(told["seed"])
        beginning = first_ranges(state, WORKER_COUNT)
        logged = 0

        def log_and_die() -> None:
            nonlocal logged
            paths = list(store.read_counts.elements())
            new, logged = paths[logged:], len(paths)
            with Path(told["log"]).open("a") as log:
                log.writelines(f"{path}\n" for path in new)
            if told["seed"] is not None and have_advanced(file, beginning) and dice.random() < 0.2:
                os.kill(os.getpid(), signal.SIGKILL)

        store.before_page = log_and_die
        publisher = PostgresPublisher(bus, clock)
        work = Backfill(
            state,
            file,
            store=store,
            model=model,
            sink=BusSink(publisher, clock, source=SOURCE, run=state.run),
            budget=budget,
            page_size=PAGE_SIZE,
            worker_count=WORKER_COUNT,
        )
        assert await work.run(asyncio.Event())
        await publisher.aclose()
    await documents.aclose()
    await bus.aclose()


if __name__ == "__main__":
    loop.run(main())
