"""
What a writer counts.

Pure values: no I/O.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from storemirror.event.change import Outcome
from storemirror.telemetry import LatencyHistogram


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
        by_category: defaultdict[str, list[int]] = defaultdict(list)
        for category, latency_us in latencies:
            by_category[category].append(latency_us)
        for category, values_us in by_category.items():
            self.latency.setdefault(category, LatencyHistogram()).add_all(values_us)

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
