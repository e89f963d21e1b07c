"""`make bench`: measure, print one table, and write bench/out/latest.json."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
from rich.console import Console

from bench.options import BenchOptions, Part
from bench.run import run_bench
from storemirror import loop

OUT: Final = Path(__file__).parent / "out" / "latest.json"


def main(
    parts: Annotated[
        list[Part] | None, typer.Argument(help="Which benchmarks; all by default.")
    ] = None,
    events: Annotated[
        int, typer.Option(min=100, help="Deliveries of apply, scale and hot.")
    ] = 100_000,
    conversations: Annotated[int, typer.Option(min=1)] = 2_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often contestants take turns.")] = 3,
    lanes: Annotated[int, typer.Option(min=1, help="Connections of a writer.")] = 2,
    batch: Annotated[int, typer.Option(min=1, max=2_000, help="Most events a batch.")] = 2_000,
    rate: Annotated[float, typer.Option(min=1, help="Paced commits a second.")] = 500.0,
    paced_s: Annotated[float, typer.Option(min=0.1, help="How long they are paced.")] = 20.0,
    flat_out: Annotated[int, typer.Option(min=1, help="Documents of pipeline, flat out.")] = 40_000,
    memory_s: Annotated[
        float, typer.Option(min=0.1, help="How long memory is watched; 600 for the whole test.")
    ] = 60.0,
    documents: Annotated[int, typer.Option(min=1, help="Documents of backfill.")] = 20_000,
    messages: Annotated[int, typer.Option(min=100, help="Messages of gateway.")] = 100_000,
    gateway_s: Annotated[float, typer.Option(min=0.1, help="How long each call is asked.")] = 5.0,
    gateway_rate: Annotated[float, typer.Option(min=1, help="Paced calls a second.")] = 300.0,
    durable: Annotated[
        bool, typer.Option(help="Whether PostgreSQL flushes to disk (fsync).")
    ] = True,
    seed: Annotated[int, typer.Option()] = 1,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = OUT,
) -> None:
    """
    Measure how fast the mirror is, beside what it could at best be.

    Every contestant's tables are compared with what the workload says.  With PEERS=1 `dlt` and
    Singer's `target-postgres` take part.  About ten minutes on two quiet cores.
    """
    console = Console(stderr=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    options = BenchOptions(
        parts=tuple(parts or Part),
        event_count=events,
        conversation_count=conversations,
        round_count=rounds,
        row_event_count=min(events, 5_000),
        lane_count=lanes,
        batch_max_events=batch,
        rate_per_s=rate,
        paced_s=paced_s,
        flat_out_count=flat_out,
        memory_s=memory_s,
        large_count=60 if memory_s >= 10 else 4,
        backfill_count=documents,
        message_count=messages,
        gateway_s=gateway_s,
        gateway_rate_per_s=gateway_rate,
        is_durable=durable,
        seed=seed,
        peers_python=os.environ.get("STOREMIRROR_PEERS_PYTHON", ""),
    )
    report = loop.run(run_bench(options, lambda part: console.print(f"{part} ...")))
    report.write(out)
    report.print(Console())
    console.print(f"written: {out}")


if __name__ == "__main__":
    typer.run(main)
