"""`storemirror check`: both sides compared in full."""

from __future__ import annotations

import secrets
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from storemirror import loop
from storemirror.check import result
from storemirror.check.repair import repair as repair_mismatches
from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import run_check
from storemirror.cli.output import JsonOption, counted, print_json, say
from storemirror.wiring import Parts

#: Differences that are printed, and those that one --repair sends.
LISTED_MAX_COUNT: Final = CheckSettings().max_mismatches
REPAIRED_MAX_COUNT: Final = 10_000


def check(
    context: typer.Context,
    checks: Annotated[
        str,
        typer.Option(
            "--check",
            metavar="NAMES",
            help="Comma-separated: conversations,messages,follow,blocks; all by default.",
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Most documents of each kind; all by default."),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option("--drain-seconds", min=0.0, help="Longest wait for the backlog to drain."),
    ] = 60.0,
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
    as_json: JsonOption = False,
) -> None:
    """
    Compare documents with rows, and name document and field of what differs.

    Firestore cannot tell which triggers are still to deliver: what differs there is looked at
    again until its commit is --grace seconds old, and only then called a difference.

    Exit status: 0 both sides agree, 1 they differ, 3 the comparison could not finish (as when
    the backlog does not drain).  After --repair, run the check again: it tells whether it held.
    """
    settings = CheckSettings(
        limit=limit,
        max_mismatches=REPAIRED_MAX_COUNT if repair else LISTED_MAX_COUNT,
        checks=tuple(name.strip() for name in checks.split(",") if name.strip()),
        drain_timeout_s=drain_seconds,
        grace_s=grace_seconds,
    )
    parts = Parts(context.obj.settings())
    parts.require(*parts.store_settings, *parts.bus_settings, "sql.dsn")
    found, repaired_count = loop.run(_run(parts, settings, with_repair=repair, quiet=as_json))
    if as_json:
        shown = found.to_json() | {"limit": limit}
        shown |= {"repaired_count": repaired_count} if repair else {}
        print_json(shown)
    else:
        print_result(found, limit)
        if repair:
            say(repair_words(found, repaired_count))
    raise typer.Exit(0 if found.is_clean else 1)


async def _run(
    parts: Parts, settings: CheckSettings, *, with_repair: bool, quiet: bool
) -> tuple[CheckResult, int]:
    async with parts:
        store = await parts.store()
        mirror = await parts.mirror()
        with _bar(quiet) as bar:
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
                on_progress=show,
            )
        if not with_repair or not found.mismatches:
            return found, 0
        count = await repair_mismatches(
            found.mismatches,
            store=store,
            mirror=mirror,
            model=parts.model,
            publisher=await parts.publisher(),
            source=parts.source,
            run=f"repair-{secrets.token_hex(6)}",
        )
        return found, count


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


def repair_words(found: CheckResult, repaired_count: int) -> str:
    """Say what was sent, and whether that was all."""
    left_count = found.mismatch_count - len(found.mismatches)
    rest = f", of {counted(found.mismatch_count, 'mismatch')}" if left_count else ""
    again = "; then --repair sends the rest" if left_count else ""
    return f"sent again: {repaired_count}{rest}; run the check once more when it is applied{again}"


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
