"""
Reads every document once for a rebase: a backfill of all entities that is bound to one rebase.

Its progress is of use to that rebase alone: what an earlier one had read has lost its version
since, and is to be read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storemirror.model.entity import Entity, Model
from storemirror.source.backfill import (
    PAGE_SIZE,
    Backfill,
    BackfillProgress,
    begin_backfill,
    resumed_backfill,
)
from storemirror.source.backfill_plan import BackfillState, Estimate
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import Sink
from storemirror.source.budget import ReadBudget
from storemirror.source.port import DocumentStore

DEFAULT_FILE: Final = Path(".storemirror-rebase.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill:
    """What a refill works with."""

    #: Where the progress is kept; held by the caller (`ProgressFile.locked`).
    file: ProgressFile
    store: DocumentStore
    model: Model
    #: Gives where events go, by the name of the rebase.
    sink_of: Callable[[str], Sink]
    #: The documents, counted.
    estimate: Estimate
    budget: ReadBudget
    #: CloudEvents source; see `storemirror.event.envelope.source_of`.
    source: str
    #: Ends it after the pages in hand.
    stop: asyncio.Event
    page_size: int = PAGE_SIZE
    on_progress: Callable[[BackfillProgress], None] | None = None

    async def run(self, run: str) -> bool:
        """
        Read what is left of this rebase's documents; tells whether all is read.

        Args:
            run: names the rebase, in at most 63 characters.

        Raises:
            ConfigError: the progress file cannot be read or written.
            SourceUnavailable, BusUnavailable, SqlUnavailable: see `Backfill.run`.
        """
        entities = list(self.model)
        state = self._resumed(entities, run)
        if state is None:
            state = await begin_backfill(
                self.store,
                entities,
                self.estimate,
                self.file,
                budget=self.budget,
                source=self.source,
                page_size=self.page_size,
                run=run,
            )
        work = Backfill(
            state,
            self.file,
            store=self.store,
            model=self.model,
            sink=self.sink_of(run),
            budget=self.budget,
            page_size=self.page_size,
            on_progress=self.on_progress,
        )
        return await work.run(self.stop)

    def _resumed(self, entities: Sequence[Entity], run: str) -> BackfillState | None:
        begun = self.file.load()
        if begun is not None and begun.run != run:
            self.file.remove()
            return None
        return resumed_backfill(self.file, entities, source=self.source)
