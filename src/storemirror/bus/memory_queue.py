"""
What a topic and a subscription of the in-memory bus hold.  Nothing here awaits.

No call takes longer for the messages that it does not touch: what waits, what is locked and what
was seen are kept in the order in which it ends, so that each look stops at the first that stays.
"""

from __future__ import annotations

import heapq
import itertools
import uuid
from collections import OrderedDict
from dataclasses import dataclass

from storemirror.bus.port import (
    EXPIRED_REASON,
    MAX_DELIVERY_REASON,
    DeadLetter,
    Delivery,
    ExpiryAction,
    Message,
    SubscriptionSpec,
    TopicSpec,
)
from storemirror.bus.rules import SECOND_US, duration_us, storable
from storemirror.bus.waiting import News


@dataclass(slots=True)
class Entry:
    """One message in one subscription."""

    message: Message
    sequence_number: int
    enqueued_at_us: int
    delivery_count: int = 0
    lock_token: str = ""
    #: 0: nobody holds it.
    locked_until_us: int = 0


class MemoryQueue:
    """One subscription's messages."""

    def __init__(self, spec: SubscriptionSpec) -> None:
        """Start empty."""
        self.spec = spec
        self.news = News()
        self.dead_letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self.completed_count = 0
        #: Every message, the oldest first.
        self.entries: OrderedDict[int, Entry] = OrderedDict()
        #: Never received.
        self._fresh: OrderedDict[int, Entry] = OrderedDict()
        #: Received and back, a heap; may name messages that are gone or locked again.
        self._returned: list[int] = []
        #: Locked, in the order in which the locks run out.  After a change of the lock duration
        #: that order is only nearly right: such a lock is noticed late, by the old duration.
        self._locked: OrderedDict[int, Entry] = OrderedDict()

    def put(self, message: Message, sequence_number: int, now_us: int) -> None:
        """Take in a new message."""
        entry = Entry(message, sequence_number, now_us)
        self.entries[sequence_number] = self._fresh[sequence_number] = entry

    def take(self, max_count: int, now_us: int) -> list[Delivery]:
        """Lock messages, the oldest first."""
        self.sweep(now_us)
        until_us = now_us + duration_us(self.spec.lock_duration_s)
        token = str(uuid.uuid4())
        deliveries: list[Delivery] = []
        while len(deliveries) < max_count and (entry := self._pop_available()) is not None:
            entry.delivery_count += 1
            entry.lock_token = token
            entry.locked_until_us = until_us
            self._locked[entry.sequence_number] = entry
            deliveries.append(
                Delivery(
                    message=entry.message,
                    lock_token=token,
                    sequence_number=entry.sequence_number,
                    delivery_count=entry.delivery_count,
                    enqueued_at_us=entry.enqueued_at_us,
                    locked_until_us=until_us,
                )
            )
        return deliveries

    def _pop_available(self) -> Entry | None:
        """Take the oldest message that nobody holds out of those that wait."""
        while self._returned:
            number = self._returned[0]
            entry = self.entries.get(number)
            if entry is None or entry.locked_until_us:
                heapq.heappop(self._returned)
            elif self._fresh and next(iter(self._fresh)) < number:
                break
            else:
                heapq.heappop(self._returned)
                return entry
        return self._fresh.popitem(last=False)[1] if self._fresh else None

    def held(self, delivery: Delivery, now_us: int) -> Entry | None:
        """Give the message of a delivery; None when its lock was lost."""
        entry = self.entries.get(delivery.sequence_number)
        if entry is None or entry.lock_token != delivery.lock_token:
            return None
        return entry if entry.locked_until_us > now_us else None

    def complete(self, entry: Entry) -> None:
        """Settle a message for good."""
        self._remove(entry)
        self.completed_count += 1

    def give_back(self, entry: Entry, now_us: int) -> None:
        """Make a locked message available again, or bury it when it has had its last delivery."""
        del self._locked[entry.sequence_number]
        entry.lock_token = ""
        entry.locked_until_us = 0
        if entry.delivery_count >= self.spec.max_delivery_count:
            description = f"Received {entry.delivery_count} times without being settled."
            self.bury(entry, MAX_DELIVERY_REASON, description, now_us)
        else:
            heapq.heappush(self._returned, entry.sequence_number)

    def renew(self, entry: Entry, now_us: int) -> int:
        """Lock a message for another lock duration; gives when that ends."""
        entry.locked_until_us = now_us + duration_us(self.spec.lock_duration_s)
        self._locked.move_to_end(entry.sequence_number)
        return entry.locked_until_us

    def bury(self, entry: Entry, reason: str, description: str, now_us: int) -> None:
        """Turn a message into a dead letter."""
        self._remove(entry)
        self.dead_letters[entry.sequence_number] = DeadLetter(
            message=entry.message,
            sequence_number=entry.sequence_number,
            reason=storable(reason),
            description=storable(description),
            delivery_count=entry.delivery_count,
            enqueued_at_us=entry.enqueued_at_us,
            dead_lettered_at_us=now_us,
        )

    def purge(self, now_us: int) -> int:
        """Remove what nobody holds; gives how many went."""
        self.sweep(now_us)
        waiting = [entry for entry in self.entries.values() if not entry.locked_until_us]
        for entry in waiting:
            self._remove(entry)
        return len(waiting)

    def _remove(self, entry: Entry) -> None:
        number = entry.sequence_number
        del self.entries[number]
        self._locked.pop(number, None)
        self._fresh.pop(number, None)

    def sweep(self, now_us: int) -> None:
        """Take back locks that ran out, and drop or bury what nobody took in time."""
        while (entry := self._first_locked()) is not None and entry.locked_until_us <= now_us:
            self.give_back(entry, now_us)
        if self.spec.time_to_live_s is None:
            return
        horizon_us = now_us - duration_us(self.spec.time_to_live_s)
        expired = itertools.takewhile(
            lambda entry: entry.enqueued_at_us <= horizon_us, self.entries.values()
        )
        for entry in [entry for entry in expired if not entry.locked_until_us]:
            if self.spec.on_expiry is ExpiryAction.DROP:
                self._remove(entry)
            else:
                description = f"Nobody took it within {self.spec.time_to_live_s} s."
                self.bury(entry, EXPIRED_REASON, description, now_us)

    def _first_locked(self) -> Entry | None:
        return next(iter(self._locked.values()), None)

    def next_change_in_s(self, now_us: int) -> float | None:
        """Give the seconds until the first lock runs out; None when nothing is locked."""
        first = self._first_locked()
        return None if first is None else (first.locked_until_us - now_us) / SECOND_US

    @property
    def locked_count(self) -> int:
        """Give how many messages are locked; true after a `sweep`."""
        return len(self._locked)


class MemoryTopic:
    """A topic, its subscriptions and the ids it has seen."""

    def __init__(self, spec: TopicSpec) -> None:
        """Start empty."""
        self.spec = spec
        self.queues: dict[str, MemoryQueue] = {}
        self._numbers = itertools.count(1)
        #: Message id -> when it was accepted, the oldest first.
        self._seen: OrderedDict[str, int] = OrderedDict()

    def provision(self, spec: TopicSpec) -> None:
        """Bring topic and subscriptions to `spec`."""
        self.spec = spec
        for subscription in spec.subscriptions:
            queue = self.queues.setdefault(subscription.name, MemoryQueue(subscription))
            queue.spec = subscription

    def claim(self, message_id: str, now_us: int) -> bool:
        """Tell whether an id is new within the duplicate window, and remember it."""
        horizon_us = now_us - duration_us(self.spec.duplicate_window_s)
        while self._seen and next(iter(self._seen.values())) <= horizon_us:
            self._seen.popitem(last=False)
        if message_id in self._seen:
            return False
        self._seen[message_id] = now_us
        return True

    def put(self, queue: MemoryQueue, message: Message, now_us: int) -> None:
        """Put a message on one subscription."""
        queue.put(message, next(self._numbers), now_us)
