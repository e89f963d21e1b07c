"""What a check was asked to do, how far it is, and what it found.  Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from storemirror.check.compare import Mismatch
from storemirror.clock import rfc3339_from_us

#: Triggers deliver within a second or two; Google promises no bound.
DEFAULT_GRACE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """What to compare, and for how long to wait."""

    #: Most documents an entity, by rising key; None for all.
    limit: int | None = None
    #: Names of checks (`Entity.check`); empty for all.
    checks: tuple[str, ...] = ()
    #: Longest wait for the backlog to drain, each time it is waited for.
    drain_timeout_s: float = 60.0
    #: Most mismatches listed; all are counted.
    max_mismatches: int = 100
    #: Documents a page, and differences that are looked at again together.
    page_size: int = 300
    #: How often a document that changes meanwhile is looked at again.
    max_rounds: int = 8
    #: Seconds since its commit for which a change may be on its way to the bus unseen; None: as
    #: `DEFAULT_GRACE_S` where the store cannot tell what is not on the bus yet, else none.
    grace_s: float | None = None

    def chosen_grace_s(self, *, can_tell_pending: bool) -> float:
        """
        Give the grace that was asked for, else what the store makes needful.

        >>> [CheckSettings().chosen_grace_s(can_tell_pending=can) for can in (True, False)]
        [0.0, 10.0]
        >>> CheckSettings(grace_s=3.0).chosen_grace_s(can_tell_pending=True)
        3.0
        """
        if self.grace_s is not None:
            return self.grace_s
        return 0.0 if can_tell_pending else DEFAULT_GRACE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a check is."""

    #: Name of the check at work; None while the backlog drains.
    check: str | None
    document_count: int
    row_count: int


@dataclass(slots=True, kw_only=True)
class CheckCounts:
    """What one check has seen so far."""

    document_count: int = 0
    #: Live rows.
    row_count: int = 0
    mismatch_count: int = 0
    #: Whether all was compared that was asked for; False: the reads were spent before.
    is_complete: bool = False


def coverage_of(counts: Mapping[str, CheckCounts]) -> str:
    """
    Say what was compared, and what was not.

    Args:
        counts: name of the check -> what it saw.

    >>> coverage_of({
    ...     "conversations": CheckCounts(document_count=2, is_complete=True),
    ...     "messages": CheckCounts(document_count=40),
    ...     "follow": CheckCounts(),
    ... })
    'compared: conversations; in part: messages (the first 40 documents); not: follow'
    """
    seen = {name: c for name, c in counts.items() if c.document_count and not c.is_complete}
    groups = {
        "compared": [name for name, c in counts.items() if c.is_complete],
        "in part": [f"{name} (the first {c.document_count} documents)" for name, c in seen.items()],
        "not": [n for n, c in counts.items() if not c.is_complete and not c.document_count],
    }
    return "; ".join(f"{words}: {', '.join(names)}" for words, names in groups.items() if names)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a finished check found."""

    #: Name of the check -> what it saw.
    counts: Mapping[str, CheckCounts]
    #: The first `max_mismatches`.
    mismatches: tuple[Mismatch, ...]
    #: Documents that do not fit their declaration, but whose dead letter a person acknowledged.
    accepted_count: int
    #: Documents that changed at every look: neither equal nor different could be shown.
    unsettled_count: int
    #: Documents that seemed to differ, and that no read was left for to look at again.
    unproved_count: int
    #: Documents whose row came right within the grace: lag of the triggers, no difference.
    late_count: int
    #: Documents older than their row, with nothing under way: commit times went backwards, as a
    #: restore lets them, or somebody damaged the row's version.
    backwards_count: int
    #: Dead letters that nobody acknowledged.
    dead_letter_count: int
    #: Documents whose dead letters were purged, and which no check has shown right since.
    unverified_count: int
    #: Marks of such documents that this check has cleared.
    verified_count: int
    #: The moment that was compared, microseconds since the Unix epoch, by the store's clock.
    read_time_us: int
    #: Document reads paid for, counting included if the same budget paid for it.
    read_count: int
    duration_s: float

    @property
    def mismatch_count(self) -> int:
        """Give how many differences there are, listed or not."""
        return sum(counts.mismatch_count for counts in self.counts.values())

    @property
    def is_complete(self) -> bool:
        """Tell whether all was compared that was asked for; False: the reads were spent before."""
        return self.unproved_count == 0 and all(c.is_complete for c in self.counts.values())

    @property
    def is_clean(self) -> bool:
        """Tell whether both sides were shown to be equal; dead letters are counted apart."""
        return self.is_complete and self.mismatch_count == 0 and self.unsettled_count == 0

    def coverage(self) -> str:
        """Say what was compared and what was not, where the reads were spent before the end."""
        unproved = (
            f"; seemed to differ, and could not be looked at again: {self.unproved_count}"
            if self.unproved_count
            else ""
        )
        return (
            f"the reads are spent ({self.read_count}) before all was compared;"
            f" {coverage_of(self.counts)}{unproved}"
        )

    def to_json(self) -> dict[str, object]:
        """Give the result as plain JSON values; no document contents in it."""
        return {
            "is_clean": self.is_clean,
            "is_complete": self.is_complete,
            "mismatch_count": self.mismatch_count,
            "checks": {name: asdict(counts) for name, counts in self.counts.items()},
            "mismatches": [asdict(mismatch) for mismatch in self.mismatches],
            "accepted_count": self.accepted_count,
            "unsettled_count": self.unsettled_count,
            "unproved_count": self.unproved_count,
            "late_count": self.late_count,
            "backwards_count": self.backwards_count,
            "dead_letter_count": self.dead_letter_count,
            "unverified_count": self.unverified_count,
            "verified_count": self.verified_count,
            "read_time": rfc3339_from_us(self.read_time_us),
            "read_count": self.read_count,
            "duration_s": round(self.duration_s, 3),
        }
