"""
Starts the mirror's versions anew after commit times went backwards, as a restore lets them.

Six steps, each remembered in the mirror once it is done for good, so that whoever is killed at any
moment goes on with the same command.  Why they are in this order, and why nothing is lost or
revived on the way: docs/adr/0008-rebase.md.

What it cannot see: documents that are restored once more while it runs; it is to be run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from storemirror.bus.port import BusAdmin
from storemirror.model.entity import Entity
from storemirror.source.port import DocumentStore, Key
from storemirror.sql.port import RebaseLedger, RebaseState, RebaseStep

#: Rows whose version is set to 0 in one transaction.
PAGE_ROWS: Final = 2_000

#: Told of each step that is done.
StepObserver = Callable[[RebaseStep], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RebaseParts:
    """What a rebase works with."""

    ledger: RebaseLedger
    #: The bus, and the writer's subscription.
    bus_admin: BusAdmin
    subscription: str
    #: Its clock draws the mark.
    store: DocumentStore
    #: Every declared entity: an event of any of them may be late.
    entities: Sequence[Entity]
    #: Reads every document once, by the name of the rebase; tells whether all is read.
    refill: Callable[[str], Awaitable[bool]]
    #: Finds rows whose document is gone; tells whether all was seen.
    reconcile: Callable[[], Awaitable[bool]]


async def run_rebase(
    parts: RebaseParts,
    *,
    new_run: str,
    on_step: StepObserver | None = None,
    page_rows: int = PAGE_ROWS,
) -> RebaseState:
    """
    Begin a rebase, or go on with the one that was begun, up to its end or as far as reads allow.

    Args:
        parts: see `RebaseParts`.
        new_run: names the rebase if a new one is begun; at most 63 characters.
        on_step: told of each step when it is done; also a test's place for a kill.
        page_rows: rows a transaction.

    Returns:
        How far it came; `RebaseStep.DONE` unless reading was stopped.

    Raises:
        RebaseUnderWay: another process rebases this mirror; nothing was done here.
        SqlUnavailable, BusUnavailable, SourceUnavailable: give the command again; it goes on.
        CheckIncomplete: the backlog did not drain before the reconcile; likewise.
    """
    async with parts.ledger.held():
        return await _Rebase(parts, on_step, page_rows).run(new_run)


class _Rebase:
    """One process's work on a rebase."""

    def __init__(self, parts: RebaseParts, on_step: StepObserver | None, page_rows: int) -> None:
        self._parts = parts
        self._on_step = on_step
        self._page_rows = page_rows
        self._steps: dict[RebaseStep, Callable[[str], Awaitable[bool]]] = {
            RebaseStep.CLOSED: self._purge,
            RebaseStep.PURGED: self._mark,
            RebaseStep.MARKED: self._reset,
            RebaseStep.OPENED: self._refill,
            RebaseStep.REFILLED: self._reconcile,
        }

    async def run(self, new_run: str) -> RebaseState:
        """Do step after step, as long as they can be done."""
        state = await self._parts.ledger.state()
        if state is None or not state.is_under_way:
            await self._parts.ledger.close(new_run)
            state = await self._told()
        while state.is_under_way and await self._steps[state.step](state.run):
            state = await self._told()
        return state

    async def _told(self) -> RebaseState:
        state = await self._parts.ledger.state()
        assert state is not None, "a rebase was begun"
        if self._on_step is not None:
            await self._on_step(state.step)
        return state

    async def _purge(self, run: str) -> bool:
        """Save the reads that the events waiting would cost: each of them is expired."""
        await self._parts.bus_admin.purge(self._parts.subscription)
        await self._parts.ledger.advance(run, after=RebaseStep.CLOSED, to=RebaseStep.PURGED)
        return True

    async def _mark(self, run: str) -> bool:
        """Draw the mark: later than all that was purged, and than all that a row holds."""
        async with self._parts.store.pinned() as view:
            mark_us = view.read_time_us
        await self._parts.ledger.advance(
            run, after=RebaseStep.PURGED, to=RebaseStep.MARKED, mark_us=mark_us
        )
        return True

    async def _reset(self, run: str) -> bool:
        """Set every version to 0, and open the mirror."""
        for entity in self._parts.entities:
            after: Key | None = None
            while True:
                after = await self._parts.ledger.reset_versions(
                    run, entity, after=after, max_count=self._page_rows
                )
                if after is None:
                    break
        await self._parts.ledger.advance(run, after=RebaseStep.MARKED, to=RebaseStep.OPENED)
        return True

    async def _refill(self, run: str) -> bool:
        if not await self._parts.refill(run):
            return False
        await self._parts.ledger.advance(run, after=RebaseStep.OPENED, to=RebaseStep.REFILLED)
        return True

    async def _reconcile(self, run: str) -> bool:
        if not await self._parts.reconcile():
            return False
        await self._parts.ledger.advance(run, after=RebaseStep.REFILLED, to=RebaseStep.DONE)
        return True
