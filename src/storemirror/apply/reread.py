"""
What becomes of expired events: their documents are read again, and published as they are now.

The document store has a gate of its own.  When it does not answer, or says no, the gate closes:
expired events then wait under lock, which costs them no delivery, while all others go on.  The
oldest that waits is tried again and again; with it the gate opens.  What still waits when the
writer ends goes back as a new message, so that ends cost no delivery either.

What waits takes at most half of the hand, by count and by bytes.  What expires beyond that is the
*excess*: it goes back as a new message too, behind the others, so that these are received.  It is
held until then, and goes back once in `retry_max_s`, or it would come straight back, again and
again.  Where the excess takes the other half of the hand, nothing is received until that moment.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from storemirror.apply.hand import Hand
from storemirror.apply.port import Reread, Taken, WriterSettings
from storemirror.apply.settle import Settlement, decide_reread_settlement
from storemirror.apply.settler import Settler
from storemirror.bus.port import Delivery, Message, Publisher, Rejection
from storemirror.bus.rules import same_event_anew
from storemirror.clock import Clock
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import LogEvent

#: What waits takes at most the hand divided by this; all others have the rest.
_HAND_PER_WAITING: Final = 2

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    """An expired event: its document's path is all that is needed of it."""

    delivery: Delivery
    path: str


class _NotYet(Exception):
    """What waits could not be read again, and the cause is not its own."""


def put_back_message(delivery: Delivery) -> Message:
    """
    Give the message that stands for a delivery from here on.

    Its id is new, and the same whoever repeats this.  It tells since when its event waits.
    """
    run = f"waited-{delivery.sequence_number}"
    return same_event_anew(delivery.message, run=run, enqueued_at_us=delivery.enqueued_at_us)


class Rereader:
    """Has documents read again; holds what waits for a document store that does not answer."""

    def __init__(
        self,
        reread: Reread,
        publisher: Publisher,
        clock: Clock,
        hand: Hand,
        settler: Settler,
        settings: WriterSettings,
    ) -> None:
        """Start with the gate open, and nothing waiting."""
        self._reread = reread
        self._publisher = publisher
        self._clock = clock
        self._hand = hand
        self._settler = settler
        self._settings = settings
        #: By sequence number, the oldest first.
        self._waiting: dict[int, _Waiting] = {}
        self._waiting_bytes = 0
        self._has_some = asyncio.Event()
        #: What is to go back, likewise.
        self._excess: dict[int, _Waiting] = {}
        self._has_excess = asyncio.Event()
        self._is_closed = False
        #: A cancellation that strikes as psycopg's answer arrives is lost before Python 3.12.
        self._is_ended = False

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits here."""
        return not self._waiting and not self._excess

    def keeps(self, delivery: Delivery) -> bool:
        """Tell whether the delivery waits here: nobody else is to apply it or give it back."""
        return any(self._is_among(group, delivery) for group in (self._waiting, self._excess))

    async def renew(self, expired: Sequence[Taken]) -> set[int]:
        """
        Publish each document as it is now.

        What can never be published is set aside with the reason.

        Returns:
            Sequence numbers of the deliveries that wait: they are not to be completed.
        """
        kept: set[int] = set()
        for taken in expired:
            waiting = _Waiting(taken.delivery, taken.event.change.path)
            if not self._is_closed:
                try:
                    await self._publish_anew(waiting)
                    continue
                except StoreMirrorError as exc:
                    if await self._is_set_aside(waiting, exc):
                        continue
                    self._close(exc)
            self._keep(waiting)
            kept.add(taken.delivery.sequence_number)
        return kept

    async def keep_trying(self) -> None:
        """Read, to the end, what waits.  A document store that is silent is asked again."""
        while not self._is_ended:
            await self._has_some.wait()
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(_NotYet),
                wait=wait_random_exponential(
                    multiplier=self._settings.retry_first_s, max=self._settings.retry_max_s
                ),
                sleep=self._clock.sleep,
            )
            await retrying(self._try_first)

    async def keep_returning(self) -> None:
        """Put back, to the end, what is too much to wait here, after a pause each time."""
        while not self._is_ended:
            await self._has_excess.wait()
            await self._clock.sleep(self._settings.retry_max_s)
            await self._return(self._excess)
            if not self._excess:  # else the bus did not take it, or there is more by now
                self._has_excess.clear()

    async def put_back(self) -> None:
        """Publish what waits anew as it came, and settle it: it will be delivered afresh.

        What the bus does not take is the caller's to abandon, at the price of a delivery.
        """
        self._is_ended = True
        left = self._waiting | self._excess
        self._waiting.clear()  # nothing of it is tried any more
        self._excess.clear()
        await self._return(left)

    async def _return(self, group: Mapping[int, _Waiting]) -> None:
        """Put some back; they stay here where the bus does not take them."""
        going = list(group.values())
        left = self._hand.held_among([waiting.delivery for waiting in going])
        if left:
            try:
                await self._publisher.publish([put_back_message(delivery) for delivery in left])
            except StoreMirrorError as exc:
                _log.warning(LogEvent.SETTLEMENT_FAILED.value, count=len(left), error=str(exc))
                return
            await self._settler.complete(left)
        for waiting in going:
            self._drop(waiting)

    def _keep(self, waiting: _Waiting) -> None:
        """Let one wait, or go back where too many wait."""
        delivery = waiting.delivery
        number = delivery.sequence_number
        # It lost its lock, and came again.
        for stale in (self._waiting.get(number), self._excess.get(number)):
            if stale is not None:
                self._drop(stale)
        if self._has_room(delivery):
            self._waiting[number] = waiting
            self._waiting_bytes += len(delivery.message.body)
            self._has_some.set()
        else:
            self._excess[number] = waiting
            self._has_excess.set()

    def _has_room(self, delivery: Delivery) -> bool:
        """Tell whether one more may wait; one always may, or the gate would stay closed."""
        size_bytes = self._waiting_bytes + len(delivery.message.body)
        return not self._waiting or (
            len(self._waiting) < self._settings.hand_max_events // _HAND_PER_WAITING
            and size_bytes <= self._settings.hand_max_bytes // _HAND_PER_WAITING
        )

    def _drop(self, waiting: _Waiting) -> None:
        number = waiting.delivery.sequence_number
        if self._waiting.get(number) is waiting:
            del self._waiting[number]
            self._waiting_bytes -= len(waiting.delivery.message.body)
        if self._excess.get(number) is waiting:
            del self._excess[number]

    @staticmethod
    def _is_among(group: Mapping[int, _Waiting], delivery: Delivery) -> bool:
        kept = group.get(delivery.sequence_number)
        return kept is not None and kept.delivery.lock_token == delivery.lock_token

    async def _try_first(self) -> None:
        """Read the oldest that waits; with it the gate opens."""
        waiting = next(iter(self._waiting.values()), None)
        if waiting is not None:
            # Where its lock was lost it comes again by itself.
            if self._hand.holds(waiting.delivery):
                await self._settle(waiting)
                self._open()
            self._drop(waiting)
        if not self._waiting:
            self._open()
            self._has_some.clear()

    async def _settle(self, waiting: _Waiting) -> None:
        try:
            await self._publish_anew(waiting)
        except StoreMirrorError as exc:
            if await self._is_set_aside(waiting, exc):
                return
            _log.warning(
                LogEvent.SOURCE_GATE_STILL_CLOSED.value,
                error=str(exc),
                hint=exc.hint,
                count=len(self._waiting),
            )
            raise _NotYet from exc
        await self._settler.complete([waiting.delivery])

    async def _publish_anew(self, waiting: _Waiting) -> None:
        """Read and publish.

        The run is the delivery's own number: when the writer dies before it settles, the next
        one's message has the same id, and the bus takes it once.
        """
        run = f"reread-{waiting.delivery.sequence_number}"
        await self._publisher.publish([await self._reread.reread(waiting.path, run=run)])

    async def _is_set_aside(self, waiting: _Waiting, exc: StoreMirrorError) -> bool:
        """Set aside what is the event's own fault; tells whether it was."""
        if decide_reread_settlement(exc) is not Settlement.DEAD_LETTER:
            return False
        rejection = Rejection(
            delivery=waiting.delivery, reason=type(exc).__name__, description=str(exc)
        )
        await self._settler.dead_letter([rejection])
        return True

    def _open(self) -> None:
        if self._is_closed:
            self._is_closed = False
            _log.info(LogEvent.SOURCE_GATE_OPENED.value)

    def _close(self, exc: StoreMirrorError) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        _log.error(LogEvent.SOURCE_GATE_CLOSED.value, error=str(exc), hint=exc.hint)
