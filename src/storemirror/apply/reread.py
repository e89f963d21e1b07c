"""
What becomes of expired events: their documents are read again, and published as they are now.

The document store has a gate of its own.  When it does not answer, or says no, the gate closes:
expired events then wait (`storemirror.apply.waiting`), while all others go on.  The oldest that
waits is tried again and again; with it the gate opens.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type

from storemirror.apply.port import Reread, Taken
from storemirror.apply.retry import waits_of
from storemirror.apply.settle import Settlement, decide_reread_settlement
from storemirror.apply.waiting import Line, Waiting, WaitingRoom
from storemirror.bus.port import Delivery, Publisher, Rejection
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import LogEvent

_log = structlog.get_logger(__name__)


class _NotYet(Exception):
    """What waits could not be read again, and the cause is not its own."""


class Rereader:
    """Has documents read again; lets wait what meets a document store that does not answer."""

    def __init__(self, reread: Reread, publisher: Publisher, room: WaitingRoom) -> None:
        """Start with the gate open, and nothing waiting."""
        self._reread = reread
        self._publisher = publisher
        self._settler = room.settler
        #: Where events wait.
        self.room = room
        #: The path of its document is all that is needed of an event.
        self._line: Line[str] = room.new_line()
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
            delivery, path = taken.delivery, taken.event.change.path
            if not self._is_closed:
                try:
                    await self._publish_anew(delivery, path)
                    continue
                except StoreMirrorError as exc:
                    if await self._is_set_aside(delivery, exc):
                        continue
                    self._close(exc)
            self._line.put(delivery, path)
            kept.add(delivery.sequence_number)
        return kept

    async def keep_trying(self) -> None:
        """Read, to the end, what waits.  A document store that is silent is asked again."""
        while not self.room.is_ended:
            await self._line.has_some.wait()
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(_NotYet),
                wait=waits_of(self.room.settings),
                sleep=self.room.clock.sleep,
            )
            await retrying(self._try_first)

    async def _try_first(self) -> None:
        """Read the oldest that waits; with it the gate opens."""
        waiting = self._line.first
        if waiting is not None:
            # Where its lock was lost it comes again by itself.
            if self._settler.hand.holds(waiting.delivery):
                await self._settle(waiting)
                self._open()
            self._line.drop(waiting)
        if not self._line:
            self._open()

    async def _settle(self, waiting: Waiting[str]) -> None:
        try:
            await self._publish_anew(waiting.delivery, waiting.what)
        except StoreMirrorError as exc:
            if await self._is_set_aside(waiting.delivery, exc):
                return
            _log.warning(
                LogEvent.SOURCE_GATE_STILL_CLOSED.value,
                error=str(exc),
                hint=exc.hint,
                count=len(self._line),
            )
            raise _NotYet from exc
        await self._settler.complete([waiting.delivery])

    async def _publish_anew(self, delivery: Delivery, path: str) -> None:
        """Read and publish.

        The run is the delivery's own number: when the writer dies before it settles, the next
        one's message has the same id, and the bus takes it once.
        """
        run = f"reread-{delivery.sequence_number}"
        await self._publisher.publish([await self._reread.reread(path, run=run)])

    async def _is_set_aside(self, delivery: Delivery, exc: StoreMirrorError) -> bool:
        """Set aside what is the event's own fault; tells whether it was."""
        if decide_reread_settlement(exc) is not Settlement.DEAD_LETTER:
            return False
        rejection = Rejection(delivery=delivery, reason=type(exc).__name__, description=str(exc))
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
