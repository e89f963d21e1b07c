"""
What a writer counts, and how it keeps latencies in bounded memory.

Pure values: no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Final

from storemirror.event.change import Outcome

#: Buckets in each doubling of the value: a bucket is at most 1/16 wider than its lower bound.
_STEPS: Final = 16
_STEP_BITS: Final = 4
#: Values from 2^40 microseconds (12 days) on share the last bucket.
_LAST_BUCKET: Final = (40 - _STEP_BITS + 1) * _STEPS


def bucket_of(value_us: int) -> int:
    """
    Give the bucket of a value: its highest five bits and where they stand.

    >>> [bucket_of(v) for v in (0, 15, 16, 31, 32, 33, 34, 2**50)]
    [0, 15, 16, 31, 32, 32, 33, 592]
    """
    shift = value_us.bit_length() - _STEP_BITS - 1
    if shift <= 0:
        return max(value_us, 0)
    return min(shift * _STEPS + (value_us >> shift), _LAST_BUCKET)


def upper_bound_us(bucket: int) -> int:
    """
    Give the largest value that falls into a bucket; of the last, the smallest.

    >>> [upper_bound_us(bucket_of(v)) for v in (0, 16, 33, 34, 1_000_000)]
    [0, 16, 33, 35, 1015807]
    """
    shift = bucket // _STEPS - 1
    if shift <= 0 or bucket >= _LAST_BUCKET:
        return bucket if bucket < _LAST_BUCKET else 1 << 40
    return ((_STEPS + bucket % _STEPS + 1) << shift) - 1


class LatencyHistogram:
    """
    Counts of values in buckets that grow with the value, as HdrHistogram has them.

    Chosen over a reservoir: it forgets no outlier (P99 is what the promise is about), its error is
    bounded (a percentile is at most 1/16 too high, never too low), two of them add up exactly,
    and nothing is drawn by lot.  593 integers, however many values.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._counts = [0] * (_LAST_BUCKET + 1)
        self.count = 0

    def add(self, value_us: int) -> None:
        """Count one value, microseconds; below zero counts as zero."""
        self._counts[bucket_of(value_us)] += 1
        self.count += 1

    def percentile_us(self, percent: float) -> int | None:
        """Give a value, microseconds, that `percent` of the values do not exceed; None if empty."""
        if not self.count:
            return None
        needed = min(max(percent / 100 * self.count, 1), self.count)
        seen = enumerate(accumulate(self._counts))
        return upper_bound_us(next(bucket for bucket, count in seen if count >= needed))

    def percentiles_ms(self) -> dict[str, float | None]:
        """Give P50, P95 and P99 in milliseconds."""
        found = {f"p{p}": self.percentile_us(p) for p in (50, 95, 99)}
        return {name: None if us is None else us / 1000 for name, us in found.items()}


@dataclass(slots=True)
class WriterStats:
    """What a writer did since it was made.  Counts of deliveries."""

    received: int = 0
    applied: int = 0
    repaired: int = 0
    duplicate: int = 0
    stale: int = 0
    expired: int = 0
    #: Given back to the bus; they come again.
    abandoned: int = 0
    #: Set aside with a reason.
    dead_lettered: int = 0
    #: Completed: the bus has forgotten them.
    settled: int = 0
    #: Whose lock was lost before they were settled; they come again.
    lost_locks: int = 0
    #: Latency by category, of live events that were applied.
    latency: dict[str, LatencyHistogram] = field(default_factory=dict)

    def count_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Count what a committed batch did."""
        for outcome, count in Counter(outcomes).items():
            setattr(self, outcome.value, getattr(self, outcome.value) + count)

    def count_latencies(self, latencies: Iterable[tuple[str, int]]) -> None:
        """Count latencies: category and microseconds."""
        for category, latency_us in latencies:
            histogram = self.latency.get(category)
            if histogram is None:
                histogram = self.latency[category] = LatencyHistogram()
            histogram.add(latency_us)

    def counters(self) -> dict[str, int]:
        """Give the counters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "latency"}

    def snapshot(self) -> Mapping[str, object]:
        """Give everything as values that JSON can carry."""
        latency = {
            category: {"count": histogram.count, **histogram.percentiles_ms()}
            for category, histogram in sorted(self.latency.items())
        }
        return {**self.counters(), "latency_ms": latency}
