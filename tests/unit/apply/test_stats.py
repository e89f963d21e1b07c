"""What the writer counts."""

from __future__ import annotations

import json

from storemirror.apply.stats import WriterStats
from storemirror.event.change import Outcome


def test_a_snapshot_is_json() -> None:
    """A child process prints it, the dashboard reads it."""
    stats = WriterStats()
    stats.count_outcomes([Outcome.APPLIED, Outcome.STALE, Outcome.APPLIED])
    stats.count_latencies([("dmSqlMirror", 10), ("dmSqlMirror", 12), ("followSqlMirror", 5)])
    assert json.loads(json.dumps(stats.snapshot())) == {
        "received": 0,
        "applied": 2,
        "repaired": 0,
        "duplicate": 0,
        "stale": 1,
        "expired": 0,
        "abandoned": 0,
        "dead_lettered": 0,
        "settled": 0,
        "lost_locks": 0,
        "latency_ms": {
            "dmSqlMirror": {"count": 2, "p50": 0.01, "p95": 0.012, "p99": 0.012},
            "followSqlMirror": {"count": 1, "p50": 0.005, "p95": 0.005, "p99": 0.005},
        },
    }
