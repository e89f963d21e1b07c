"""What the writer counts, and how exact its percentiles are."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from storemirror.apply.stats import LatencyHistogram, WriterStats, bucket_of, upper_bound_us
from storemirror.event.change import Outcome


@given(st.integers(min_value=0, max_value=2**40 - 1))
def test_a_bucket_is_at_most_a_sixteenth_too_high(value_us: int) -> None:
    """A percentile is never flattered, and never far off."""
    bound = upper_bound_us(bucket_of(value_us))
    assert value_us <= bound <= value_us * 17 / 16


@given(st.integers(min_value=0, max_value=2**62), st.integers(min_value=0, max_value=2**62))
def test_larger_values_have_no_smaller_bucket(one: int, other: int) -> None:
    """Buckets out of order would make percentiles meaningless."""
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


def test_what_is_beyond_measure_shares_the_last_bucket() -> None:
    """The memory stays the same, whatever comes."""
    histogram = LatencyHistogram()
    for value_us in (-5, 2**40, 2**62):
        histogram.add(value_us)
    assert histogram.percentile_us(1) == 0
    assert histogram.percentile_us(100) == 2**40


def test_percentiles_of_a_known_spread() -> None:
    """The three numbers of the dashboard."""
    histogram = LatencyHistogram()
    for value_ms in range(1, 101):
        histogram.add(value_ms * 1_000)
    percentiles = histogram.percentiles_ms()
    for name, exact in (("p50", 50), ("p95", 95), ("p99", 99)):
        found = percentiles[name]
        assert found is not None
        assert exact <= found <= exact * 17 / 16


def test_without_values_there_is_no_percentile() -> None:
    """Zero would look like a very fast mirror."""
    assert LatencyHistogram().percentiles_ms() == {"p50": None, "p95": None, "p99": None}


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
