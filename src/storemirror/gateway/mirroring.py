"""
Brings a write into SQL within the call that made it, if that can be done in time.

What does not get there now comes by the trigger's event, which is the same: nothing waits, and
nothing is lost.  While SQL is out nobody waits for it either: after some failures in a row it is
left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from storemirror.apply.decode import EventDecoder
from storemirror.clock import Clock
from storemirror.errors import PoisonEventError, StoreMirrorError
from storemirror.event.change import Change, Origin, Outcome, RowState
from storemirror.gateway.breaker import Breaker
from storemirror.gateway.deadline import DeadlinePassed, current, within
from storemirror.gateway.port import Mirrored
from storemirror.gateway.repeats import Repeats
from storemirror.gateway.schema_watch import SchemaWatch
from storemirror.model.entity import Model
from storemirror.source.triggers import message_of
from storemirror.sql.port import SqlMirror
from storemirror.telemetry import LogEvent

NOT_MIRRORED: Final = Mirrored(is_mirrored=False, outcome=None)

_log = structlog.get_logger(__name__)


class MirrorWriter:
    """Applies changes as the writer does, through the same envelope."""

    def __init__(
        self,
        mirror: SqlMirror,
        schema: SchemaWatch,
        model: Model,
        *,
        source: str,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        """
        Name the mirror.

        Args:
            mirror: stays the caller's to close.
            schema: whether it is this Firestore's mirror.
            model: the declared entities.
            source: CloudEvents source; see `storemirror.event.envelope.source_of`.
            timeout_s: how long a call may wait for SQL; less where its deadline is nearer.
            clock: for how often an outage is logged.
        """
        self._mirror = mirror
        self._schema = schema
        self._repeats = Repeats(clock)
        # Not the reads': a mirror that takes no writes for a while may answer every read.
        self._breaker = Breaker()
        self._model = model
        self._source = source
        self._timeout_s = timeout_s
        self._decoder = EventDecoder(model=model, limits=mirror.limits, source=source)

    async def mirror(self, change: Change) -> Mirrored:
        """
        Apply one change.  Never fails: what SQL does not take now, the event path brings.

        Args:
            change: of a declared entity.
        """
        return await self._asked(change.path, lambda left_s: self._answered(change, left_s))

    async def see_gone(self, path: str) -> Mirrored:
        """
        Tell whether SQL shows what Firestore says: that there is no such document.  Never fails.

        Args:
            path: of a declared entity.
        """
        return await self._asked(path, lambda _: self._seen_gone(path))

    async def _asked(self, path: str, ask: Callable[[float], Awaitable[Mirrored]]) -> Mirrored:
        """Ask SQL, told how many seconds it may take, unless it is to be left alone."""
        try:
            time_left_s = self._time_left_s()
            if not await self._schema.holds(waits_s=time_left_s):
                self._note(path, "the schema was not seen to be this Firestore's mirror")
                return NOT_MIRRORED
            turn = self._breaker.turn()
            if turn is None:
                self._note(path, "SQL failed again and again, and is left alone for a moment")
                return NOT_MIRRORED
            with turn:
                return await within(time_left_s, lambda: ask(time_left_s))
        except TimeoutError:
            self._note(path, "SQL did not answer in time")
        except StoreMirrorError as exc:
            self._note(path, str(exc))
        return NOT_MIRRORED

    def _note(self, path: str, why: str, *, kind: str | None = None) -> None:
        """Log why a change is not in SQL; `kind`: what it is counted with, where `why` has ids."""
        count = self._repeats.count_to_say(kind or why)
        if count is not None:
            _log.warning(LogEvent.CALL_NOT_MIRRORED.value, path=path, error=why, times=count)

    def _time_left_s(self) -> float:
        """
        Give how long SQL may take.

        Raises:
            DeadlinePassed: the call has no time left: SQL is not asked.
        """
        deadline = current()
        if deadline is None:
            return self._timeout_s
        if deadline.left_s <= 0:
            raise DeadlinePassed
        return min(self._timeout_s, deadline.left_s)

    async def _answered(self, change: Change, timeout_s: float) -> Mirrored:
        """Apply a change; one that SQL can never take is an answer, and no failure of SQL's."""
        try:
            return await self._applied(change, timeout_s)
        except PoisonEventError as exc:
            self._note(change.path, str(exc), kind=exc.reason)
            return NOT_MIRRORED

    async def _seen_gone(self, path: str) -> Mirrored:
        row = await self._mirror.row(*self._model.match(path))
        is_shown = row is not None and row.state is RowState.LIVE
        return Mirrored(is_mirrored=not is_shown, outcome=None)

    async def _applied(self, change: Change, timeout_s: float) -> Mirrored:
        # What the trigger will publish, read as the writer will read it.
        entity, _ = self._model.match(change.path)
        event = self._decoder.decode(message_of(change, entity.name, self._source))
        if change.origin is Origin.MIRROR and change.is_deleted:
            # Of what was never there, or is gone already, there is nothing to take away; each look
            # at it would leave a row, and a line of audit.
            row = await self._mirror.row(entity, event.key)
            if row is None or row.state is not RowState.LIVE:
                # Where nobody has seen it go, its creation may wait on the bus, and be shown yet.
                is_gone = row is not None and row.state is RowState.TOMBSTONE
                return Mirrored(is_mirrored=is_gone, outcome=None)
        # Nobody waits for it any longer: it must not hold locks, nor a connection, for longer.
        [outcome] = await self._mirror.apply([event], timeout_s=timeout_s)
        # Expired: only Firestore can say, and the event path asks it.
        return Mirrored(is_mirrored=outcome is not Outcome.EXPIRED, outcome=outcome)
