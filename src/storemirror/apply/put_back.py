"""
Putting back, once, what the bus set aside by itself.

Its cause, an outage, is gone.  A dead letter that the bus does not take again stays where it is:
of a full topic only receiving makes room, and that must go on.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from storemirror.bus.port import MAX_DELIVERY_REASON, RESUBMITTED_FROM, BusAdmin, DeadLetter
from storemirror.errors import BusRefused, BusUnavailable, DeadLetterUnknown, MessageRefused
from storemirror.telemetry import LogEvent

_PAGE: Final = 100
#: Refusals that are of no one message's making, after which the bus is asked no more: more than
#: one, since it may be this dead letter's id that it does not take.
_REFUSALS_MAX: Final = 3

_log = structlog.get_logger(__name__)


def is_resubmittable(letter: DeadLetter) -> bool:
    """Tell whether the bus set a message aside by itself, for the first time, and nobody spoke."""
    return (
        letter.reason == MAX_DELIVERY_REASON
        and RESUBMITTED_FROM not in letter.message.properties
        and letter.acknowledged_reason is None
    )


class PutBack:
    """Puts back what may be, in one drain."""

    def __init__(self, admin: BusAdmin, subscription: str) -> None:
        """Say whose dead letters they are; `admin` stays the caller's."""
        self._admin = admin
        self._subscription = subscription
        #: Dead letters that were put back.
        self.count = 0
        self._refusal_count = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Look through the dead letters until `stop` is set, or the bus takes none."""
        try:
            await self._look_through(stop)
        except BusUnavailable as exc:
            _log.warning(LogEvent.RESUBMITTING_FAILED.value, error=str(exc), hint=exc.hint)

    async def _look_through(self, stop: asyncio.Event) -> None:
        after = 0
        while page := await self._admin.peek_dead_letters(
            self._subscription, limit=_PAGE, after_sequence_number=after
        ):
            for letter in page:
                if stop.is_set() or self._refusal_count == _REFUSALS_MAX:
                    return
                if is_resubmittable(letter):
                    await self._put_back(letter.sequence_number)
                after = letter.sequence_number

    async def _put_back(self, number: int) -> None:
        """Put one dead letter back, unless another drainer was faster or the bus refuses it."""
        try:
            message_id = await self._admin.resubmit(
                self._subscription, number, run=f"drain-{number}"
            )
        except DeadLetterUnknown:
            return
        except BusRefused as exc:
            self._refusal_count += not isinstance(exc, MessageRefused)
            _log.warning(
                LogEvent.DEAD_LETTER_REFUSED.value, number=number, error=str(exc), hint=exc.hint
            )
            return
        self.count += 1
        _log.info(LogEvent.DEAD_LETTER_RESUBMITTED.value, message_id=message_id)
