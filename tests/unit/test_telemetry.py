"""How latencies are kept, and how exact their percentiles are."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from storemirror.telemetry import (
    CallableLatencyTracker,
    LatencyHistogram,
    bucket_of,
    upper_bound_us,
)


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


@given(st.lists(st.integers(min_value=-5, max_value=2**62)))
def test_many_values_at_once_are_counted_as_one_by_one(values_us: list[int]) -> None:
    """A writer counts a batch at once, and a histogram does not tell how it was filled."""
    one_by_one, at_once = LatencyHistogram(), LatencyHistogram()
    for value_us in values_us:
        one_by_one.add(value_us)
    at_once.add_all(values_us)
    assert vars(at_once) == vars(one_by_one)


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


def test_a_call_counts_for_all_callables_and_for_its_own_category() -> None:
    """The promise is about all of them; who looks for the slow one looks at its own (issue 7)."""
    tracker = CallableLatencyTracker()
    for latency_us in (1_000, 3_000):
        tracker.record(
            "sqlGatewayDmSend",
            category="dmSqlMirror",
            source="firestore",
            outcome="OK",
            latency_us=latency_us,
        )
    lines = json.loads(json.dumps(tracker.snapshot()))
    assert [(line["category"], line["count"]) for line in lines] == [
        ("dmSqlMirror", 2),
        ("sqlMirror", 2),
    ]
    assert all(3.0 <= line["latency_ms"]["p99"] < 3.2 for line in lines)


def test_answers_of_both_sources_and_refusals_are_told_apart() -> None:
    """A fast fallback must not hide a slow mirror."""
    tracker = CallableLatencyTracker()
    for source, outcome in (("sql", "OK"), ("firestore", "OK"), ("none", "NOT_FOUND")):
        tracker.record(
            "sqlGatewayDmListMessages",
            category="dmSqlMirror",
            source=source,
            outcome=outcome,
            latency_us=500,
        )
    found = {(line["source"], line["outcome"]) for line in tracker.snapshot()}
    assert found == {("sql", "OK"), ("firestore", "OK"), ("none", "NOT_FOUND")}
