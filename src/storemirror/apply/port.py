"""What the apply stage is told, what it asks of others, and what it tells those who watch."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from storemirror.bus.port import Delivery, Message
from storemirror.event.change import Outcome
from storemirror.sql.port import RowEvent


class Reread(Protocol):
    """Reads a document again, because the past of its row was purged.  `wiring` provides it."""

    async def reread(self, path: str, *, run: str) -> Message:
        """
        Read one document as it is now, and give the message that says so.

        A document that is not there becomes a delete at the read time.

        Args:
            path: document path from the database root.
            run: the message's id is `<event id>.<run>`.

        Raises:
            SourceUnavailable: the store did not answer.
        """
        ...


class Step(enum.Enum):
    """A named place in a batch's life, at which a test may let a fault strike."""

    RECEIVED = "received"  #: under lock, not yet decoded
    BEFORE_APPLY = "before_apply"  #: decoded, about to be handed to the database
    AFTER_APPLY_BEFORE_COMPLETE = "after_apply_before_complete"  #: committed, not yet settled
    AFTER_COMPLETE = "after_complete"  #: committed and settled


#: Called at each step with the deliveries it is about.  What it raises, the writer meets there.
StepHook = Callable[[Step, Sequence[Delivery]], Awaitable[None]]


class Taken(msgspec.Struct, frozen=True, gc=False):
    """One delivery and the event it carries."""

    delivery: Delivery
    event: RowEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """One batch that was committed and settled."""

    lane: int
    #: Deliveries that are settled for good; those whose lock was lost are left out.
    settled: Sequence[Delivery]
    #: Those of which the bus gave no answer: they are settled, or come again.
    unsure: Sequence[Delivery]
    #: An outcome for each event of the batch; more than `settled` when locks were lost.
    outcomes: Sequence[Outcome]
    #: Commit to visible, microseconds, of the live events that were applied.
    latencies_us: Sequence[int]


#: Told of every settled batch.  Must not block.
BatchObserver = Callable[[BatchReport], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """How the writer works.  Times are seconds."""

    #: The master switch, `USE_SQL_DM_WRITE_MIRROR`.
    is_mirror_on: bool
    #: Batches that are applied at the same time, each on its own connection.
    lane_count: int = 2
    #: Most events a transaction.
    batch_max_events: int = 2_000
    #: Most message bytes a transaction; one larger event goes alone.
    batch_max_bytes: int = 8 * 1024 * 1024
    #: Most deliveries asked for at once.
    receive_max_count: int = 1_000
    #: How long to wait for a delivery when there is none.
    receive_wait_s: float = 1.0
    #: The subscription's lock duration; locks are renewed when half of it has passed.
    lock_duration_s: float = 60.0
    #: How long a batch is tried again after a transient error, before it is abandoned.
    retry_within_s: float = 30.0
    #: The waits between tries are drawn from 0 to this much, doubled from try to try ...
    retry_first_s: float = 0.1
    #: ... up to this much.
    retry_max_s: float = 10.0
    #: How long the batch in hand may take to finish after `stop` was set.
    shutdown_timeout_s: float = 20.0
    #: How often this machine's clock is compared with the database's.
    clock_check_every_s: float = 60.0

    @property
    def hand_max_events(self) -> int:
        """Give the most deliveries held: a batch at work and one ready, for each lane."""
        return 2 * self.lane_count * self.batch_max_events

    @property
    def hand_max_bytes(self) -> int:
        """Give the most message bytes held, likewise."""
        return 2 * self.lane_count * self.batch_max_bytes
