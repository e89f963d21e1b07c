"""
A wrapper over any bus that repeats, reorders and drops on request, for tests and the demo.

Nothing is lost for good by it: what is held back is handed out later, and where a settlement is
dropped the delivery comes again.  Whoever settles what it receives, however often and in whatever
order it comes, sees every message and is done in the end.

- **Repeat** (publisher): the same body is published once more under an id of its own, with a later
  call, so that duplicate detection lets it pass.  `completed_count` then counts both.
- **Reorder** (consumer): a delivery is held back behind those of later calls, its lock renewed.
- **Drop** (consumer): a completion is lost on the way: the consumer is told that it settled the
  delivery, and the bus hands it out again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from storemirror.bus.port import (
    Consumer,
    Delivery,
    Message,
    Publisher,
    PublishResult,
    Rejection,
)
from storemirror.clock import Clock
from storemirror.errors import BusRefused, BusUnavailable, SettledInPart

#: While deliveries are held back, an empty bus is waited for no longer than this.
HELD_WAIT_S: Final = 0.02
#: A completion is dropped only up to this delivery count, lest the bus dead-letter a message for
#: our sake.
MAX_DROPPED_DELIVERY_COUNT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often each fault strikes: probabilities from 0 to 1."""

    #: That a message is published once more.
    repeat: float = 0.0
    #: That a delivery is held back.
    reorder: float = 0.0
    #: That the completion of a delivery is lost.
    drop: float = 0.0
    #: Most later calls of `receive` that a held-back delivery is behind.
    max_calls_held: int = 3


@dataclass(slots=True, kw_only=True)
class FaultCounts:
    """What a wrapper has done so far."""

    repeated: int = 0
    reordered: int = 0
    dropped: int = 0


class FaultyPublisher:
    """Publishes some messages once more."""

    def __init__(self, inner: Publisher, faults: Faults, randomness: random.Random) -> None:
        """Wrap a publisher; `aclose` closes it as well."""
        self._inner = inner
        self._faults = faults
        self._random = randomness
        self._repeats: list[Message] = []
        self.counts = FaultCounts()

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        """See `Publisher.publish`.  The result is about `messages` alone."""
        result = await self._inner.publish(messages)
        due, self._repeats = self._repeats, []
        self._repeats.extend(
            self._repeat_of(message)
            for message in messages
            if self._random.random() < self._faults.repeat
        )
        await self._publish_repeats(due)
        return result

    def _repeat_of(self, message: Message) -> Message:
        """Give the same message under an id that nobody has seen."""
        run = f"repeat-{self._random.getrandbits(64):016x}"
        return replace(message, message_id=f"{message.message_id.partition('.')[0]}.{run}")

    async def _publish_repeats(self, repeats: list[Message]) -> None:
        """Publish repeats; those that do not go through now are due again with the next call."""
        if not repeats:
            return
        try:
            result = await self._inner.publish(repeats)
        except (BusUnavailable, BusRefused):
            # What the caller asked for is published: this failure is none of theirs.
            self._repeats.extend(repeats)
        else:
            self.counts.repeated += result.accepted_count

    async def flush(self) -> None:
        """Publish the repeats that are due; those that do not go through stay due."""
        due, self._repeats = self._repeats, []
        await self._publish_repeats(due)

    async def aclose(self) -> None:
        """See `Publisher.aclose`."""
        await self.flush()
        await self._inner.aclose()


@dataclass(slots=True)
class _Held:
    """A delivery that is held back."""

    delivery: Delivery
    #: Further calls of `receive` before it is handed out.
    calls_left: int


class FaultyConsumer:
    """Holds some deliveries back, and loses some completions."""

    def __init__(
        self, inner: Consumer, faults: Faults, randomness: random.Random, clock: Clock
    ) -> None:
        """Wrap a consumer; `aclose` closes it as well."""
        self._inner = inner
        self._faults = faults
        self._random = randomness
        self._clock = clock
        self._held: list[_Held] = []
        self.counts = FaultCounts()

    async def receive(self, max_count: int, *, max_wait_s: float) -> list[Delivery]:
        """See `Consumer.receive`.  A delivery is held back at most while others come."""
        deadline_s = self._clock.monotonic_s() + max_wait_s
        while True:
            due = await self._due(max_count)
            wait_s = max(0.0, deadline_s - self._clock.monotonic_s())
            handed_out = due + await self._received(max_count - len(due), bool(due), wait_s)
            if handed_out:
                self._random.shuffle(handed_out)
                return handed_out
            if not self._held and self._clock.monotonic_s() >= deadline_s:
                return []

    async def _due(self, max_count: int) -> list[Delivery]:
        """Renew what is held back, and take out what has waited long enough."""
        held, self._held = self._held, []
        try:
            renewed = await self._inner.renew([one.delivery for one in held])
        except BaseException:
            self._held = held + self._held
            raise
        # A lock lost meanwhile is no loss: the bus hands the delivery out again by itself.
        fresh = {(delivery.sequence_number, delivery.lock_token): delivery for delivery in renewed}
        due: list[Delivery] = []
        for one in held:
            key = (one.delivery.sequence_number, one.delivery.lock_token)
            if key not in fresh:
                continue
            if one.calls_left <= 0 and len(due) < max_count:
                due.append(fresh[key])
            else:
                self._held.append(_Held(fresh[key], one.calls_left - 1))
        return due

    async def _received(self, max_count: int, has_due: bool, wait_s: float) -> list[Delivery]:
        """Receive, and hold some of it back."""
        if max_count < 1:
            return []
        if has_due:
            wait_s = 0.0
        elif self._held:
            wait_s = min(wait_s, HELD_WAIT_S)
        received = await self._inner.receive(max_count, max_wait_s=wait_s)
        if not received:
            # Nothing is left for those held back to be behind.
            for one in self._held:
                one.calls_left = 0
        kept: list[Delivery] = []
        for delivery in received:
            if self._random.random() < self._faults.reorder:
                calls_left = self._random.randint(1, self._faults.max_calls_held) - 1
                self._held.append(_Held(delivery, calls_left))
                self.counts.reordered += 1
            else:
                kept.append(delivery)
        return kept

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """
        See `Consumer.complete`.  Those whose completion is dropped are abandoned instead.

        They first: an error after the completion would have it repeated, and what was completed by
        then would be called lost, though it never comes again.
        """
        dropped = [delivery for delivery in deliveries if self._is_dropped(delivery)]
        numbers = {delivery.sequence_number for delivery in dropped}
        lost: list[Delivery] = []
        kept = [delivery for delivery in deliveries if delivery.sequence_number not in numbers]
        if dropped:
            try:
                lost = await self._inner.abandon(dropped)
            except SettledInPart as exc:
                untried = {delivery.sequence_number for delivery in kept}
                raise SettledInPart(str(exc), unsettled={*exc.unsettled, *untried}) from exc
            self.counts.dropped += len(dropped) - len(lost)
        return lost + await self._inner.complete(kept)

    def _is_dropped(self, delivery: Delivery) -> bool:
        """Draw whether the completion of a delivery is lost."""
        return (
            delivery.delivery_count <= MAX_DROPPED_DELIVERY_COUNT
            and self._random.random() < self._faults.drop
        )

    async def abandon(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.abandon`."""
        return await self._inner.abandon(deliveries)

    async def dead_letter(self, rejections: Sequence[Rejection]) -> list[Delivery]:
        """See `Consumer.dead_letter`."""
        return await self._inner.dead_letter(rejections)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.renew`."""
        return await self._inner.renew(deliveries)

    async def flush(self) -> None:
        """Give what is held back to the bus again, for anyone to take."""
        held, self._held = self._held, []
        if held:
            await self._inner.abandon([one.delivery for one in held])

    async def aclose(self) -> None:
        """See `Consumer.aclose`."""
        # Locks that cannot be given back run out.
        with contextlib.suppress(BusUnavailable):
            await self.flush()
        await self._inner.aclose()
