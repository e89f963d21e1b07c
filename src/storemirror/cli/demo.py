"""`storemirror demo`: the whole path on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from storemirror import loop
from storemirror.cli.output import print_json, say, stop_on_signals
from storemirror.demo.outcome import DemoResult
from storemirror.demo.run import DemoOptions, run_demo
from storemirror.demo.view import live_view


def demo(
    events: Annotated[
        int | None,
        typer.Option("--events", min=1, help="Stop after so many document writes; else Ctrl-C."),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0.1, help="Document writes a second to aim at.")
    ] = 250.0,
    seed: Annotated[int, typer.Option("--seed", help="What the app's people do.")] = 1,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65_535, help="Port of the PostgreSQL; 0: any free one."),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end.")
    ] = False,
) -> None:
    """
    Let a small social app live, mirror it into SQL, kill the writer once, and compare.

    Starts a PostgreSQL of its own from a wheel; needs no account and leaves nothing behind.  The
    bus repeats and reorders deliveries on purpose.  Exit status 0 only if both sides agree.
    """
    options = DemoOptions(events=events, rate_per_s=rate, seed=seed, port=port)
    result = loop.run(_run(options, Console(stderr=as_json)))
    if as_json:
        print_json(result.to_json())
    else:
        say(result.sentence)
    is_whole = events is None or (result.written >= events and not result.gaps)
    if events is not None and result.written < events:
        typer.echo(f"stopped after {result.written} of {events} writes", err=True)
    raise typer.Exit(0 if is_whole and not result.faults else 1)


async def _run(options: DemoOptions, console: Console) -> DemoResult:
    with stop_on_signals() as stop, live_view(console) as show:
        return await run_demo(options, stop, show)
