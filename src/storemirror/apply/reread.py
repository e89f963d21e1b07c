"""
What becomes of expired events: their documents are read again, and published as they are now.

The document store has a gate of its own.  When it does not answer, or says no, the gate closes:
expired events then wait under lock, which costs them no delivery, while all others go on.  The
oldest that waits is tried again and again; with it the gate opens.  What still waits when the
writer ends goes back as a new message, so that ends cost no delivery either.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Sequence

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
        #: The oldest first.
        self._waiting: deque[_Waiting] = deque()
        self._has_some = asyncio.Event()
        self._is_closed = False

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
            self._waiting.append(waiting)
            self._has_some.set()
            kept.add(taken.delivery.sequence_number)
        return kept

    async def keep_trying(self) -> None:
        """Read, for ever, what waits.  A document store that is silent is asked again."""
        while True:
            await self._has_some.wait()
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(_NotYet),
                wait=wait_random_exponential(
                    multiplier=self._settings.retry_first_s, max=self._settings.retry_max_s
                ),
                sleep=self._clock.sleep,
            )
            await retrying(self._try_first)

    async def put_back(self) -> None:
        """Publish what waits anew as it came, and settle it: it will be delivered afresh."""
        left = [w.delivery for w in self._waiting if self._hand.holds(w.delivery)]
        self._waiting.clear()
        if not left:
            return
        try:
            await self._publisher.publish([put_back_message(delivery) for delivery in left])
        except StoreMirrorError as exc:  # then they are abandoned, at the price of a delivery
            _log.warning(LogEvent.SETTLEMENT_FAILED.value, count=len(left), error=str(exc))
            return
        await self._settler.complete(left)

    async def _try_first(self) -> None:
        """Read the oldest that waits; with it the gate opens."""
        if self._waiting:
            waiting = self._waiting[0]
            # Where its lock was lost it comes again by itself.
            if self._hand.holds(waiting.delivery):
                await self._settle(waiting)
                self._open()
            if self._waiting and self._waiting[0] is waiting:
                self._waiting.popleft()
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
