"""
Answers one call: who asks, may they, how often, for how long, and what came of it.

It knows nothing of how HTTP is served: the ASGI application and the Firebase Functions hand it the
same four things, and hand back what it answers.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from storemirror.clock import Clock
from storemirror.errors import CallRefused, StoreMirrorError, TransientError
from storemirror.gateway.auth import Identity
from storemirror.gateway.callables import CALLABLES, CallableSpec, CallKind, Handlers
from storemirror.gateway.cors import Origins
from storemirror.gateway.deadline import Deadline, DeadlinePassed, within_promptly
from storemirror.gateway.port import Caller, Served
from storemirror.gateway.protocol import (
    Answer,
    CallStatus,
    data_of,
    error_answer,
    refuse_no_call,
    result_answer,
    status_of,
    wants_stream,
)
from storemirror.gateway.rate import Rate
from storemirror.gateway.repeats import Repeats
from storemirror.gateway.traces import trace_of
from storemirror.gateway.wire import ReadResult, Result
from storemirror.telemetry import LogEvent

#: What is nobody's fault but ours, or a dependency's: it is logged with its cause.
_FAULTS: Final = (CallStatus.INTERNAL, CallStatus.UNKNOWN, CallStatus.DATA_LOSS)
#: A dependency did not answer, or not in time, or there are too many calls.
_OUTAGES: Final = (CallStatus.UNAVAILABLE, CallStatus.DEADLINE_EXCEEDED)
_IDENTITY: Final = (CallStatus.UNAUTHENTICATED, CallStatus.PERMISSION_DENIED)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """How large, how many and how long calls may be."""

    body_max_bytes: int = 262_144
    #: Under way at a time.
    calls_max_count: int = 256
    #: Of them, one user's.
    user_calls_max_count: int = 16
    read_deadline_s: float = 10.0
    write_deadline_s: float = 20.0

    def deadline_s(self, kind: CallKind) -> float:
        """Give how long a call of this kind may take."""
        return self.read_deadline_s if kind is CallKind.READ else self.write_deadline_s


class CallObserver(Protocol):
    """Is told of every call that was answered."""

    def answered(
        self,
        spec: CallableSpec[Any, Any],
        *,
        status: CallStatus,
        source: Served | None,
        duration_ms: float,
    ) -> None:
        """
        Take note of one call.

        Args:
            spec: which callable.
            status: what came of it.
            source: which side a read was answered from; None for writes, and without a result.
            duration_ms: from the request's last byte to the answer's first.
        """
        ...


@dataclass(slots=True)
class CallCounts:
    """What became of the requests of this process."""

    answered_count: int = 0
    #: The caller's fault.
    refused_count: int = 0
    #: Ours, or a dependency's that did not answer.
    failed_count: int = 0
    under_way_count: int = 0


class Calls:
    """Answers calls."""

    def __init__(
        self,
        handlers: Handlers,
        *,
        identity: Identity,
        rate: Rate,
        origins: Origins,
        limits: CallLimits,
        clock: Clock,
        observer: CallObserver | None = None,
    ) -> None:
        """
        Take the parts; nothing is opened.

        Args:
            handlers: answer the callables.
            identity: tells who calls.
            rate: tells who calls too often.
            origins: the web apps that may call.
            limits: how large, how many, how long.
            clock: for durations.
            observer: is told of every call; None for nobody.
        """
        self.counts = CallCounts()
        self.limits = limits
        self._handlers = handlers
        self._identity = identity
        self._rate = rate
        self._origins = origins
        self._clock = clock
        self._observer = observer
        self._repeats = Repeats(clock)
        #: Users' calls, by uid; who has none is not in it.
        self._under_way_of: Counter[str] = Counter()

    async def answer(
        self,
        name: str,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        size_bytes: int | None = None,
    ) -> Answer:
        """
        Answer one request.  Never raises but when it is cancelled.

        Args:
            name: the callable's.
            method: of HTTP, in capitals.
            headers: names in lower case.
            body: as it came.
            size_bytes: how long the body was, where not all of it was kept.
        """
        if method == "OPTIONS":
            return self._origins.preflight(headers)
        answer = await self._answer(name, method, headers, body, size_bytes or len(body))
        shared = self._origins.headers_for(headers.get("origin", ""))
        return Answer(status=answer.status, headers={**answer.headers, **shared}, body=answer.body)

    async def _answer(
        self, name: str, method: str, headers: Mapping[str, str], body: bytes, size_bytes: int
    ) -> Answer:
        as_stream = wants_stream(headers)
        spec = CALLABLES.get(name)
        started_s = self._clock.monotonic_s()
        try:
            if spec is None:
                raise CallRefused(CallStatus.NOT_FOUND, "There is no such callable.")
            with self._under_way():
                result = await self._result(spec, method, headers, body, size_bytes)
        except CallRefused as refused:
            self._note_refusal(name, refused)
            self._observe(spec, status_of(refused), None, started_s)
            return error_answer(refused, as_stream=as_stream)
        self.counts.answered_count += 1
        source = result.source if isinstance(result, ReadResult) else None
        self._observe(spec, CallStatus.OK, source, started_s)
        return result_answer(result, as_stream=as_stream)

    async def _result(
        self,
        spec: CallableSpec[Any, Any],
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        size_bytes: int,
    ) -> Result:
        """
        Give what a callable gives.

        Raises:
            CallRefused: whatever went wrong.
        """
        if size_bytes > self.limits.body_max_bytes:
            raise CallRefused(
                CallStatus.INVALID_ARGUMENT,
                f"The request has {size_bytes} bytes, and may have {self.limits.body_max_bytes}.",
            )
        refuse_no_call(method, headers)
        deadline_s = self.limits.deadline_s(spec.kind)

        async def answered() -> Result:
            caller = await self._caller_of(spec, headers)
            with self._place_of(caller):
                result: Result = await spec.answer(self._handlers, caller, data_of(body))
                return result

        try:
            if spec.kind is CallKind.READ:
                # Readers keep deadlines of their own, which let go at once.
                return await within_promptly(deadline_s, answered)
            return await Deadline(deadline_s).hold(answered)
        except CallRefused:
            raise
        except Exception as exc:
            is_late = isinstance(exc, DeadlinePassed)
            raise refusal_of(exc, deadline_s=deadline_s if is_late else None) from exc

    async def _caller_of(self, spec: CallableSpec[Any, Any], headers: Mapping[str, str]) -> Caller:
        """Tell who calls, and see that they may, and not too often."""
        caller = await self._identity.caller_of(headers)
        if caller.is_service and not spec.takes_services:
            raise CallRefused(CallStatus.PERMISSION_DENIED, "This callable is for users alone.")
        if not await self._rate.takes(caller, spec.name):
            raise CallRefused(CallStatus.RESOURCE_EXHAUSTED, "Too many calls; wait a minute.")
        return caller

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        """Count a call while it runs; refuse it when there are too many."""
        if self.counts.under_way_count >= self.limits.calls_max_count:
            raise CallRefused(CallStatus.UNAVAILABLE, "Too many calls at a time; try again.")
        self.counts.under_way_count += 1
        try:
            yield
        finally:
            self.counts.under_way_count -= 1

    @contextlib.contextmanager
    def _place_of(self, caller: Caller) -> Iterator[None]:
        """Count a user's call while it runs: one user's slow ones must not take all places."""
        if caller.is_service:
            yield
            return
        if self._under_way_of[caller.uid] >= self.limits.user_calls_max_count:
            raise CallRefused(
                CallStatus.RESOURCE_EXHAUSTED, "Too many calls at a time; wait until one ends."
            )
        self._under_way_of[caller.uid] += 1
        try:
            yield
        finally:
            self._under_way_of[caller.uid] -= 1
            if not self._under_way_of[caller.uid]:
                del self._under_way_of[caller.uid]

    def _note_refusal(self, name: str, refused: CallRefused) -> None:
        status = status_of(refused)
        if status in _FAULTS:
            self.counts.failed_count += 1
            trace = trace_of(refused.__cause__ or refused)
            _log.error(LogEvent.CALL_FAILED.value, callable=name, trace=trace)
        elif status in _OUTAGES:
            self.counts.failed_count += 1
            self._note_outage(name, status, refused)
        else:
            self.counts.refused_count += 1
        if status in _IDENTITY:
            self._note_stranger(name, status, str(refused))

    def _note_stranger(self, name: str, status: CallStatus, reason: str) -> None:
        # Anybody can have this happen, as often as they like.
        count = self._repeats.count_to_say(LogEvent.CALL_REFUSED, status, reason)
        if count is not None:
            _log.info(
                LogEvent.CALL_REFUSED.value,
                callable=name,
                status=status,
                reason=reason,
                times=count,
            )

    def _note_outage(self, name: str, status: CallStatus, refused: CallRefused) -> None:
        cause = refused.__cause__
        why = str(cause) if isinstance(cause, StoreMirrorError) else str(refused)
        count = self._repeats.count_to_say(status, why)
        if count is not None:
            _log.warning(
                LogEvent.CALL_UNAVAILABLE.value,
                callable=name,
                status=status,
                error=why,
                times=count,
            )

    def _observe(
        self,
        spec: CallableSpec[Any, Any] | None,
        status: CallStatus,
        source: Served | None,
        started_s: float,
    ) -> None:
        if spec is not None and self._observer is not None:
            duration_ms = (self._clock.monotonic_s() - started_s) * 1_000
            self._observer.answered(spec, status=status, source=source, duration_ms=duration_ms)


def refusal_of(error: Exception, *, deadline_s: float | None) -> CallRefused:
    """
    Give what a client is told of an error: nothing of its words, which may name servers or data.

    Args:
        error: what a handler raised.
        deadline_s: the deadline, when that ended the call; else None.

    >>> refusal_of(ValueError("secret"), deadline_s=None).status.value
    'INTERNAL'
    """
    if deadline_s is not None:
        return CallRefused(
            CallStatus.DEADLINE_EXCEEDED, f"There was no answer within {deadline_s:g} s."
        )
    if isinstance(error, TransientError):
        return CallRefused(CallStatus.UNAVAILABLE, "A database does not answer now; try again.")
    return CallRefused(CallStatus.INTERNAL, "The gateway failed; its log says why.")
