"""`storemirror rebase`: the mirror's versions begun anew after a restore."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from storemirror import loop
from storemirror.apply.readiness import refuse_if_off
from storemirror.check.rebase import RebaseParts, run_rebase
from storemirror.check.reconcile import ReconcileResult, ReconcileSettings, run_reconcile
from storemirror.cli.backfill import INTERRUPTED_STATUS, print_reconcile
from storemirror.cli.cost import (
    DEFAULT_PRICE_USD,
    DrainSecondsOption,
    MaxReadsOption,
    PriceOption,
    YesOption,
    announce,
    counted_reads,
    refuse_unasked,
)
from storemirror.cli.output import JsonOption, counted, print_json, say, stop_on_signals
from storemirror.cli.progress import ProgressBar
from storemirror.clock import rfc3339_from_us
from storemirror.source.backfill_plan import Estimate
from storemirror.source.backfill_progress import ProgressFile
from storemirror.source.backfill_sink import BusSink, DirectSink, Sink
from storemirror.source.budget import ReadBudget
from storemirror.source.port import DocumentStore
from storemirror.source.refill import DEFAULT_FILE, Refill
from storemirror.sql.port import RebaseState, RebaseStep
from storemirror.wiring import Parts

_STEPS: Final = {
    RebaseStep.CLOSED: "the mirror is closed: writers wait",
    RebaseStep.PURGED: "the bus is purged",
    RebaseStep.MARKED: "the mark is set: what was seen before it is asked about again",
    RebaseStep.OPENED: "all versions are 0, and the mirror is open: writers go on",
    RebaseStep.REFILLED: "every document was read once",
    RebaseStep.DONE: "rows whose document is gone are being deleted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What was asked for."""

    is_asking: bool
    is_dry_run: bool
    max_reads: int | None
    price_usd: float
    drain_s: float
    file: Path
    is_quiet: bool


@dataclass(slots=True)
class _Ended:
    """How it ended."""

    #: None: a dry run, and there never was a rebase.
    state: RebaseState | None
    estimate: Estimate
    #: Messages that wait on the bus; of a dry run alone.
    waiting_count: int | None = None
    reconciled: ReconcileResult | None = None
    read_count: int = 0
    is_interrupted: bool = False


def rebase(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would do, and cost.")
    ] = False,
    yes: YesOption = False,
    max_reads: MaxReadsOption = None,
    drain_seconds: DrainSecondsOption = 300.0,
    price: PriceOption = DEFAULT_PRICE_USD,
    progress_file: Annotated[
        Path, typer.Option("--progress-file", metavar="FILE", help="Where the progress is kept.")
    ] = DEFAULT_FILE,
    as_json: JsonOption = False,
) -> None:
    """
    Begin the mirror's versions anew, after a restore from backup let commit times go backwards.

    Closes the mirror (writers wait), purges the bus, sets a mark and all versions to 0, opens it
    again, and reads every document twice: into SQL, and to find rows whose document is gone.
    Leave the writers running.  A run that was killed or stopped goes on when the command is given
    again.  Exit status: 0 done, 1 reads ran out or documents are older than their rows again, 3
    the backlog did not drain, 130 stopped by Ctrl-C.  Needs USE_SQL_DM_WRITE_MIRROR=true.
    """
    wish = _Wish(
        is_asking=not yes and not dry_run,
        is_dry_run=dry_run,
        max_reads=max_reads,
        price_usd=price,
        drain_s=drain_seconds,
        file=progress_file,
        is_quiet=as_json,
    )
    refuse_unasked(is_asking=wish.is_asking)
    parts = Parts(context.obj.settings())
    parts.require(*parts.store_settings, *parts.bus_settings, "sql.dsn")
    if not dry_run:
        refuse_if_off(is_mirror_on=parts.settings.is_mirror_on)
    ended = loop.run(_run(parts, wish))
    if as_json:
        print_json(_as_json(ended))
    else:
        _print(ended, wish)
    raise typer.Exit(_status(ended, wish))


async def _run(parts: Parts, wish: _Wish) -> _Ended:
    async with parts:
        await (await parts.mirror()).verify_schema()
        state = await (await parts.rebase_ledger()).state()
        store, budget = await parts.store(), ReadBudget(wish.max_reads)
        estimate = replace(
            await counted_reads(store, list(parts.model), budget, price_usd=wish.price_usd),
            pass_count=1 if state is not None and state.step is RebaseStep.REFILLED else 2,
        )
        _announce(estimate, state, wish)
        ended = _Ended(state=state, estimate=estimate)
        if wish.is_dry_run:
            stats = await (await parts.bus_admin()).stats(parts.subscription)
            # A bus that does not tell what is locked has that counted as waiting.
            ended.waiting_count = stats.depth - (stats.locked_count or 0)
        else:
            if wish.is_asking:
                typer.confirm("Go on?", abort=True, err=True)
            file = ProgressFile(wish.file)
            with file.locked(), stop_on_signals() as stop:
                await _Work(parts, wish, ended, store, budget).run(file, stop)
            ended.is_interrupted = stop.is_set()
        ended.read_count = budget.spent_count
        return ended


@dataclass(frozen=True, slots=True)
class _Work:
    """One process's work on a rebase; what came of it goes into `ended`."""

    parts: Parts
    wish: _Wish
    ended: _Ended
    store: DocumentStore
    budget: ReadBudget

    async def run(self, file: ProgressFile, stop: asyncio.Event) -> None:
        parts = self.parts
        mirror, publisher = await parts.mirror(), await parts.publisher()

        def sink_of(run: str) -> Sink:
            bus = BusSink(publisher, parts.clock, source=parts.source, run=run)
            return DirectSink(mirror, bus, parts.clock)

        with ProgressBar(parts.clock, is_quiet=self.wish.is_quiet) as bar:
            refill = Refill(
                file=file,
                store=self.store,
                model=parts.model,
                sink_of=sink_of,
                estimate=self.ended.estimate,
                budget=self.budget,
                source=parts.source,
                stop=stop,
                on_progress=bar.show,
            )
            self.ended.state = await run_rebase(
                RebaseParts(
                    ledger=await parts.rebase_ledger(),
                    bus_admin=await parts.bus_admin(),
                    subscription=parts.subscription,
                    store=self.store,
                    entities=list(parts.model),
                    refill=refill.run,
                    reconcile=partial(self._reconcile, stop),
                ),
                new_run=f"rebase-{secrets.token_hex(6)}",
                on_step=_tell,
            )

    async def _reconcile(self, stop: asyncio.Event) -> bool:
        parts = self.parts
        self.ended.reconciled = await run_reconcile(
            store=self.store,
            mirror=await parts.mirror(),
            entities=list(parts.model),
            publisher=await parts.publisher(),
            bus_admin=await parts.bus_admin(),
            subscription=parts.subscription,
            pending=await parts.pending(),
            clock=parts.clock,
            budget=self.budget,
            source=parts.source,
            run=f"rebase-{secrets.token_hex(6)}",
            settings=ReconcileSettings(drain_timeout_s=self.wish.drain_s),
            stop=stop,
        )
        return self.ended.reconciled.is_finished


async def _tell(step: RebaseStep) -> None:
    typer.echo(_STEPS[step], err=True)


def _announce(estimate: Estimate, state: RebaseState | None, wish: _Wish) -> None:
    """Say what is going to happen, on standard error."""
    if state is not None and state.is_under_way:
        typer.echo(f"begun before: {state.run}, {_STEPS[state.step]}; this is the rest", err=True)
    else:
        typer.echo(
            "a rebase closes the mirror to events for a moment (writers wait, readers go on), then"
            " reads every document twice; until that is done readers see rows of before the"
            " restore among those of after it",
            err=True,
        )
    announce(estimate, max_reads=wish.max_reads)


def _print(ended: _Ended, wish: _Wish) -> None:
    if wish.is_dry_run:
        say(f"{counted(ended.waiting_count or 0, 'message')} would be removed from the bus")
        say("nothing was changed")
        return
    if ended.reconciled is not None:
        print_reconcile(ended.reconciled)
    assert ended.state is not None, "a rebase was begun"
    if ended.state.is_under_way:
        say(f"not finished ({_STEPS[ended.state.step]}); the same command goes on")
    else:
        say("rebased; run `storemirror check` once the writers have applied what is on the bus")


def _as_json(ended: _Ended) -> dict[str, object]:
    state, found = ended.state, ended.reconciled
    mark_us = None if state is None else state.mark_us
    return {
        "run": None if state is None else state.run,
        "step": None if state is None else state.step.value,
        "is_finished": state is not None and not state.is_under_way,
        "mark": None if mark_us is None else rfc3339_from_us(mark_us),
        "estimate": ended.estimate.to_json(),
        "read_count": ended.read_count,
        "waiting_count": ended.waiting_count,
        "reconciled": None if found is None else found.to_json(),
    }


def _status(ended: _Ended, wish: _Wish) -> int:
    if wish.is_dry_run:
        return 0
    if ended.state is not None and ended.state.is_under_way:
        return INTERRUPTED_STATUS if ended.is_interrupted else 1
    return 1 if ended.reconciled is not None and ended.reconciled.backwards_count else 0
