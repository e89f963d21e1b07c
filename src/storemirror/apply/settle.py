"""
What becomes of a delivery: from what the database said to what the bus is told.

Pure: the loop that acts on it is `storemirror.apply.applier`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from storemirror.apply.port import Taken
from storemirror.clock import SECOND_US
from storemirror.errors import (
    DatabaseRefused,
    MessageRefused,
    PoisonEventError,
    SchemaMismatch,
    TransientError,
)
from storemirror.event.change import Origin, Outcome

#: From this delivery on an event is applied by itself: something it was with may be the cause.
SINGLY_FROM_DELIVERY: Final = 3
#: Most that this machine's clock may be away from the database's.
CLOCK_TOLERANCE_US: Final = 60 * SECOND_US

#: Events that tell how long a write takes to be seen; the others were old when they were read.
#: A tuple: to look into a set, an Enum is hashed by Python code, and this is asked for every event.
_LIVE: Final = (Origin.TRIGGER, Origin.LISTENER, Origin.MIRROR, Origin.DUAL_WRITE)


class Settlement(enum.Enum):
    """What to do with the deliveries of a call that ended in a certain way."""

    COMPLETE = "complete"  #: rows are committed; the bus may forget the delivery
    REREAD = "reread"  #: publish the document as it is now, then complete
    RETRY = "retry"  #: call again after a wait, with the locks held
    BISECT = "bisect"  #: call again with each half: one of them holds the bad event
    DEAD_LETTER = "dead-letter"  #: set this one delivery aside, with the reason
    ABANDON = "abandon"  #: give back, and receive nothing until the database takes events
    STOP = "stop"  #: give back, and end: no retry can help


def decide_settlement(
    result: Outcome | Exception, *, event_count: int, may_retry: bool
) -> Settlement:
    """
    Tell what must become of deliveries whose events were handed to the database.

    Args:
        result: an event's outcome, or the error that the call for all of them ended with.
        event_count: how many events the call was for.
        may_retry: whether the locks, and the time since the first error, allow another try.

    Source:
        docs/explanation/architecture.md, "Writer"

    >>> decide_settlement(Outcome.STALE, event_count=9, may_retry=True).value
    'complete'
    >>> decide_settlement(PoisonEventError("bad"), event_count=9, may_retry=True).value
    'bisect'
    """
    match result:
        case Outcome.EXPIRED:
            return Settlement.REREAD
        case Outcome():
            return Settlement.COMPLETE
        case PoisonEventError():
            return Settlement.DEAD_LETTER if event_count == 1 else Settlement.BISECT
        case TransientError():
            return Settlement.RETRY if may_retry else Settlement.ABANDON
        case SchemaMismatch():
            return Settlement.STOP
        case DatabaseRefused():
            return Settlement.ABANDON
    return Settlement.STOP


def is_worth_waiting_for(error: Exception) -> bool:
    """Tell whether what failed may work later, without anything being set aside or ended.

    >>> [is_worth_waiting_for(e) for e in (DatabaseRefused("full"), SchemaMismatch("other"))]
    [True, False]
    """
    return decide_settlement(error, event_count=1, may_retry=False) is Settlement.ABANDON


def decide_reread_settlement(error: Exception) -> Settlement:
    """Tell what becomes of an expired event whose document could not be published anew.

    A document that can never be an event, or that the bus can never take (too large), is set aside
    with that reason; a source or a bus that does not answer, or says no, is not the event's fault.

    >>> decide_reread_settlement(TransientError("no answer")).value
    'abandon'
    """
    is_own_fault = isinstance(error, PoisonEventError | MessageRefused)
    return Settlement.DEAD_LETTER if is_own_fault else Settlement.ABANDON


def split_by_delivery(batch: Sequence[Taken]) -> list[list[Taken]]:
    """Give the parts to apply one after the other: all together, and each troubled one alone."""
    together = [t for t in batch if t.delivery.delivery_count < SINGLY_FROM_DELIVERY]
    if len(together) == len(batch):
        return [together] if together else []
    alone = [[t] for t in batch if t.delivery.delivery_count >= SINGLY_FROM_DELIVERY]
    return [together, *alone] if together else alone


def halves(part: Sequence[Taken]) -> tuple[Sequence[Taken], Sequence[Taken]]:
    """Cut a part of two or more in two."""
    middle = len(part) // 2
    return part[:middle], part[middle:]


def one_of_each_kind(batch: Sequence[Taken]) -> list[Taken]:
    """Give one delivery for each procedure that the batch calls: entity, and write or delete."""
    kinds: dict[tuple[str, bool], Taken] = {}
    for taken in batch:
        kinds.setdefault((taken.event.entity.name, taken.event.row is None), taken)
    return list(kinds.values())


def clock_skew_us(*, before_us: int, database_us: int, after_us: int) -> int:
    """
    Tell how far the database's clock is away, given what ours said before and after asking it.

    Args:
        before_us: our clock before the question, microseconds since the Unix epoch.
        database_us: its answer.
        after_us: our clock when the answer had come.

    Returns:
        The least skew that explains the answer, microseconds; positive when ours is behind.

    >>> [clock_skew_us(before_us=10, database_us=d, after_us=20) for d in (5, 10, 20, 27)]
    [-5, 0, 0, 7]
    """
    return max(database_us - after_us, 0) or min(database_us - before_us, 0)


def latencies_us(
    events: Sequence[Taken], outcomes: Sequence[Outcome], *, now_us: int
) -> list[tuple[str, int]]:
    """
    Give category and commit-to-visible time, microseconds, of the live writes applied.

    Deletes are left out: a trigger tells the commit time of the write that was removed, not of
    the delete, so that the difference would be the document's age.
    """
    return [
        (taken.event.entity.category, max(now_us - change.version // 2, 0))
        for taken, outcome in zip(events, outcomes, strict=True)
        if outcome is Outcome.APPLIED
        and not (change := taken.event.change).version % 2
        and change.origin in _LIVE
    ]
