"""
The lane of events that came without their contents, too large for the bus.

One after the other, so that no more than one large document is in memory: each is read from the
store as it is now, and applied as what was found, or as the absence at the read time.  While the
store does not answer they wait here under lock, which costs no delivery; all others go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from storemirror.apply.decode import EventDecoder
from storemirror.apply.port import Reread, Taken, WriterSettings
from storemirror.apply.settle import Settlement, decide_reread_settlement
from storemirror.apply.settler import Settler
from storemirror.bus.port import Delivery, Rejection
from storemirror.clock import Clock
from storemirror.errors import PoisonEventError, StoreMirrorError
from storemirror.event.envelope import Reference

#: Names the message that the reader makes; nobody publishes it.
_RUN: Final = "reference"


class ReferenceLane:
    """References that wait for one read and one transaction at a time."""

    def __init__(
        self,
        *,
        reread: Reread,
        decoder: EventDecoder,
        settler: Settler,
        clock: Clock,
        settings: WriterSettings,
    ) -> None:
        """Name the reader, and who settles what cannot be read."""
        self.number = settings.lane_count
        self._reread = reread
        self._decoder = decoder
        self._settler = settler
        self._clock = clock
        self._settings = settings
        self._waiting: deque[tuple[Delivery, Reference]] = deque()
        self._has_some = asyncio.Event()
        self._is_closed = False

    def put(self, delivery: Delivery, reference: Reference) -> None:
        """Add one reference at the end."""
        self._waiting.append((delivery, reference))
        self._has_some.set()

    async def take(self) -> list[Taken]:
        """Wait for a reference, read its document, and give the event that says what was found.

        Gives nothing when it was settled otherwise, or the lane is closed and empty.
        """
        await self._has_some.wait()
        if not self._waiting:
            return []
        delivery, reference = self._waiting.popleft()
        self._note_if_empty()
        if not self._settler.hand.holds(delivery):
            return []
        try:
            return [await self._read(delivery, reference)]
        except StoreMirrorError as exc:
            if decide_reread_settlement(exc) is Settlement.ABANDON:
                await self._settler.abandon([delivery])
                return []
            reason = exc.reason if isinstance(exc, PoisonEventError) else type(exc).__name__
            rejection = Rejection(delivery=delivery, reason=reason, description=str(exc))
            await self._settler.dead_letter([rejection])
            return []

    async def _read(self, delivery: Delivery, reference: Reference) -> Taken:
        """Read; a store that is silent, or says no, is asked again while the lock is held."""

        def is_worth_repeating(exc: BaseException) -> bool:
            return (
                isinstance(exc, StoreMirrorError)
                and decide_reread_settlement(exc) is Settlement.ABANDON
                and self._settler.hand.holds(delivery)
                and not self._is_closed
            )

        async def read() -> Taken:
            found = await self._reread.reread(reference.path, run=_RUN)
            return Taken(delivery, self._decoder.decode_read(reference, found))

        retrying = AsyncRetrying(
            retry=retry_if_exception(is_worth_repeating),
            wait=wait_random_exponential(
                multiplier=self._settings.retry_first_s, max=self._settings.retry_max_s
            ),
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(read)

    def clear(self) -> list[Delivery]:
        """Take out everything that waits."""
        left = [delivery for delivery, _ in self._waiting]
        self._waiting.clear()
        self._note_if_empty()
        return left

    def close(self) -> None:
        """Let no `take` wait any more."""
        self._is_closed = True
        self._has_some.set()

    def _note_if_empty(self) -> None:
        if not self._waiting and not self._is_closed:
            self._has_some.clear()
