"""
What a backfill will cost, what it is to read, and how far it is.

Pure: values, and the decisions on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from storemirror.model.entity import Entity
from storemirror.source.port import Key, KeyRange

#: Version of the progress file's format.
FORMAT: Final = 1
#: Documents that Firestore counts for the price of one read.
COUNTED_A_READ: Final = 1_000
#: A range is not worth having below so many pages.
_PAGES_A_RANGE: Final = 2
_MAX_RANGES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a scan will cost; an estimate, for documents come and go meanwhile."""

    #: Name of the entity -> documents to read.
    document_counts: Mapping[str, int]
    #: Reads already paid for, to count them.
    counting_reads: int
    #: Dollars for 100,000 document reads.
    price_per_100k_usd: float
    #: How often each document will be read.
    pass_count: int = 1

    @property
    def document_count(self) -> int:
        """Give how many documents are to be read."""
        return sum(self.document_counts.values())

    @property
    def read_count(self) -> int:
        """Give how many reads will be billed, counting included; an empty collection costs one."""
        a_pass = sum(max(n, 1) for n in self.document_counts.values())
        return self.counting_reads + self.pass_count * a_pass

    @property
    def price_usd(self) -> float:
        """Give what these reads cost in dollars."""
        return self.read_count * self.price_per_100k_usd / 100_000

    def to_json(self) -> dict[str, object]:
        """Give the estimate as plain JSON values."""
        return {
            "documents": dict(self.document_counts),
            "reads": self.read_count,
            "price_usd": round(self.price_usd, 4),
            "price_per_100k_usd": self.price_per_100k_usd,
        }


class RangeProgress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One key range of one entity, and how far it is."""

    #: Bounds; see `KeyRange`.
    after: Key | None = None
    up_to: Key | None = None
    #: Key of the last document whose event is durable; None before the first.
    position: Key | None = None
    document_count: int = 0
    is_done: bool = False

    @property
    def rest(self) -> KeyRange:
        """Give the keys that are still to be read."""
        return KeyRange(after=self.position or self.after, up_to=self.up_to)


class EntityProgress(msgspec.Struct, kw_only=True):
    """One entity's documents, and how far they are."""

    name: str
    #: The path pattern: another one under the same name is another backfill.
    pattern: str
    #: Documents counted before the first was read.
    counted: int
    ranges: list[RangeProgress]

    @property
    def document_count(self) -> int:
        """Give how many documents have a durable event."""
        return sum(r.document_count for r in self.ranges)

    @property
    def left(self) -> int:
        """Give how many documents are expected to be still to read."""
        if all(r.is_done for r in self.ranges):
            return 0
        return max(self.counted - self.document_count, 1)


class BackfillState(msgspec.Struct, kw_only=True):
    """A backfill's progress: all that a later process needs to go on."""

    format: int
    #: CloudEvents source; see `storemirror.event.envelope.source_of`.
    source: str
    #: Part of every message id, so that a page published twice is recognised by the bus.
    run: str
    #: The moment that is read, microseconds since the Unix epoch; None before the first read.
    read_time_us: int | None
    #: Reads paid for so far, counting included; those of pages lost in a kill are not known.
    read_count: int
    entities: list[EntityProgress]

    @property
    def is_finished(self) -> bool:
        """Tell whether every document of every range has a durable event."""
        return all(r.is_done for entity in self.entities for r in entity.ranges)

    @property
    def document_count(self) -> int:
        """Give how many documents have a durable event."""
        return sum(entity.document_count for entity in self.entities)


def counting_reads(count: int) -> int:
    """
    Give how many reads Firestore bills for counting so many documents.

    >>> counting_reads(0), counting_reads(1000), counting_reads(1001)
    (1, 1, 2)
    """
    return max(-(-count // COUNTED_A_READ), 1)


def estimate_left(state: BackfillState, price_per_100k_usd: float) -> Estimate:
    """Say what a backfill that was begun will cost from here on."""
    return Estimate(
        document_counts={e.name: e.left for e in state.entities if e.left},
        counting_reads=0,
        price_per_100k_usd=price_per_100k_usd,
    )


def decide_range_count(document_count: int, page_size: int, worker_count: int) -> int:
    """
    Say into how many ranges a collection is divided: enough to share, none too short.

    Where there are more than workers, it is a multiple of them: all have as much to read.

    >>> [decide_range_count(n, 500, 4) for n in (0, 1_999, 2_000, 5_500, 1_000_000)]
    [1, 1, 2, 4, 64]
    """
    most = min(max(document_count // (_PAGES_A_RANGE * page_size), 1), _MAX_RANGES)
    return most - most % worker_count if most > worker_count else most


def progress_of(entity: Entity, counted: int, ranges: Iterable[KeyRange]) -> EntityProgress:
    """Give an entity's progress before its first document."""
    return EntityProgress(
        name=entity.name,
        pattern=entity.pattern,
        counted=counted,
        ranges=[RangeProgress(after=r.after, up_to=r.up_to) for r in ranges],
    )


def contradiction(state: BackfillState, *, source: str, entities: Sequence[Entity]) -> str | None:
    """
    Say why a progress file cannot be gone on with; None when it can.

    Args:
        state: what the file holds.
        source: of the Firestore that is to be read.
        entities: those asked for; empty for whichever the file has.
    """
    if state.format != FORMAT:
        return f"it is of format {state.format}, this version knows {FORMAT}"
    if state.source != source:
        return f"it is of {state.source}, and {source} is to be read"
    begun = {(e.name, e.pattern) for e in state.entities}
    asked = {(e.name, e.pattern) for e in entities}
    if begun != asked:
        names = ", ".join(sorted(name for name, _ in begun))
        return f"it is of {names}, as they were declared then, and others are asked for"
    return None
