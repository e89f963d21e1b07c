"""A bus in this process, for tests and benchmarks: the same semantics, gone with the process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from storemirror.bus.memory_queue import MemoryQueue, MemoryTopic
from storemirror.bus.port import (
    TOPIC,
    DeadLetter,
    Delivery,
    Message,
    PublishResult,
    Rejection,
    SubscriptionStats,
    TopicSpec,
)
from storemirror.bus.rules import (
    SECOND_US,
    refuse_bad_messages,
    refuse_bad_topic,
    refuse_second_acknowledgement,
    replacement_of,
    storable,
)
from storemirror.bus.waiting import wait_for
from storemirror.clock import Clock
from storemirror.errors import BusRefused, DeadLetterUnknown


class MemoryBus:
    """Holds topics; hands out publishers, consumers and admins that share them."""

    def __init__(self, clock: Clock) -> None:
        """Start with no topic."""
        self._clock = clock
        self._topics: dict[str, MemoryTopic] = {}

    def publisher(self, *, topic: str = TOPIC) -> MemoryPublisher:
        """Make a publisher."""
        return MemoryPublisher(self, self._clock, topic)

    def consumer(self, subscription: str, *, topic: str = TOPIC) -> MemoryConsumer:
        """Make a consumer."""
        return MemoryConsumer(self, self._clock, topic, subscription)

    def admin(self, *, topic: str = TOPIC) -> MemoryBusAdmin:
        """Make an admin."""
        return MemoryBusAdmin(self, self._clock, topic)

    def topic(self, name: str) -> MemoryTopic:
        """Give a topic."""
        if name not in self._topics:
            raise BusRefused(f"there is no topic {name!r}: run `storemirror bus provision` first")
        return self._topics[name]

    def queue(self, topic: str, subscription: str) -> MemoryQueue:
        """Give a subscription's messages."""
        queue = self.topic(topic).queues.get(subscription)
        if queue is None:
            raise BusRefused(
                f"topic {topic!r} has no subscription {subscription!r}: "
                "run `storemirror bus provision` first"
            )
        return queue

    def provision(self, spec: TopicSpec) -> None:
        """Make a topic, or bring an existing one to `spec`."""
        self._topics.setdefault(spec.name, MemoryTopic(spec)).provision(spec)


class MemoryPublisher:
    """Puts messages on a topic."""

    def __init__(self, bus: MemoryBus, clock: Clock, topic: str) -> None:
        """Name the topic; see `MemoryBus.publisher`."""
        self._bus = bus
        self._clock = clock
        self._topic = topic

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        """See `Publisher.publish`."""
        refuse_bad_messages(messages)
        topic = self._bus.topic(self._topic)
        now_us = self._clock.now_us()
        accepted = [message for message in messages if topic.claim(message.message_id, now_us)]
        for queue in topic.queues.values():
            queue.sweep(now_us)
            for message in accepted:
                topic.put(queue, message, now_us)
            if accepted:
                queue.news.tell()
        return PublishResult(
            accepted_count=len(accepted), duplicate_count=len(messages) - len(accepted)
        )

    async def aclose(self) -> None:
        """See `Publisher.aclose`."""


class MemoryConsumer:
    """Takes deliveries from one subscription."""

    def __init__(self, bus: MemoryBus, clock: Clock, topic: str, subscription: str) -> None:
        """Name the subscription; see `MemoryBus.consumer`."""
        self._bus = bus
        self._clock = clock
        self._topic = topic
        self._subscription = subscription

    @property
    def _queue(self) -> MemoryQueue:
        return self._bus.queue(self._topic, self._subscription)

    async def receive(self, max_count: int, *, max_wait_s: float) -> list[Delivery]:
        """See `Consumer.receive`."""
        if max_count < 1:
            raise ValueError(f"max_count must be >= 1, got {max_count}")
        deadline_s = self._clock.monotonic_s() + max_wait_s
        queue = self._queue
        while True:
            news = queue.news.next()
            now_us = self._clock.now_us()
            deliveries = queue.take(max_count, now_us)
            remaining_s = deadline_s - self._clock.monotonic_s()
            if deliveries or remaining_s <= 0:
                return deliveries
            change_s = queue.next_change_in_s(now_us)
            await wait_for(
                news, self._clock, remaining_s if change_s is None else min(remaining_s, change_s)
            )

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.complete`."""
        queue = self._queue
        now_us = self._clock.now_us()
        lost = []
        for delivery in deliveries:
            entry = queue.held(delivery, now_us)
            if entry is None:
                lost.append(delivery)
            else:
                queue.complete(entry)
        return lost

    async def abandon(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.abandon`."""
        queue = self._queue
        now_us = self._clock.now_us()
        lost = []
        for delivery in deliveries:
            entry = queue.held(delivery, now_us)
            if entry is None:
                lost.append(delivery)
            else:
                queue.give_back(entry, now_us)
        queue.news.tell()
        return lost

    async def dead_letter(self, rejections: Sequence[Rejection]) -> list[Delivery]:
        """See `Consumer.dead_letter`."""
        queue = self._queue
        now_us = self._clock.now_us()
        lost = []
        for rejection in rejections:
            entry = queue.held(rejection.delivery, now_us)
            if entry is None:
                lost.append(rejection.delivery)
            else:
                queue.bury(entry, rejection.reason, rejection.description, now_us)
        return lost

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.renew`."""
        queue = self._queue
        now_us = self._clock.now_us()
        renewed = []
        for delivery in deliveries:
            entry = queue.held(delivery, now_us)
            if entry is not None:
                until_us = queue.renew(entry, now_us)
                renewed.append(msgspec.structs.replace(delivery, locked_until_us=until_us))
        return renewed

    async def aclose(self) -> None:
        """See `Consumer.aclose`."""


class MemoryBusAdmin:
    """Makes a topic, and looks after it."""

    def __init__(self, bus: MemoryBus, clock: Clock, topic: str) -> None:
        """Name the topic; see `MemoryBus.admin`."""
        self._bus = bus
        self._clock = clock
        self._topic = topic

    async def provision(self, topic: TopicSpec) -> None:
        """See `BusAdmin.provision`.  A subscription that `topic` does not name stays as it is."""
        if topic.name != self._topic:
            raise BusRefused(f"this admin looks after {self._topic!r}, not {topic.name!r}")
        refuse_bad_topic(topic)
        self._bus.provision(topic)

    async def stats(self, subscription: str) -> SubscriptionStats:
        """See `BusAdmin.stats`."""
        queue = self._bus.queue(self._topic, subscription)
        now_us = self._clock.now_us()
        queue.sweep(now_us)
        oldest = next(iter(queue.entries.values()), None)
        acknowledged_count = sum(
            letter.acknowledged_reason is not None for letter in queue.dead_letters.values()
        )
        return SubscriptionStats(
            subscription=subscription,
            depth=len(queue.entries),
            locked_count=queue.locked_count,
            dead_letter_count=len(queue.dead_letters) - acknowledged_count,
            acknowledged_count=acknowledged_count,
            completed_count=queue.completed_count,
            oldest_age_s=None if oldest is None else (now_us - oldest.enqueued_at_us) / SECOND_US,
            oldest_enqueued_at_us=None if oldest is None else oldest.enqueued_at_us,
        )

    async def oldest_age_s(self, subscription: str) -> float | None:
        """See `BusAdmin.oldest_age_s`."""
        return (await self.stats(subscription)).oldest_age_s

    async def peek_dead_letters(
        self,
        subscription: str,
        *,
        limit: int,
        after_sequence_number: int = 0,
        with_acknowledged: bool = True,
    ) -> list[DeadLetter]:
        """See `BusAdmin.peek_dead_letters`."""
        letters = self._bus.queue(self._topic, subscription).dead_letters
        numbers = sorted(
            number
            for number, letter in letters.items()
            if number > after_sequence_number
            and (with_acknowledged or letter.acknowledged_reason is None)
        )
        return [letters[number] for number in numbers[:limit]]

    async def resubmit(self, subscription: str, sequence_number: int, *, run: str) -> str:
        """See `BusAdmin.resubmit`.  Refused when the replacement's id was accepted before."""
        queue, letter = self._dead_letter(subscription, sequence_number)
        replacement = replacement_of(letter, run=run)
        topic = self._bus.topic(self._topic)
        now_us = self._clock.now_us()
        if not topic.claim(replacement.message_id, now_us):
            raise BusRefused(
                f"message id {replacement.message_id!r} was accepted before: choose another "
                f"run than {run!r}; dead letter {sequence_number} stays"
            )
        topic.put(queue, replacement, now_us)
        del queue.dead_letters[sequence_number]
        queue.news.tell()
        return replacement.message_id

    async def acknowledge(self, subscription: str, sequence_number: int, *, reason: str) -> None:
        """See `BusAdmin.acknowledge`."""
        queue, letter = self._dead_letter(subscription, sequence_number)
        refuse_second_acknowledgement(letter)
        queue.dead_letters[sequence_number] = dataclasses.replace(
            letter, acknowledged_reason=storable(reason)
        )

    async def remove_dead_letters(
        self, subscription: str, sequence_numbers: Sequence[int]
    ) -> list[int]:
        """See `BusAdmin.remove_dead_letters`."""
        letters = self._bus.queue(self._topic, subscription).dead_letters
        removed = sorted(letters.keys() & set(sequence_numbers))
        for number in removed:
            del letters[number]
        return removed

    def _dead_letter(
        self, subscription: str, sequence_number: int
    ) -> tuple[MemoryQueue, DeadLetter]:
        queue = self._bus.queue(self._topic, subscription)
        letter = queue.dead_letters.get(sequence_number)
        if letter is None:
            raise DeadLetterUnknown(f"{subscription}: there is no dead letter {sequence_number}")
        return queue, letter

    async def purge(self, subscription: str) -> int:
        """See `BusAdmin.purge`."""
        return self._bus.queue(self._topic, subscription).purge(self._clock.now_us())

    async def aclose(self) -> None:
        """See `BusAdmin.aclose`."""
