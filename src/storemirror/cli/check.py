"""`storemirror check`: both sides compared in full."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from storemirror import loop
from storemirror.check import result
from storemirror.check.repair import Repaired
from storemirror.check.repair import repair as repair_mismatches
from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import entities_of, run_check, verify_comparable
from storemirror.cli.backfill import ChecksOption, names_in
from storemirror.cli.cost import (
    DEFAULT_PRICE_USD,
    DrainSecondsOption,
    MaxReadsOption,
    PriceOption,
    announce,
    counted_reads,
)
from storemirror.cli.output import JsonOption, counted, print_json, say
from storemirror.source.backfill_plan import Estimate
from storemirror.source.budget import ReadBudget
from storemirror.wiring import Parts

#: Differences that are printed, and those that one --repair sends.
LISTED_MAX_COUNT: Final = CheckSettings().max_mismatches
REPAIRED_MAX_COUNT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What was asked for."""

    with_repair: bool
    max_reads: int | None
    price_usd: float
    is_quiet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How it ended."""

    found: CheckResult
    estimate: Estimate
    #: None: nothing was to be repaired.
    repaired: Repaired | None
    #: Reads paid for: counting, comparison and repair.
    read_count: int


def check(
    context: typer.Context,
    checks: ChecksOption = "",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Most documents of each kind; all by default."),
    ] = None,
    drain_seconds: DrainSecondsOption = 60.0,
    grace_seconds: Annotated[
        float | None,
        typer.Option(
            "--grace",
            min=0.0,
            help="Seconds that a trigger may take; by default 10 on Firestore, else 0.",
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Send what differs again, with origin `repair`."),
    ] = False,
    max_reads: MaxReadsOption = None,
    price: PriceOption = DEFAULT_PRICE_USD,
    as_json: JsonOption = False,
) -> None:
    """
    Compare documents with rows, and name document and field of what differs.

    Firestore cannot tell which triggers are still to deliver: what differs there is looked at
    again until its commit is --grace seconds old, and only then called a difference.

    Counts first and says what it will cost, but never asks.  Where --max-reads are spent before
    the end, it says what was compared and what was not.

    Exit status: 0 both sides agree, 1 they differ, 3 the comparison could not finish (as when
    the backlog does not drain, or reads run out) and nothing differs so far.  After --repair, run
    the check again: it tells whether it held.
    """
    settings = CheckSettings(
        limit=limit,
        max_mismatches=REPAIRED_MAX_COUNT if repair else LISTED_MAX_COUNT,
        checks=names_in(checks),
        drain_timeout_s=drain_seconds,
        grace_s=grace_seconds,
    )
    parts = Parts(context.obj.settings())
    parts.require(*parts.store_settings, *parts.bus_settings, "sql.dsn")
    wish = _Wish(with_repair=repair, max_reads=max_reads, price_usd=price, is_quiet=as_json)
    ended = loop.run(_run(parts, settings, wish))
    if as_json:
        print_json(_as_json(ended, limit))
    else:
        print_result(ended.found, limit)
        if ended.repaired is not None:
            say(repair_words(ended.found, ended.repaired))
    raise typer.Exit(0 if ended.found.is_clean else 1)


async def _run(parts: Parts, settings: CheckSettings, wish: _Wish) -> _Ended:
    entities = entities_of(parts.model, settings.checks)
    budget = ReadBudget(wish.max_reads)
    async with parts:
        store = await parts.store()
        mirror = await parts.mirror()
        await verify_comparable(mirror)
        estimate = await counted_reads(
            store, entities, budget, price_usd=wish.price_usd, max_documents=settings.limit
        )
        announce(estimate, max_reads=wish.max_reads)
        typer.echo("what seems to differ is read once more, or until it stays as it is", err=True)
        with _bar(wish.is_quiet) as bar:
            task = bar.add_task("waiting for the backlog", total=None)

            def show(progress: result.Progress) -> None:
                at = progress.check or "waiting for the backlog"
                seen = f"{progress.document_count} documents, {progress.row_count} rows"
                bar.update(task, description=f"{at}: {seen}")

            found = await run_check(
                store=store,
                mirror=mirror,
                model=parts.model,
                bus_admin=await parts.bus_admin(),
                subscription=parts.subscription,
                pending=await parts.pending(),
                clock=parts.clock,
                settings=settings,
                budget=budget,
                on_progress=show,
            )
        repaired = Repaired(sent_count=0, unread_count=0) if wish.with_repair else None
        if repaired is not None and found.mismatches:
            repaired = await repair_mismatches(
                found.mismatches,
                store=store,
                mirror=mirror,
                model=parts.model,
                publisher=await parts.publisher(),
                budget=budget,
                source=parts.source,
                run=f"repair-{secrets.token_hex(6)}",
            )
        return _Ended(
            found=found, estimate=estimate, repaired=repaired, read_count=budget.spent_count
        )


def _as_json(ended: _Ended, limit: int | None) -> dict[str, object]:
    shown = ended.found.to_json() | {"limit": limit, "estimate": ended.estimate.to_json()}
    shown |= {"read_count": ended.read_count}
    if ended.repaired is not None:
        shown["repaired_count"] = ended.repaired.sent_count
        shown["unrepaired_count"] = ended.repaired.unread_count
    return shown


def _bar(quiet: bool) -> Progress:
    """Make the progress display, on standard error; nothing when it is no terminal."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )


def repair_words(found: CheckResult, repaired: Repaired) -> str:
    """Say what was sent, and whether that was all."""
    left_count = found.mismatch_count - len(found.mismatches) + repaired.unread_count
    rest = f", of {counted(found.mismatch_count, 'mismatch')}" if left_count else ""
    spent = (
        f"; no reads were left for {counted(repaired.unread_count, 'document')}"
        if repaired.unread_count
        else ""
    )
    again = "; then --repair sends the rest" if left_count else ""
    return (
        f"sent again: {repaired.sent_count}{rest}{spent};"
        f" run the check once more when it is applied{again}"
    )


def print_result(found: CheckResult, limit: int | None) -> None:
    """Print the result as a person reads it: figures, differences, one sentence."""
    for name, counts in found.counts.items():
        say(
            f"{name}: {counted(counts.document_count, 'document')}, "
            f"{counted(counts.row_count, 'row')}, {counted(counts.mismatch_count, 'mismatch')}"
        )
    listed = found.mismatches[:LISTED_MAX_COUNT]
    for mismatch in listed:
        say(f"  {mismatch}")
    unlisted = found.mismatch_count - len(listed)
    if unlisted > 0:
        say(f"  and {unlisted} more")
    _print_remarks(found)
    if not found.is_clean:
        say("the sides differ")
    elif limit is None:
        say("both sides agree")
    else:
        say(f"the first {limit} of each kind agree; the rest was not compared")


def _print_remarks(found: CheckResult) -> None:
    """Print what is no difference by itself, and that a person should know."""
    if not found.is_complete:
        say(found.coverage())
    if found.dead_letter_count:
        say(f"dead letters: {found.dead_letter_count} (storemirror dlq list)")
    if found.unverified_count:
        say(f"unverified documents: {found.unverified_count} (storemirror dlq unverified)")
    if found.unsettled_count:
        say(f"changed at every look: {found.unsettled_count}; check again when it is calmer")
    if found.late_count:
        say(f"late: {counted(found.late_count, 'document')}, right within the grace; no difference")
    if found.backwards_count:
        say(
            f"{counted(found.backwards_count, 'document')} older than the row, with nothing under"
            " way.  After a restore from backup run `storemirror rebase`, see"
            " docs/howto/backfill.md#restored-from-a-backup; else --repair mends their rows"
        )
