"""
The lane of events that came without their contents, too large for the bus.

One after the other, so that no more than one large document is in memory: each is read from the
store as it is now, and applied as what was found, or as the absence at the read time.  While the
store does not answer they wait (`storemirror.apply.waiting`), which costs no delivery; so they do
while the database takes no events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception

from storemirror.apply.decode import EventDecoder
from storemirror.apply.port import Reread, Taken
from storemirror.apply.retry import first_of, waits_of
from storemirror.apply.settle import Settlement, decide_reread_settlement
from storemirror.apply.waiting import Line, Waiting, WaitingRoom
from storemirror.bus.port import Delivery, Rejection
from storemirror.errors import PoisonEventError, StoreMirrorError
from storemirror.event.envelope import Reference

#: Names the message that the reader makes; nobody publishes it.
_RUN: Final = "reference"


class ReferenceLane:
    """References that wait for one read and one transaction at a time."""

    def __init__(
        self, reread: Reread, decoder: EventDecoder, room: WaitingRoom, gate: asyncio.Event
    ) -> None:
        """
        Start empty.

        Args:
            reread: reads the documents.
            decoder: makes events of them.
            room: where references wait; its settler settles what cannot be read.
            gate: set while the database takes events.
        """
        self.number = room.settings.lane_count
        self._reread = reread
        self._decoder = decoder
        self._settler = room.settler
        self._room = room
        self._gate = gate
        self._line: Line[Reference] = room.new_line()
        self._closed = asyncio.Event()

    def put(self, delivery: Delivery, reference: Reference) -> None:
        """Add one reference at the end; where too many wait, it goes back."""
        self._line.put(delivery, reference)

    async def take(self) -> list[Taken]:
        """Wait for a reference, read its document, and give the event that says what was found.

        Gives nothing when it was settled otherwise, or the lane is closed.
        """
        await self._unless_closed(self._line.has_some.wait())
        waiting = self._line.first
        if waiting is None or self._closed.is_set():
            return []
        taken = await self._taken(waiting)
        await self._unless_closed(self._gate.wait())
        if self._closed.is_set():
            return []
        self._line.drop(waiting)
        return taken

    async def _unless_closed(self, work: Awaitable[object]) -> None:
        """Wait for something, until the lane is closed.  Its error, if any, is raised."""
        await first_of(work, self._closed.wait())

    async def _taken(self, waiting: Waiting[Reference]) -> list[Taken]:
        """Read one's document; what can never be an event is set aside.

        Closed meanwhile, or without the lock, it gives nothing.
        """
        delivery = waiting.delivery
        if not self._settler.hand.holds(delivery):
            return []
        reading = asyncio.ensure_future(self._read(waiting))
        try:
            await self._unless_closed(reading)
            return [] if reading.cancelled() else [reading.result()]
        except StoreMirrorError as exc:
            if decide_reread_settlement(exc) is Settlement.DEAD_LETTER:
                reason = exc.reason if isinstance(exc, PoisonEventError) else type(exc).__name__
                rejection = Rejection(delivery=delivery, reason=reason, description=str(exc))
                await self._settler.dead_letter([rejection])
            return []

    async def _read(self, waiting: Waiting[Reference]) -> Taken:
        """Read; a store that is silent, or says no, is asked again while the lock is held."""
        delivery, reference = waiting.delivery, waiting.what

        def is_worth_repeating(exc: BaseException) -> bool:
            return (
                isinstance(exc, StoreMirrorError)
                and decide_reread_settlement(exc) is Settlement.ABANDON
                and self._settler.hand.holds(delivery)
            )

        async def read() -> Taken:
            found = await self._reread.reread(reference.path, run=_RUN)
            return Taken(delivery, self._decoder.decode_read(reference, found))

        retrying = AsyncRetrying(
            retry=retry_if_exception(is_worth_repeating),
            wait=waits_of(self._room.settings),
            sleep=self._room.clock.sleep,
            reraise=True,
        )
        return await retrying(read)

    def close(self) -> None:
        """Let no `take` wait any more."""
        self._closed.set()
