"""Each benchmark runs at a tiny size, and gives figures that can be figures.  Nothing is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.house.rules import ROOT

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

TINY = (
    *("--events", "400", "--conversations", "10", "--rounds", "1", "--no-durable"),
    *("--paced-s", "0.5", "--rate", "40", "--flat-out", "100", "--memory-s", "0.5"),
    *("--documents", "300"),
    *("--messages", "400", "--gateway-s", "0.2", "--gateway-rate", "50"),
)


def bench(part: str, folder: Path) -> dict[str, Any]:
    """Run one part, as `make bench` does, and give the JSON that it wrote."""
    out = folder / "out" / "latest.json"
    command = [sys.executable, "-m", "bench", part, *TINY, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "PostgreSQL" in done.stdout
    written: dict[str, Any] = json.loads(out.read_text())
    assert {"cores", "python", "postgres", "postgres_is_durable"} <= set(written["machine"])
    return written


def test_apply_gives_the_writer_and_what_it_is_beside(tmp_path: Path) -> None:
    """All contestants are verified before anything is printed."""
    found = bench("apply", tmp_path)["apply"]
    names = ("events", "same_sql", "bare_upsert", "row_at_a_time")
    assert all(found[f"{name}_per_s"] > 0 for name in names)
    assert found["share_of_same_sql"] > 0


def test_scale_gives_both_sizes(tmp_path: Path) -> None:
    """The rows that were there before are told from those that were written."""
    found = bench("scale", tmp_path)["scale"]
    assert found["1x_per_s"] > 0
    assert found["10x_per_s"] > 0


def test_hot_gives_one_and_two_writers(tmp_path: Path) -> None:
    """One conversation gets every message."""
    found = bench("hot", tmp_path)["hot"]
    assert all(found[f"{where}_{n}_per_s"] > 0 for where in ("spread", "hot") for n in (1, 2))


def test_pipeline_gives_latency_and_rates(tmp_path: Path) -> None:
    """Documents and rows are compared by the checker afterwards."""
    found = bench("pipeline", tmp_path)["pipeline"]
    latency_ms = found["latency_ms"]
    assert 0 < latency_ms["p50"] <= latency_ms["p95"] <= latency_ms["p99"]
    assert found["events_per_s"] > 0
    assert found["two_writers_per_s"] > 0


def test_memory_gives_what_the_writer_holds(tmp_path: Path) -> None:
    """Of the writer's process, not of the benchmark's."""
    found = bench("memory", tmp_path)["memory"]
    assert 10 < found["rss_mb_max"] < 10_000
    assert found["rss_mb_max_large"] > 10


def test_backfill_gives_its_share_of_a_bare_scan(emulator_host: str, tmp_path: Path) -> None:
    """Each document is read once; the benchmark's emulator is its own, like the tests' one."""
    assert emulator_host
    found = bench("backfill", tmp_path)["backfill"]
    assert found["documents_per_s"] > 0
    assert found["bare_scan_per_s"] > 0
    # One counts, one tells the time, and each document costs one.
    assert found["read_count"] == 302


def test_gateway_gives_the_server_the_readers_and_the_bare_queries(tmp_path: Path) -> None:
    """Answers are compared with the workload before anything is measured."""
    found = bench("gateway", tmp_path)["gateway"]
    for contestant in ("gateway", "bare_http", "bare_query", "sql_reader", "document_reader"):
        for call in ("list_conversations", "list_messages", "get_relationship"):
            figures = found[contestant][call]
            assert figures["per_s"] > 0
            assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
