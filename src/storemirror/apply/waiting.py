"""
What waits for the document store: within half of the hand, and the excess that goes back.

Two kinds of events wait, each in a *line* of its own: what expired, while the store is out, and
what came without its contents, of which one is read at a time.  They wait under lock, which costs
no delivery, while all others go on.  When the writer ends they go back as new messages, so that
ends cost no delivery either.

Together they take at most half of the hand, by count and by bytes.  What is beyond that is the
*excess*: it goes back as a new message too, behind the others, so that these are received.  It is
held until then, and goes back once in `retry_max_s`, or it would come straight back, again and
again.  Where the excess takes the other half of the hand, nothing is received until that moment.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import structlog

from storemirror.apply.port import WriterSettings
from storemirror.apply.settler import Settler
from storemirror.bus.port import Delivery, Message, Publisher
from storemirror.bus.rules import same_event_anew
from storemirror.clock import Clock
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import LogEvent

#: What waits takes at most the hand divided by this; all others have the rest.
_HAND_PER_WAITING: Final = 2

_log = structlog.get_logger(__name__)

What = TypeVar("What")


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting(Generic[What]):
    """A delivery, and all that is needed of its event."""

    delivery: Delivery
    what: What


def put_back_message(delivery: Delivery) -> Message:
    """
    Give the message that stands for a delivery from here on.

    Its id is new, and the same whoever repeats this.  It tells since when its event waits.
    """
    run = f"waited-{delivery.sequence_number}"
    return same_event_anew(delivery.message, run=run, enqueued_at_us=delivery.enqueued_at_us)


class WaitingRoom:
    """Holds what waits, and puts back what there is no room for."""

    def __init__(
        self, publisher: Publisher, clock: Clock, settler: Settler, settings: WriterSettings
    ) -> None:
        """Start empty."""
        self._publisher = publisher
        self.clock = clock
        self.settler = settler
        self.settings = settings
        self._lines: list[Line[Any]] = []
        #: What is to go back, by sequence number.
        self._excess: dict[int, Delivery] = {}
        self._has_excess = asyncio.Event()
        #: A cancellation that strikes as psycopg's answer arrives is lost before Python 3.12.
        self.is_ended = False

    def new_line(self) -> Line[Any]:
        """Make a line, which shares the room with the others."""
        line: Line[Any] = Line(self)
        self._lines.append(line)
        return line

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits here."""
        return not self._excess and not any(self._lines)

    def keeps(self, delivery: Delivery) -> bool:
        """Tell whether the delivery waits here: nobody else is to apply it or give it back."""
        number = delivery.sequence_number
        kept = [line.delivery(number) for line in self._lines] + [self._excess.get(number)]
        return any(d is not None and d.lock_token == delivery.lock_token for d in kept)

    def forget(self, delivery: Delivery) -> None:
        """Drop an earlier reception of the same message: it lost its lock, and came again."""
        self._excess.pop(delivery.sequence_number, None)
        for line in self._lines:
            line.forget(delivery.sequence_number)

    def has_room(self, delivery: Delivery) -> bool:
        """Tell whether one more may wait."""
        count = sum(map(len, self._lines))
        size_bytes = sum(line.size_bytes for line in self._lines) + len(delivery.message.body)
        return (
            count < self.settings.hand_max_events // _HAND_PER_WAITING
            and size_bytes <= self.settings.hand_max_bytes // _HAND_PER_WAITING
        )

    def put_excess(self, delivery: Delivery) -> None:
        """Take one that is to go back."""
        self._excess[delivery.sequence_number] = delivery
        self._has_excess.set()

    async def keep_returning(self) -> None:
        """Put back, to the end, what is too much to wait here, after a pause each time."""
        while not self.is_ended:
            await self._has_excess.wait()
            await self.clock.sleep(self.settings.retry_max_s)
            going = list(self._excess.values())
            if await self._return(going):
                for delivery in going:
                    if self._excess.get(delivery.sequence_number) is delivery:
                        del self._excess[delivery.sequence_number]
            if not self._excess:  # else the bus did not take it, or there is more by now
                self._has_excess.clear()

    async def put_back(self) -> None:
        """Publish what waits anew as it came, and settle it: it will be delivered afresh.

        What the bus does not take is the caller's to abandon, at the price of a delivery.
        """
        self.is_ended = True
        left = [delivery for line in self._lines for delivery in line.clear()]
        left += self._excess.values()
        self._excess.clear()
        await self._return(left)

    async def _return(self, deliveries: Sequence[Delivery]) -> bool:
        """Put back those that are still ours; tells whether the bus took them."""
        left = self.settler.hand.held_among(deliveries)
        if left:
            try:
                await self._publisher.publish([put_back_message(delivery) for delivery in left])
            except StoreMirrorError as exc:
                _log.warning(LogEvent.SETTLEMENT_FAILED.value, count=len(left), error=str(exc))
                return False
            await self.settler.complete(left)
        return True


class Line(Generic[What]):
    """What waits for the same to be done with it, the oldest first."""

    def __init__(self, room: WaitingRoom) -> None:
        """Start empty; `room` makes it."""
        self._room = room
        #: By sequence number.
        self._waiting: dict[int, Waiting[What]] = {}
        self.size_bytes = 0
        #: Set while something waits.
        self.has_some = asyncio.Event()

    def __len__(self) -> int:
        """Give how many wait."""
        return len(self._waiting)

    @property
    def first(self) -> Waiting[What] | None:
        """Give the oldest that waits."""
        return next(iter(self._waiting.values()), None)

    def put(self, delivery: Delivery, what: What) -> None:
        """Let one wait, or go back where too many wait.

        One may always wait in each line, or it would never be seen that the store answers again.
        """
        self._room.forget(delivery)
        if self._waiting and not self._room.has_room(delivery):
            self._room.put_excess(delivery)
            return
        self._waiting[delivery.sequence_number] = Waiting(delivery, what)
        self.size_bytes += len(delivery.message.body)
        self.has_some.set()

    def delivery(self, number: int) -> Delivery | None:
        """Give the delivery with this sequence number, if it waits here."""
        waiting = self._waiting.get(number)
        return None if waiting is None else waiting.delivery

    def drop(self, waiting: Waiting[What]) -> None:
        """Let one wait no more; one that has come again since stays."""
        if self._waiting.get(waiting.delivery.sequence_number) is waiting:
            self.forget(waiting.delivery.sequence_number)

    def forget(self, number: int) -> None:
        """Let no delivery with this sequence number wait any more."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            self.size_bytes -= len(waiting.delivery.message.body)
        if not self._waiting:
            self.has_some.clear()

    def clear(self) -> list[Delivery]:
        """Take out everything that waits."""
        left = [waiting.delivery for waiting in self._waiting.values()]
        self._waiting.clear()
        self.size_bytes = 0
        self.has_some.clear()
        return left
