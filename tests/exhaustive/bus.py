"""
The bus of a schedule: the in-memory adapter's own queue, and publications that commit late.

The PostgreSQL bus receives past a low-water mark; which numbers it may pass is a rule of its own,
kept here as `bus.advance_low_water` has it, over publishers that have drawn a number and not
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storemirror.bus.memory_queue import MemoryTopic
from storemirror.bus.port import Delivery, Message, SubscriptionSpec, TopicSpec
from storemirror.bus.rules import replacement_of

SUBSCRIPTION = "sql-writer"
LOCK_S = 60.0
MAX_DELIVERY_COUNT = 3
SPEC = TopicSpec(
    duplicate_window_s=600.0,
    subscriptions=(
        SubscriptionSpec(
            name=SUBSCRIPTION, lock_duration_s=LOCK_S, max_delivery_count=MAX_DELIVERY_COUNT
        ),
    ),
)


@dataclass(slots=True)
class Publication:
    """A message whose number is drawn and whose transaction is open."""

    number: int
    message: Message


class PureBus:
    """One topic with the writer's subscription."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Start empty.  `now_us`: the bus's clock."""
        self._now_us = now_us
        self._topic = MemoryTopic(SPEC)
        self._topic.provision(SPEC)
        self._queue = self._topic.queues[SUBSCRIPTION]
        self._last_number = 0
        self.in_flight: list[Publication] = []
        self._mark = 0
        #: The number the mark may take once the publications in flight then have ended.
        self._candidate: tuple[int, tuple[Publication, ...]] | None = None

    def publish(self, message: Message, *, commits_late: bool = False) -> None:
        """Put a message on the topic; one whose id was seen is recognised, and left out."""
        if not self._topic.claim(message.message_id, self._now_us()):
            return
        self._last_number += 1
        publication = Publication(self._last_number, message)
        if commits_late:
            self.in_flight.append(publication)
        else:
            self._commit(publication)

    def commit(self, index: int) -> None:
        """End one of the publications in flight."""
        self._commit(self.in_flight.pop(index))

    def _commit(self, publication: Publication) -> None:
        # Below the mark nobody looks: what was passed is never received.
        if publication.number > self._mark:
            self._queue.put(publication.message, publication.number, self._now_us())

    def advance_low_water(self) -> None:
        """Move the mark as far as is safe; the same steps as `bus.advance_low_water`."""
        if self._candidate is not None:
            number, open_then = self._candidate
            if not self._has_ended(open_then):
                return
            first = min(self._queue.entries, default=number + 1)
            self._mark = max(self._mark, min(number, first - 1))
        self._candidate = (self._last_number, tuple(self.in_flight))

    def _has_ended(self, publications: Sequence[Publication]) -> bool:
        """Tell whether transactions that were open when the number was read are over."""
        return not any(one in self.in_flight for one in publications)

    def receive(self, max_count: int) -> list[Delivery]:
        """Lock messages, the oldest first."""
        if not self._queue.entries:
            return []
        return self._queue.take(max_count, self._now_us())

    def complete(self, delivery: Delivery) -> bool:
        """Settle for good; tells whether the lock was still held."""
        entry = self._queue.held(delivery, self._now_us())
        if entry is None:
            return False
        self._queue.complete(entry)
        return True

    def abandon(self, delivery: Delivery) -> None:
        """Give back."""
        now_us = self._now_us()
        entry = self._queue.held(delivery, now_us)
        if entry is not None:
            self._queue.give_back(entry, now_us)

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Set aside."""
        now_us = self._now_us()
        entry = self._queue.held(delivery, now_us)
        if entry is not None:
            self._queue.bury(entry, reason, "", now_us)

    def resubmit(self, run: str) -> int:
        """Put every dead letter on the subscription again; gives how many there were."""
        letters = list(self._queue.dead_letters.items())
        for number, letter in letters:
            self.publish(replacement_of(letter, run=f"{run}-{number}"))
            del self._queue.dead_letters[number]
        return len(letters)

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits, is locked, in flight or set aside."""
        self._queue.sweep(self._now_us())
        return not (self._queue.entries or self.in_flight or self._queue.dead_letters)
