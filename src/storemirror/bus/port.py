"""
What the mirror needs of a message bus: peek-lock semantics as Azure Service Bus has them.

A message goes to every subscription of its topic.  A consumer *receives* a delivery under a lock
that expires; it *completes* it (gone), *abandons* it (available at once, counted) or
*dead-letters* it (set aside with a reason).  A lock that expires abandons by itself.  A delivery
that was received `max_delivery_count` times and comes back is dead-lettered by the bus with the
reason `MAX_DELIVERY_REASON`.  Within the duplicate window a message id is accepted once a topic.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from storemirror.clock import LAST_US

TOPIC: Final = "realtime-mirror"
SUBSCRIPTION_SQL_WRITER: Final = "sql-writer"
SUBSCRIPTION_MONITORING: Final = "monitoring"
#: Reason of a dead letter that the bus made by itself, as Service Bus spells them.
MAX_DELIVERY_REASON: Final = "MaxDeliveryCountExceeded"
EXPIRED_REASON: Final = "TTLExpiredException"
#: Property that says which dead letter a message replaces.
RESUBMITTED_FROM: Final = "storemirror-resubmitted-from"
#: Property that says when the first of the messages that this one goes back to was enqueued:
#: microseconds since the Unix epoch, by the bus's clock.
FIRST_ENQUEUED: Final = "storemirror-first-enqueued-us"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message to publish."""

    #: At most 128 characters; the event id, or `<event id>.<run>`.
    message_id: str
    body: bytes
    content_type: str
    #: Application properties, for filters and people: type, entity, origin, version, path.
    properties: Mapping[str, str] = field(default_factory=dict)


def first_enqueued_us(message: Message, *, enqueued_at_us: int) -> int:
    """
    Tell when the first of the messages that a message goes back to was enqueued.

    Args:
        message: its property `FIRST_ENQUEUED` is not believed where it is no time.
        enqueued_at_us: the message's own, microseconds since the Unix epoch.
    """
    told = message.properties.get(FIRST_ENQUEUED, "")
    is_number = told.isascii() and told.isdigit() and len(told) <= len(str(LAST_US))
    return int(told) if is_number and int(told) <= LAST_US else enqueued_at_us


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message in the hands of one consumer, until its lock expires.

    A `Struct` without garbage collection, because one is made for every event: a frozen dataclass
    takes five times as long to make, and is looked through by every collection
    (docs/explanation/performance.md).
    """

    message: Message
    #: Settles this delivery and no later one of the same message.
    lock_token: str
    #: Number of the message in its subscription; the larger, the later it was published.
    sequence_number: int
    #: 1 on the first delivery.
    delivery_count: int
    #: Microseconds since the Unix epoch, by the bus's clock.
    enqueued_at_us: int
    #: Microseconds since the Unix epoch, by the bus's clock.
    locked_until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One message set aside, with why."""

    message: Message
    sequence_number: int
    reason: str
    description: str
    delivery_count: int
    enqueued_at_us: int
    #: None: the bus does not tell (Service Bus).
    dead_lettered_at_us: int | None
    #: Why a person accepted the loss; None while nobody did.
    acknowledged_reason: str | None = None

    @property
    def first_enqueued_at_us(self) -> int:
        """Tell when the event was first seen, before it was ever resubmitted."""
        return first_enqueued_us(self.message, enqueued_at_us=self.enqueued_at_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A delivery to dead-letter, and why."""

    delivery: Delivery
    #: Short, fixed word: "MappingFailed".
    reason: str
    #: One sentence for a person; no document contents.
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What became of the messages handed to `publish`."""

    accepted_count: int
    #: Recognised by duplicate detection: their id had been accepted before.  Service Bus swallows
    #: these without a word; there only those of one and the same call are known and counted.
    duplicate_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStats:
    """One subscription at one moment."""

    subscription: str
    #: Messages waiting or locked; dead letters not included.
    depth: int
    #: Of these, under a lock that has not expired; None: the bus does not tell (Service Bus).
    locked_count: int | None
    #: Dead letters that nobody acknowledged.
    dead_letter_count: int
    acknowledged_count: int
    #: Deliveries completed since the subscription exists, resubmitted ones included; None: the
    #: bus does not count them (Service Bus).
    completed_count: int | None
    #: Age of the oldest waiting or locked message; None when there is none.  By that message's own
    #: enqueue time: what was put back or resubmitted counts from then, since `FIRST_ENQUEUED` of
    #: each would have to be read.
    oldest_age_s: float | None
    #: Enqueue time of that message, microseconds since the Unix epoch, by the bus's clock.
    oldest_enqueued_at_us: int | None


class ExpiryAction(enum.Enum):
    """What becomes of a message that nobody took before its time to live was over."""

    DEAD_LETTER = "dead-letter"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSpec:
    """How a subscription is to be."""

    name: str
    lock_duration_s: float = 60.0
    max_delivery_count: int = 10
    #: None: messages wait for ever.
    time_to_live_s: float | None = None
    on_expiry: ExpiryAction = ExpiryAction.DEAD_LETTER


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """How a topic is to be."""

    name: str = TOPIC
    duplicate_window_s: float = 600.0
    subscriptions: tuple[SubscriptionSpec, ...] = (
        SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER),
        SubscriptionSpec(
            name=SUBSCRIPTION_MONITORING, time_to_live_s=600.0, on_expiry=ExpiryAction.DROP
        ),
    )


class Publisher(Protocol):
    """Puts messages on the topic."""

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        """
        Publish all messages or none; when it returns they are durable.

        Raises:
            BusUnavailable: published or not is unknown; publishing again is safe, the ids are
                recognised.
            BusRefused: nothing was published; `MessageRefused`: because of one of the messages.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class Consumer(Protocol):
    """Takes deliveries from one subscription."""

    async def receive(self, max_count: int, *, max_wait_s: float) -> list[Delivery]:
        """
        Lock and give up to `max_count` deliveries.

        Returns as soon as there is at least one; an empty list after `max_wait_s`.

        Raises:
            BusUnavailable: some may have been locked; their locks expire.
        """
        ...

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """
        Settle deliveries for good.

        Returns:
            Those whose lock was lost before (they come again); usually empty.

        Raises:
            SettledInPart: which are settled is in it; calling again for all is safe.
            BusUnavailable: settled or not is unknown of each; likewise.
        """
        ...

    async def abandon(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Make deliveries available again at once; returns those whose lock was lost."""
        ...

    async def dead_letter(self, rejections: Sequence[Rejection]) -> list[Delivery]:
        """Set deliveries aside with their reasons; returns those whose lock was lost."""
        ...

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """
        Extend locks by a whole lock duration.

        Returns:
            The deliveries with their new `locked_until_us`; those whose lock was lost are left
            out.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections.  Locks held run out by themselves."""
        ...


class BusAdmin(Protocol):
    """Makes the topic, and looks after it."""

    async def provision(self, topic: TopicSpec) -> None:
        """Create topic and subscriptions, or bring existing ones to `topic`.  Idempotent."""
        ...

    async def stats(self, subscription: str) -> SubscriptionStats:
        """
        Count what a subscription holds.

        Raises:
            BusRefused: there is no such subscription.
        """
        ...

    async def oldest_age_s(self, subscription: str) -> float | None:
        """
        Give the age in seconds of the oldest message that waits or is locked; None: there is none.

        As `SubscriptionStats.oldest_age_s`; it takes no more rights than to receive.

        Raises:
            BusRefused: there is no such subscription.
        """
        ...

    async def peek_dead_letters(
        self,
        subscription: str,
        *,
        limit: int,
        after_sequence_number: int = 0,
        with_acknowledged: bool = True,
    ) -> list[DeadLetter]:
        """
        Look at dead letters, by rising sequence number, without a lock.

        `with_acknowledged` costs, on Service Bus, reading all that were acknowledged.
        """
        ...

    async def resubmit(self, subscription: str, sequence_number: int, *, run: str) -> str:
        """
        Put a dead letter's message on this subscription again, then drop the dead letter.

        The replacement has the id `<id up to the first dot>.<run>`, so that duplicate detection
        lets it pass, and the properties `RESUBMITTED_FROM` and `FIRST_ENQUEUED`; it is durable
        before the dead letter goes.

        Returns:
            The replacement's message id.

        Raises:
            DeadLetterUnknown: no such dead letter.
        """
        ...

    async def acknowledge(self, subscription: str, sequence_number: int, *, reason: str) -> None:
        """
        Record why a dead letter is accepted as lost; it stays, and is counted apart.

        Once: the first reason is evidence, and whoever comes second must hear of it.

        Raises:
            DeadLetterUnknown: no such dead letter.
            BusRefused: it was acknowledged before; nothing was changed.
        """
        ...

    async def remove_dead_letters(
        self, subscription: str, sequence_numbers: Sequence[int]
    ) -> list[int]:
        """
        Remove dead letters for good; their messages are gone then.

        Returns:
            The numbers of those that were there, rising; of the others somebody has disposed.
        """
        ...

    async def purge(self, subscription: str) -> int:
        """
        Remove every message that waits in a subscription.

        What somebody holds is left to its holder, and dead letters stay.  What is published
        meanwhile is left where the bus tells when that was (on Service Bus it may go as well).
        Safe to repeat.  Other subscriptions keep their copies.  Nothing
        is counted as completed.

        Returns:
            How many messages went.

        Raises:
            BusUnavailable: some may have gone.
            BusRefused: there is no such subscription.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
