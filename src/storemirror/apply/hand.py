"""The deliveries that this writer holds under lock, and the task that keeps the locks alive."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from storemirror.apply.port import WriterSettings
from storemirror.apply.stats import WriterStats
from storemirror.bus.port import Consumer, Delivery
from storemirror.clock import Clock
from storemirror.errors import TransientError
from storemirror.telemetry import LogEvent

#: How often in a lock's duration the locks are looked at.
_LOOKS_PER_LOCK: Final = 8

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Group:
    """Deliveries that were received, and so locked, together."""

    deliveries: list[Delivery]
    #: By the clock's monotonic seconds.
    renew_at_s: float


class Hand:
    """What is held: received, and not yet settled, given back, or lost."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        clock: Clock,
        stats: WriterStats,
        settings: WriterSettings,
        on_shrink: Callable[[], None],
    ) -> None:
        """Start empty.  `on_shrink` is called when there is room again."""
        self._consumer = consumer
        self._clock = clock
        self._stats = stats
        self._settings = settings
        self._on_shrink = on_shrink
        #: By sequence number: one lock token may be shared by all that came together.
        self._held: dict[int, Delivery] = {}
        #: Sequence numbers of what a call is under way for that settles it.
        self._settling: set[int] = set()
        self._groups: deque[_Group] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        """Give how many deliveries are held."""
        return len(self._held)

    def holds(self, delivery: Delivery) -> bool:
        """Tell whether the delivery is still ours to settle, as far as is known."""
        held = self._held.get(delivery.sequence_number)
        return held is not None and held.lock_token == delivery.lock_token

    def held_among(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Give those of many deliveries that are still ours to settle; see `holds`."""
        held = self._held
        return [d for d in deliveries if held.get(d.sequence_number) is d or self.holds(d)]

    def held(self) -> list[Delivery]:
        """Give all deliveries held."""
        return list(self._held.values())

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Hold deliveries that were just received.  What comes again was lost before."""
        by_number = {delivery.sequence_number: delivery for delivery in deliveries}
        if not self._held.keys().isdisjoint(by_number):
            self.lose([self._held[number] for number in by_number if number in self._held])
        self._held.update(by_number)
        self.size_bytes += sum([len(delivery.message.body) for delivery in deliveries])
        renew_at_s = self._clock.monotonic_s() + self._settings.lock_duration_s / 2
        self._groups.append(_Group(list(deliveries), renew_at_s))

    @contextlib.contextmanager
    def settling(self, deliveries: Iterable[Delivery]) -> Iterator[None]:
        """Let a renewal not call lost meanwhile what the bus has just settled."""
        numbers = {delivery.sequence_number for delivery in deliveries}
        self._settling |= numbers
        try:
            yield
        finally:
            self._settling -= numbers

    def let_go(self, deliveries: Iterable[Delivery]) -> None:
        """Hold those of these no more that are ours: they are settled, given back, or lost."""
        held = self._held
        for delivery in deliveries:
            number = delivery.sequence_number
            if held.get(number) is delivery or self.holds(delivery):
                del held[number]
                self.size_bytes -= len(delivery.message.body)
        if not held:
            self._groups.clear()
        self._on_shrink()

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        """Count deliveries whose lock was lost, and hold them no more."""
        if deliveries:
            self._stats.lost_locks += len(deliveries)
            _log.warning(LogEvent.LOCKS_LOST.value, count=len(deliveries))
            self.let_go(deliveries)

    async def keep_locks(self) -> None:
        """Renew, for ever, the locks of which half has passed."""
        while True:
            await self._clock.sleep(self._settings.lock_duration_s / _LOOKS_PER_LOCK)
            await self.renew_due()

    async def renew_due(self) -> None:
        """Renew the locks of which half has passed; a bus that does not answer is asked again."""
        now_s = self._clock.monotonic_s()
        due: list[Delivery] = []
        while self._groups and self._groups[0].renew_at_s <= now_s:
            due += [d for d in self._groups.popleft().deliveries if self.holds(d)]
        if not due:
            return
        try:
            renewed = await self._consumer.renew(due)
        except TransientError as exc:
            _log.warning(LogEvent.RENEWAL_FAILED.value, count=len(due), error=str(exc))
            self._groups.appendleft(_Group(due, now_s))
            return
        kept = {delivery.sequence_number for delivery in renewed}
        missing = [d for d in due if d.sequence_number not in kept and self.holds(d)]
        unclear = [d for d in missing if d.sequence_number in self._settling]
        self._groups.append(_Group(renewed, now_s + self._settings.lock_duration_s / 2))
        if unclear:
            # The call that settles them will say; should it fail, they are looked at again.
            self._groups.appendleft(_Group(unclear, now_s))
        self.lose([d for d in missing if d.sequence_number not in self._settling])
