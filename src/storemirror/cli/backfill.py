"""`storemirror backfill` and `storemirror reconcile`: what no trigger told, brought into SQL."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from storemirror import loop
from storemirror.apply.readiness import check_ready, refuse_if_off
from storemirror.check import reconcile as stage
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
from storemirror.source.backfill import (
    PAGE_SIZE,
    Backfill,
    BackfillProgress,
    begin_backfill,
    chosen_entities,
    resumed_backfill,
)
from storemirror.source.backfill_pace import MAX_DEPTH, DepthLimit, Pace, Unlimited
from storemirror.source.backfill_plan import BackfillState, Estimate, estimate_left
from storemirror.source.backfill_progress import DEFAULT_FILE, ProgressFile
from storemirror.source.backfill_sink import BusSink, DirectSink, Sink, SinkCounts
from storemirror.source.budget import ReadBudget
from storemirror.wiring import Parts

INTERRUPTED_STATUS: Final = 130

ChecksOption = Annotated[
    str,
    typer.Option(
        "--check",
        metavar="NAMES",
        help="Comma-separated: conversations,messages,follow,blocks; all by default.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What was asked for."""

    checks: tuple[str, ...]
    is_asking: bool
    max_reads: int | None
    price_usd: float
    is_quiet: bool
    is_direct: bool = False
    page_size: int = PAGE_SIZE
    max_depth: int = MAX_DEPTH
    file: Path = DEFAULT_FILE
    is_restart: bool = False


def backfill(
    context: typer.Context,
    checks: ChecksOption = "",
    yes: YesOption = False,
    max_reads: MaxReadsOption = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="Write straight into SQL, past the bus.")
    ] = False,
    page_size: Annotated[
        int, typer.Option("--page-size", min=1, max=5000, help="Documents a page.")
    ] = PAGE_SIZE,
    max_depth: Annotated[
        int,
        typer.Option("--max-depth", min=1, help="Wait while the bus holds this many events."),
    ] = MAX_DEPTH,
    price: PriceOption = DEFAULT_PRICE_USD,
    progress_file: Annotated[
        Path, typer.Option("--progress-file", metavar="FILE", help="Where the progress is kept.")
    ] = DEFAULT_FILE,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the progress of an earlier backfill.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Bring every document into SQL, while the application writes on.

    Counts first, says what it will cost, and asks.  Waits while the bus is full, so that the
    application's own events are not late for it.  A run that was killed, stopped or out of
    reads goes on where it was when the command is given again.  Exit status: 0 all is read, 1
    reads ran out before that, 130 stopped by Ctrl-C.
    """
    wish = _Wish(
        checks=names_in(checks),
        is_asking=not yes,
        max_reads=max_reads,
        price_usd=price,
        is_quiet=as_json,
        is_direct=direct,
        page_size=page_size,
        max_depth=max_depth,
        file=progress_file,
        is_restart=restart,
    )
    refuse_unasked(is_asking=wish.is_asking)
    parts = Parts(context.obj.settings())
    parts.require(*parts.store_settings, *parts.bus_settings, *(["sql.dsn"] if direct else []))
    raise typer.Exit(loop.run(_run_backfill(parts, wish)))


async def _run_backfill(parts: Parts, wish: _Wish) -> int:
    if wish.is_direct:
        refuse_if_off(is_mirror_on=parts.settings.is_mirror_on)
    entities = chosen_entities(parts.model, wish.checks)
    file = ProgressFile(wish.file)
    async with parts:
        with file.locked():
            if wish.is_restart:
                file.remove()
            store = await parts.store()
            budget = ReadBudget(wish.max_reads)
            state = resumed_backfill(file, entities, source=parts.source)
            if state is not None:
                estimate = estimate_left(state, wish.price_usd)
                announce(estimate, max_reads=wish.max_reads, done_count=state.document_count)
            else:
                estimate = await counted_reads(store, entities, budget, price_usd=wish.price_usd)
                announce(estimate, max_reads=wish.max_reads)
            if wish.is_asking:
                typer.confirm("Go on?", abort=True, err=True)
            if state is None:
                state = await begin_backfill(
                    store,
                    entities,
                    estimate,
                    file,
                    budget=budget,
                    source=parts.source,
                    page_size=wish.page_size,
                )
            sink = await _sink(parts, wish, run=state.run)
            with ProgressBar(parts.clock, is_quiet=wish.is_quiet) as bar, stop_on_signals() as stop:
                pace = await _pace(parts, wish, bar)
                work = Backfill(
                    state,
                    file,
                    store=store,
                    model=parts.model,
                    sink=sink,
                    budget=budget,
                    page_size=wish.page_size,
                    pace=pace,
                    on_progress=bar.show,
                )
                is_finished = await work.run(stop)
    _print_backfill(state, estimate, sink.counts, wish, is_finished=is_finished)
    if is_finished:
        return 0
    return INTERRUPTED_STATUS if stop.is_set() else 1


async def _sink(parts: Parts, wish: _Wish, *, run: str) -> Sink:
    bus = BusSink(await parts.publisher(), parts.clock, source=parts.source, run=run)
    if not wish.is_direct:
        return bus
    mirror = await parts.mirror()
    await check_ready(mirror, parts.clock)
    return DirectSink(mirror, bus, parts.clock)


async def _pace(parts: Parts, wish: _Wish, bar: ProgressBar) -> Pace:
    if wish.is_direct:
        return Unlimited()
    return DepthLimit(
        await parts.bus_admin(),
        parts.clock,
        subscription=parts.subscription,
        page_size=wish.page_size,
        max_depth=wish.max_depth,
        on_wait=bar.show_wait,
    )


def _print_backfill(
    state: BackfillState,
    estimate: Estimate,
    counts: SinkCounts,
    wish: _Wish,
    *,
    is_finished: bool,
) -> None:
    if wish.is_quiet:
        print_json(
            {
                "is_finished": is_finished,
                "estimate": estimate.to_json(),
                "document_count": state.document_count,
                "read_count": state.read_count,
                "published": counts.published,
                "known_to_bus": counts.known_to_bus,
                "outcomes": {outcome.value: n for outcome, n in counts.outcomes.items()},
                "unfit": counts.unfit,
                "unfit_listed": [{"path": p, "reason": why} for p, why in counts.unfit_listed],
                "run": state.run,
            }
        )
        return
    say(
        f"{counted(state.document_count, 'document')} read"
        f" ({counted(state.read_count, 'read')} paid for), {counts.published} events published"
    )
    for outcome, count in sorted(counts.outcomes.items()):
        say(f"  {outcome.value}: {count}")
    for path, why in counts.unfit_listed:
        say(f"  does not fit: {path}: {why}")
    if counts.unfit:
        say(f"{counts.unfit} do not fit; they are dead letters once the writer has seen them")
    if is_finished:
        say("all is read" + ("" if wish.is_direct else "; the writer applies what is on the bus"))
    else:
        say(f"not finished; the same command goes on from {wish.file}")


def reconcile(
    context: typer.Context,
    checks: ChecksOption = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be published.")
    ] = False,
    yes: YesOption = False,
    max_reads: MaxReadsOption = None,
    drain_seconds: DrainSecondsOption = 60.0,
    price: PriceOption = DEFAULT_PRICE_USD,
    as_json: JsonOption = False,
) -> None:
    """
    Publish documents that have no row, and delete rows whose document is gone.

    For what fires no trigger: managed imports, long outages, restores.  Exit status: 0 done,
    whatever was found; 1 with --dry-run something would be published, or documents are older
    than their rows (a restore), or reads ran out; 3 the backlog did not drain.
    """
    wish = _Wish(
        checks=names_in(checks),
        is_asking=not yes,
        max_reads=max_reads,
        price_usd=price,
        is_quiet=as_json,
    )
    refuse_unasked(is_asking=wish.is_asking)
    parts = Parts(context.obj.settings())
    parts.require(*parts.store_settings, *parts.bus_settings, "sql.dsn")
    settings = stage.ReconcileSettings(is_dry_run=dry_run, drain_timeout_s=drain_seconds)
    found = loop.run(_run_reconcile(parts, wish, settings))
    if as_json:
        print_json(found.to_json())
    else:
        print_reconcile(found)
    is_dirty = dry_run and found.published_count > 0
    raise typer.Exit(1 if is_dirty or found.backwards_count or not found.is_finished else 0)


async def _run_reconcile(
    parts: Parts, wish: _Wish, settings: stage.ReconcileSettings
) -> stage.ReconcileResult:
    entities = chosen_entities(parts.model, wish.checks)
    async with parts:
        store = await parts.store()
        budget = ReadBudget(wish.max_reads)
        estimate = await counted_reads(store, entities, budget, price_usd=wish.price_usd)
        announce(estimate, max_reads=wish.max_reads)
        if wish.is_asking:
            typer.confirm("Go on?", abort=True, err=True)
        with ProgressBar(parts.clock, is_quiet=wish.is_quiet) as bar:

            def show(document_count: int) -> None:
                bar.show(
                    BackfillProgress(
                        document_count=document_count,
                        expected_count=estimate.document_count,
                        read_count=budget.spent_count,
                    )
                )

            return await stage.run_reconcile(
                store=store,
                mirror=await parts.mirror(),
                entities=entities,
                publisher=await parts.publisher(),
                bus_admin=await parts.bus_admin(),
                subscription=parts.subscription,
                pending=await parts.pending(),
                clock=parts.clock,
                budget=budget,
                source=parts.source,
                run=f"reconcile-{secrets.token_hex(6)}",
                settings=settings,
                on_progress=show,
            )


def print_reconcile(found: stage.ReconcileResult) -> None:
    """Print what a reconcile found, as a person reads it."""
    verb = "would be published" if found.is_dry_run else "published"
    for name, counts in found.counts.items():
        say(
            f"{name}: {counted(counts.document_count, 'document')}, "
            f"{counted(counts.live_row_count, 'live row')}; {verb}: {counts.missing_count} missing,"
            f" {counts.older_count} newer than their row, {counts.deleted_count} deletes"
        )
    for path in found.backwards_listed:
        say(f"  older than its row: {path}")
    if found.backwards_count:
        say(
            f"{counted(found.backwards_count, 'document')} older than the row, with nothing under"
            " way: commit times went backwards, as after a restore.  Nothing was published for"
            " them: run `storemirror rebase`, see docs/howto/backfill.md#restored-from-a-backup"
        )
    if not found.is_finished:
        why = "it was stopped" if found.is_stopped else "the reads are spent"
        seen = "nothing" if found.is_dry_run else "what was seen so far"
        say(f"not finished: {why}; {seen} is published")


def names_in(text: str) -> tuple[str, ...]:
    """Read the names that an option lists, comma by comma."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
