"""`storemirror writer` and `storemirror drain`: from the bus into SQL."""

from __future__ import annotations

from typing import Annotated

import typer

from storemirror import loop
from storemirror.apply.drain import DrainStats
from storemirror.apply.readiness import refuse_if_off
from storemirror.apply.stats import WriterStats
from storemirror.cli.output import print_json, stop_on_signals
from storemirror.collector import calm_collector
from storemirror.wiring import Parts


def writer(context: typer.Context) -> None:
    """
    Apply events from the bus to SQL until stopped (Ctrl-C or SIGTERM).

    What is in hand is finished or given back within the shutdown time.  Any number may run at
    once.  Needs USE_SQL_DM_WRITE_MIRROR=true.

    Least roles on Service Bus: Azure Service Bus Data Receiver and Data Sender.
    """
    calm_collector()
    stats = loop.run(_run_writer(Parts(context.obj.settings())))
    print_json(stats.snapshot())


async def _run_writer(parts: Parts) -> WriterStats:
    refuse_if_off(is_mirror_on=parts.settings.is_mirror_on)
    parts.require(*parts.applying_settings)
    async with parts:
        processor = await parts.writer()
        with stop_on_signals() as stop:
            await processor.run(stop)
        return processor.stats


def drain(
    context: typer.Context,
    max_seconds: Annotated[
        float,
        typer.Option("--max-seconds", min=1.0, help="Receive nothing more after so long."),
    ] = 50.0,
) -> None:
    """
    Apply what waits, print one line of figures, and end (drainRealtimeMirrorQueue).

    Made to be run every minute.  Ends when nothing waits or the time is used up; what waits then
    is left for the next run.  Needs USE_SQL_DM_WRITE_MIRROR=true.

    Least role on Service Bus: Azure Service Bus Data Owner, for the depth.
    """
    calm_collector()
    stats = loop.run(_run_drain(Parts(context.obj.settings()), max_seconds))
    print_json(stats.as_line())


async def _run_drain(parts: Parts, max_duration_s: float) -> DrainStats:
    async with parts:
        return await parts.drain(max_duration_s=max_duration_s)
