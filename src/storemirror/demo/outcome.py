"""What a run of the demo ends with, and whether it is a success.  Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: What must have happened at least once, or the run has shown too little.
_MUST_HAPPEN: Final = ("duplicate", "stale", "deleted", "recreated")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The figures of one run; `to_json` is what `storemirror demo --json` prints."""

    #: Document writes of the app, deletes included.
    written: int
    deleted: int
    recreated: int
    #: Distinct event ids that the triggers put on the bus.
    published: int
    #: Of these, how many the writer settled for good.
    settled: int
    #: Deliveries by what came of them; a repeated delivery counts again.
    applied: int
    repaired: int
    duplicate: int
    stale: int
    expired: int
    dead_lettered: int
    mismatches: int
    #: Commit to visible in SQL: p50, p95, p99; None when nothing was applied.
    latency_ms: Mapping[str, float | None]
    duration_s: float

    @property
    def faults(self) -> tuple[str, ...]:
        """Name what went wrong; empty when both sides agree and nothing was lost."""
        found = []
        if self.mismatches:
            found.append(f"{self.mismatches} mismatches between documents and rows")
        if self.dead_lettered:
            found.append(f"{self.dead_lettered} dead letters")
        if self.settled != self.published:
            found.append(f"{self.published - self.settled} published events were not settled")
        return tuple(found)

    @property
    def gaps(self) -> tuple[str, ...]:
        """Name what the run was too short to show."""
        return tuple(f"{name} is 0" for name in _MUST_HAPPEN if getattr(self, name) == 0)

    @property
    def sentence(self) -> str:
        """Say the result in one sentence."""
        if self.faults:
            return f"The sides do not agree: {'; '.join(self.faults)}."
        said = (
            f"Both sides agree: {self.written} writes became rows through {self.published} "
            f"events, although {self.duplicate} deliveries were repeats and {self.stale} came "
            "too late."
        )
        return (
            f"{said}  The run was too short to show all: {', '.join(self.gaps)}."
            if self.gaps
            else said
        )

    def to_json(self) -> dict[str, object]:
        """Give the figures as plain JSON values."""
        return {
            "written": self.written,
            "deleted": self.deleted,
            "recreated": self.recreated,
            "published": self.published,
            "settled": self.settled,
            "applied": self.applied,
            "repaired": self.repaired,
            "duplicate": self.duplicate,
            "stale": self.stale,
            "expired": self.expired,
            "dead_lettered": self.dead_lettered,
            "mismatches": self.mismatches,
            "latency_ms": dict(self.latency_ms),
            "duration_s": round(self.duration_s, 3),
        }
