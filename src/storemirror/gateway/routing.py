"""
Which side serves a read: SQL, with Firestore behind it, as the caller's cohort has it.

Where SQL cannot be trusted for this answer, and Firestore may serve it, it does: an error, a
deadline, a breaker that is open, a mirror too far behind, a write of the caller's not there yet.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from storemirror.clock import SECOND_US, Clock
from storemirror.errors import CallRefused, DatabaseRefused, TransientError
from storemirror.gateway.breaker import Breaker
from storemirror.gateway.deadline import within
from storemirror.gateway.lag import LagWatch
from storemirror.gateway.port import ReadMode, Served
from storemirror.gateway.repeats import Repeats
from storemirror.gateway.schema_watch import SchemaWatch
from storemirror.telemetry import LogEvent

#: How long to wait between looks at whether SQL shows a write: at first, and how that grows.  A
#: token that names a write which never was has SQL looked at until the wait is over.
_LOOK_AGAIN_S: Final = 0.01
_LOOK_GROWTH: Final = 1.5

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class FallbackReason(enum.StrEnum):
    """Why Firestore served a read that SQL was to serve."""

    ERROR = "error"
    #: Nobody has seen yet that SQL is this Firestore's mirror, or it is another one's, or a rebase
    #: is under way.
    SCHEMA_UNVERIFIED = "schema-unverified"
    TIMEOUT = "timeout"
    BREAKER_OPEN = "breaker-open"
    #: The mirror is further behind than the limit, or nobody can tell how far.
    LAG = "lag"
    #: SQL does not show a write of the caller's yet.
    WRITE_NOT_THERE = "write-not-there"
    #: SQL does not know what was asked for: it may be on its way, or a newer event of it was set
    #: aside.
    UNKNOWN_THERE = "unknown-there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long SQL may take, and how far it may be behind."""

    sql_timeout_s: float
    firestore_timeout_s: float
    #: None: any lag will do.
    max_lag_s: float | None
    #: How long a read waits for SQL to show a write of the caller's.
    write_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Generic[T]):
    """An answer, and where it comes from."""

    value: T
    served: Served
    #: See `storemirror.gateway.port.ConversationPage.as_of_us`; None from Firestore: the value's.
    as_of_us: int | None
    #: None: served as the mode has it.
    fallback: FallbackReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources(Generic[T]):
    """How one call is answered by each side."""

    sql: Callable[[], Awaitable[T]]
    firestore: Callable[[], Awaitable[T]]
    #: Called with Firestore's answer and SQL's, in shadow mode, in the background.
    compare: Callable[[T, T], None]
    #: Tells whether SQL shows a write that the answer must show; None: there is none.
    has_reached: Callable[[], Awaitable[bool]] | None = None
    #: Tells whether SQL's answer can stand although SQL may be behind.
    is_conclusive: Callable[[T], bool] = lambda _: True


#: Runs in the background what must not slow the caller.
Background = Callable[[Callable[[], Awaitable[None]]], None]


class ReadRouter:
    """Serves reads."""

    def __init__(
        self,
        *,
        schema: SchemaWatch,
        lag: LagWatch,
        background: Background,
        limits: Limits,
        clock: Clock,
    ) -> None:
        """
        Name the parts.

        Args:
            schema: whether SQL is this Firestore's mirror.
            lag: how far SQL is behind.
            background: runs the shadow's comparisons, sampled and bounded.
            limits: when Firestore takes over.
            clock: for waits.
        """
        #: Reads that Firestore served in SQL's place, by why.
        self.fallbacks: Counter[FallbackReason] = Counter()
        self._schema = schema
        self._lag = lag
        self._repeats = Repeats(clock)
        self._background = background
        self._limits = limits
        self._clock = clock
        self._breaker = Breaker()

    async def read(self, mode: ReadMode, sources: Sources[T]) -> Routed[T]:
        """
        Serve one read.

        Args:
            mode: of the caller's cohort.
            sources: both sides.

        Raises:
            CallRefused: UNAVAILABLE, nobody who may serve it could; and what a source raises of
                the kind.
            SourceUnavailable, SourceRefused: Firestore's, where it alone may serve.
        """
        if mode is ReadMode.SQL_ONLY:
            return await self._from_sql_alone(sources)
        if mode is ReadMode.SQL:
            routed = await self._from_sql(sources)
            if isinstance(routed, Routed):
                return routed
            self._note_fallback(routed)
            return await self._from_firestore(sources, routed)
        routed_value = await self._from_firestore(sources, None)
        if mode is ReadMode.SHADOW:
            self._background(lambda: self._compare(sources, routed_value.value))
        return routed_value

    async def _from_firestore(
        self, sources: Sources[T], reason: FallbackReason | None
    ) -> Routed[T]:
        try:
            value = await within(self._limits.firestore_timeout_s, sources.firestore)
        except TimeoutError:
            raise CallRefused("DEADLINE_EXCEEDED", "Firestore did not answer in time") from None
        except CallRefused as refused:
            if reason is None or refused.status != "FAILED_PRECONDITION":
                raise
            # SQL would have served it, and will: to the app that is an outage, and no mistake.
            raise CallRefused("UNAVAILABLE", f"{refused}; SQL does not serve now") from refused
        return Routed(value=value, served=Served.FIRESTORE, as_of_us=None, fallback=reason)

    async def _from_sql_alone(self, sources: Sources[T]) -> Routed[T]:
        if not await self._is_mirror():
            raise CallRefused("UNAVAILABLE", "SQL cannot be read now; call again")
        try:
            if not await self._shows_write(sources.has_reached):
                raise CallRefused("UNAVAILABLE", "SQL does not show that write yet; call again")
            # Told to the caller, and no more: nobody would serve in SQL's place.
            as_of_us = await self._lag.as_of_us(waits=False)
            value = await within(self._limits.sql_timeout_s, sources.sql)
        except TimeoutError:
            raise CallRefused("DEADLINE_EXCEEDED", "SQL did not answer in time") from None
        except (TransientError, DatabaseRefused) as exc:
            self._note_failure(exc)
            raise CallRefused("UNAVAILABLE", "SQL does not answer; call again") from exc
        return Routed(value=value, served=Served.SQL, as_of_us=as_of_us, fallback=None)

    async def _from_sql(self, sources: Sources[T]) -> Routed[T] | FallbackReason:
        """Serve from SQL, or say why not."""
        if not await self._is_mirror():
            return FallbackReason.SCHEMA_UNVERIFIED
        max_lag_s = self._limits.max_lag_s
        as_of_us = await self._lag.as_of_us(waits=max_lag_s is not None, max_lag_s=max_lag_s)
        if self._is_too_far_behind(as_of_us):
            return FallbackReason.LAG
        turn = self._breaker.turn()
        if turn is None:
            return FallbackReason.BREAKER_OPEN
        try:
            with turn:
                if not await self._shows_write(sources.has_reached):
                    return FallbackReason.WRITE_NOT_THERE
                value = await within(self._limits.sql_timeout_s, sources.sql)
        except TimeoutError:
            return FallbackReason.TIMEOUT
        except (TransientError, DatabaseRefused) as exc:
            self._note_failure(exc)
            return FallbackReason.ERROR
        if not sources.is_conclusive(value):
            return FallbackReason.UNKNOWN_THERE
        return Routed(value=value, served=Served.SQL, as_of_us=as_of_us, fallback=None)

    async def _is_mirror(self) -> bool:
        return await self._schema.holds(waits_s=self._limits.sql_timeout_s)

    def _note_fallback(self, reason: FallbackReason) -> None:
        self.fallbacks[reason] += 1
        count = self._repeats.count_to_say(reason)
        if count is not None:
            _log.info(LogEvent.READ_FELL_BACK.value, reason=reason.value, times=count)

    def _note_failure(self, error: Exception) -> None:
        count = self._repeats.count_to_say(LogEvent.READ_FAILED, str(error))
        if count is not None:
            _log.warning(LogEvent.READ_FAILED.value, error=str(error), times=count)

    def _is_too_far_behind(self, as_of_us: int | None) -> bool:
        max_lag_s = self._limits.max_lag_s
        if max_lag_s is None:
            return False
        return as_of_us is None or self._clock.now_us() - as_of_us > max_lag_s * SECOND_US

    async def _shows_write(self, has_reached: Callable[[], Awaitable[bool]] | None) -> bool:
        """Wait a little for SQL to show a write; tells whether it does."""
        if has_reached is None:
            return True
        deadline_s = self._clock.monotonic_s() + self._limits.write_wait_s
        pause_s = _LOOK_AGAIN_S
        while True:
            if await within(self._limits.sql_timeout_s, has_reached):
                return True
            if self._clock.monotonic_s() >= deadline_s:
                return False
            await self._clock.sleep(pause_s)
            pause_s *= _LOOK_GROWTH

    async def _compare(self, sources: Sources[T], served: T) -> None:
        if not await self._is_mirror():
            return
        sources.compare(served, await within(self._limits.sql_timeout_s, sources.sql))
