"""Runs the parts one after the other, and collects their figures."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bench.apply import bare_upsert, measure, row_at_a_time, same_sql, writer
from bench.backfill import measure_backfill
from bench.bare_http import bare_http
from bench.databases import BenchServer, bench_server, embedded_server
from bench.gateway import GatewayWorld, Pace, measure_gateway
from bench.gateway_readers import bare_queries, document_readers, sql_readers
from bench.gateway_server import gateway
from bench.gateway_workload import SocialShape, make_social_workload
from bench.machine import machine_facts
from bench.memory import measure_memory
from bench.options import BenchOptions, Part
from bench.peers import measure_peers
from bench.pipeline import measure_flat_out, measure_paced
from bench.report import Report
from bench.scale import measure_hot, measure_scale
from bench.workload import WorkloadShape, make_workload
from storemirror.apply.port import WriterSettings
from storemirror.clock import SystemClock
from storemirror.collector import calm_collector
from tests.support.emulator_process import EmulatorMissing

Tell = Callable[[str], None]


async def run_bench(options: BenchOptions, tell: Tell) -> Report:
    """
    Run what was asked for.

    Args:
        options: parts and sizes.
        tell: told what begins.

    Raises:
        ResultsWrong: a contestant's tables are not what the workload says.
        PipelineFailed: documents and rows differ, or a writer ended.
        EmbeddedServerFailed: PostgreSQL did not start.
    """
    named = os.environ.get("STOREMIRROR_POSTGRES_BIN")
    is_durable = options.is_durable
    calm_collector()
    with embedded_server(Path(named) if named else None, is_durable=is_durable) as embedded:
        async with bench_server(embedded, is_durable=is_durable) as server:
            facts = machine_facts(postgres_version=await server.version(), is_durable=is_durable)
            report = Report(machine=facts)
            for part in options.parts:
                tell(part)
                await _PARTS[part](server, options, report)
    return report


def _shape(options: BenchOptions, event_count: int | None = None) -> WorkloadShape:
    return WorkloadShape(
        event_count=options.event_count if event_count is None else event_count,
        conversation_count=options.conversation_count,
        seed=options.seed,
    )


def _settings(options: BenchOptions) -> WriterSettings:
    return WriterSettings(
        is_mirror_on=True,
        lane_count=options.lane_count,
        batch_max_events=options.batch_max_events,
    )


async def _apply(server: BenchServer, options: BenchOptions, report: Report) -> None:
    workload, clock, settings = make_workload(_shape(options)), SystemClock(), _settings(options)
    contestants = [
        writer(workload, clock, settings),
        same_sql(workload, settings),
        bare_upsert(workload),
        row_at_a_time(make_workload(_shape(options, options.row_event_count))),
    ]
    found = await measure(server, contestants, clock, round_count=options.round_count)
    share = found["writer"].per_s / found["same_sql"].per_s
    report.add_measured("apply.events_per_s", found["writer"], f"{share:.2f} of same_sql")
    report.figures["apply.share_of_same_sql"] = round(share, 3)
    report.add_measured("apply.same_sql_per_s", found["same_sql"], "without our Python")
    report.add_measured("apply.bare_upsert_per_s", found["bare_upsert"], "no audit, no roll-ups")
    report.add_measured("apply.row_at_a_time_per_s", found["row_at_a_time"], "a commit each")
    if options.peers_python:
        for name, per_s in (await measure_peers(server, workload, options.peers_python)).items():
            report.add(f"apply.peers.{name}_per_s", per_s, "no audit, no roll-ups")


async def _scale(server: BenchServer, options: BenchOptions, report: Report) -> None:
    found = await measure_scale(
        server,
        make_workload(_shape(options)),
        SystemClock(),
        _settings(options),
        round_count=options.round_count,
    )
    share = found["10x"].per_s / found["1x"].per_s
    report.add_measured("scale.1x_per_s", found["1x"], "as many rows in the tables as are written")
    report.add_measured("scale.10x_per_s", found["10x"], f"ten times as many: {share:.2f}")
    report.figures["scale.share"] = round(share, 3)


async def _hot(server: BenchServer, options: BenchOptions, report: Report) -> None:
    found = await measure_hot(
        server, _shape(options), SystemClock(), _settings(options), round_count=options.round_count
    )
    for name, measured in found.items():
        where, count = name.split("_")
        words = (
            f"{'one conversation' if where == 'hot' else 'many'}, {count} writer(s), one process"
        )
        report.add_measured(f"hot.{name}_per_s", measured, words)


async def _pipeline(server: BenchServer, options: BenchOptions, report: Report) -> None:
    paced = await measure_paced(server, rate_per_s=options.rate_per_s, duration_s=options.paced_s)
    for name, latency_ms in paced.latency_ms.items():
        words = f"commit to visible at {paced.events_per_s:.0f} events/s"
        report.add(f"pipeline.latency_ms.{name}", latency_ms, words)
    report.figures["pipeline.paced_per_s"] = round(paced.events_per_s, 1)
    for count, key in ((1, "pipeline.events_per_s"), (2, "pipeline.two_writers_per_s")):
        flat_out = await measure_flat_out(
            server, event_count=options.flat_out_count, writer_count=count
        )
        report.add(key, flat_out.events_per_s, f"flat out, {count} writer process(es)")


async def _memory(server: BenchServer, options: BenchOptions, report: Report) -> None:
    found = await measure_memory(
        server,
        rate_per_s=options.memory_rate_per_s,
        duration_s=options.memory_s,
        large_count=options.large_count,
    )
    words = f"{options.memory_s:.0f} s, {found.event_count} events"
    report.add("memory.rss_mb_max", found.rss_mb_max, words)
    report.add("memory.rss_mb_early", found.rss_mb_early, "mean of the second quarter")
    report.add("memory.rss_mb_late", found.rss_mb_late, "mean of the last quarter")
    report.add("memory.rss_mb_max_large", found.rss_mb_max_large, "documents of 1 MiB")


async def _backfill(server: BenchServer, options: BenchOptions, report: Report) -> None:
    try:
        found = await measure_backfill(
            server,
            document_count=options.backfill_count,
            round_count=options.round_count,
            seed=options.seed,
        )
    except EmulatorMissing as exc:
        report.leave_out("backfill", str(exc))
        return
    words = f"{found.share:.2f} of the bare scan ({', '.join(f'{s:.2f}' for s in found.shares)})"
    report.add("backfill.documents_per_s", found.documents_per_s, words)
    report.add("backfill.bare_scan_per_s", found.bare_scan_per_s, "Google's client, one query")
    report.figures["backfill.share_of_bare_scan"] = round(found.share, 3)
    report.add("backfill.read_count", found.read_count, f"{found.document_count} documents")
    words = f"this process; {found.rss_mb_before:.0f} before the first backfill"
    report.add("backfill.rss_mb_max", found.rss_mb_max, words)
    report.add("backfill.rss_mb_early", found.rss_mb_early, "mean of the second quarter")
    report.add("backfill.rss_mb_late", found.rss_mb_late, "mean of the last quarter")


async def _gateway(server: BenchServer, options: BenchOptions, report: Report) -> None:
    shape = SocialShape(
        message_count=options.message_count,
        conversation_count=options.conversation_count,
        seed=options.seed,
    )
    rate = options.gateway_rate_per_s
    pace = Pace(
        client_count=options.gateway_client_count,
        duration_s=options.gateway_s,
        round_count=options.round_count,
    )
    async with server.new_mirror() as mirror:
        world = GatewayWorld(
            mirror=mirror,
            workload=make_social_workload(shape),
            clock=SystemClock(),
            postgres_pid=server.process_id,
            documents_dsn=server.server.dsn(await server.create_database()),
            bus_dsn=server.server.dsn(await server.create_database()),
        )
        contestants = [
            gateway(rate),
            bare_http(rate),
            bare_queries(rate),
            sql_readers(rate),
            document_readers(options.document_rate_per_s),
        ]
        found = await measure_gateway(world, contestants, pace)
    rates = {contestant.name: contestant.rate_per_s for contestant in contestants}
    for (name, call), figures in found.items():
        key = f"gateway.{name}.{call}"
        own_us, postgres_us = figures.own_cpu_us, figures.postgres_cpu_us
        cost = f"{own_us:.0f} µs Python + {postgres_us:.0f} µs PostgreSQL a call"
        shares = ", ".join(
            f"{figures.per_s / found[bare, call].per_s:.2f} of {bare}"
            for bare in ("bare_http", "bare_query")
        )
        report.add(f"{key}.per_s", figures.per_s, f"{cost}; {shares}")
        for quantile, latency_ms in figures.latency_ms.items():
            report.add(f"{key}.{quantile}_ms", latency_ms, f"at {rates[name]:.0f} calls/s")


_PARTS: Mapping[Part, Callable[[BenchServer, BenchOptions, Report], Awaitable[None]]] = {
    Part.APPLY: _apply,
    Part.SCALE: _scale,
    Part.HOT: _hot,
    Part.PIPELINE: _pipeline,
    Part.MEMORY: _memory,
    Part.BACKFILL: _backfill,
    Part.GATEWAY: _gateway,
}
