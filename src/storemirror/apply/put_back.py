"""
Putting back, once, what the bus set aside by itself.

Its cause, an outage, is gone.  A dead letter that the bus does not take again stays where it is:
of a full topic only receiving makes room, and that must go on.  Nor may many dead letters of other
kinds, bodies and all, be read again in every drain: a process that lives goes round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from storemirror.bus.port import MAX_DELIVERY_REASON, RESUBMITTED_FROM, BusAdmin, DeadLetter
from storemirror.errors import BusRefused, BusUnavailable, DeadLetterUnknown, MessageRefused
from storemirror.telemetry import LogEvent

_PAGE: Final = 100
#: Dead letters that a drain of a process that lives looks at.
LOOKED_AT_MAX: Final = 1_000
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


@dataclass(slots=True, kw_only=True)
class DeadLetterRound:
    """How far the drains of one process have looked; they go round, each a part of the way.

    Round, and not on alone: a dead letter has the number that its message had, which may lie below
    those that were set aside before it.
    """

    #: Most dead letters that one drain looks at; None: all, while there is time.
    max_count: int | None = LOOKED_AT_MAX
    #: Number of the last one looked at; 0: the next drain begins with the first.
    after: int = 0
    #: Numbers of those that the bus refused, which the log names once.
    refused: set[int] = field(default_factory=set)


class PutBack:
    """Puts back what may be, in one drain."""

    def __init__(self, admin: BusAdmin, subscription: str, place: DeadLetterRound) -> None:
        """Say whose dead letters they are, and where to go on; `admin` stays the caller's."""
        self._admin = admin
        self._subscription = subscription
        self._place = place
        #: Dead letters that were put back.
        self.count = 0
        self._refusal_count = 0

    async def depth(self) -> int:
        """Count what waits or is locked in the subscription."""
        return (await self._admin.stats(self._subscription)).depth

    async def run(self, stop: asyncio.Event) -> None:
        """Look through the dead letters until `stop` is set, or the bus takes none."""
        try:
            await self._look_through(stop)
        except BusUnavailable as exc:
            _log.warning(LogEvent.RESUBMITTING_FAILED.value, error=str(exc), hint=exc.hint)

    async def _look_through(self, stop: asyncio.Event) -> None:
        place, looked_at_count = self._place, 0
        while not stop.is_set() and self._refusal_count < _REFUSALS_MAX:
            left_count = _PAGE if place.max_count is None else place.max_count - looked_at_count
            if left_count <= 0:
                return
            page = await self._admin.peek_dead_letters(
                self._subscription,
                limit=min(_PAGE, left_count),
                after_sequence_number=place.after,
                with_acknowledged=False,
            )
            if not page:
                place.after = 0
                return
            looked_at_count += len(page)
            await self._look_at(page, stop)

    async def _look_at(self, page: Sequence[DeadLetter], stop: asyncio.Event) -> None:
        for letter in page:
            if stop.is_set() or self._refusal_count == _REFUSALS_MAX:
                return
            if is_resubmittable(letter):
                await self._put_back(letter.sequence_number)
            self._place.after = letter.sequence_number

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
            if number not in self._place.refused:
                self._place.refused.add(number)
                _log.warning(
                    LogEvent.DEAD_LETTER_REFUSED.value, number=number, error=str(exc), hint=exc.hint
                )
            return
        self.count += 1
        _log.info(LogEvent.DEAD_LETTER_RESUBMITTED.value, message_id=message_id)
