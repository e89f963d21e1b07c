"""
Calling again what failed for a while, with waits that grow and are drawn by lot.

The waits are drawn so that many workers do not come back at the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from storemirror.apply.port import WriterSettings
from storemirror.apply.settle import Settlement, decide_settlement
from storemirror.clock import Clock
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import LogEvent

#: A cancellation that strikes as the awaited answer arrives is lost by `asyncio.wait_for` before
#: Python 3.12: it is given again.  Longer than what a cancelled task has to clear up.
_CANCEL_INTERVAL_S: Final = 1.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended; their errors, if any, stay with them."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_INTERVAL_S)
    # Looked at, or the loop complains of those that failed.
    await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(*waits: Awaitable[object]) -> None:
    """Wait until one of these is done, and cancel the others.  Its error, if any, is raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(tasks)
    for task in done:
        task.result()


def waits_of(settings: WriterSettings) -> wait_random_exponential:
    """Give the waits between two tries."""
    return wait_random_exponential(multiplier=settings.retry_first_s, max=settings.retry_max_s)


class Retry:
    """Repeats calls until they work, may not be repeated, or the writer is to end."""

    def __init__(
        self,
        *,
        clock: Clock,
        settings: WriterSettings,
        halt: asyncio.Event,
        on_calm: Callable[[], None],
    ) -> None:
        """
        Say how long to go on.

        Args:
            clock: waits go through it.
            settings: the waits and the limit.
            halt: once set, nothing is repeated any more.
            on_calm: called when no call is being repeated any more.
        """
        self._clock = clock
        self._settings = settings
        self._halt = halt
        self._on_calm = on_calm
        self._repeating_count = 0

    @property
    def is_repeating(self) -> bool:
        """Tell whether a call failed and is being repeated."""
        return self._repeating_count > 0

    async def within_lock(
        self, operation: Callable[[], Awaitable[T]], *, is_held: Callable[[], bool]
    ) -> T:
        """
        Call until it works, for `retry_within_s` and while the locks are held.

        Args:
            operation: may be called any number of times.
            is_held: whether there is still a lock for whose sake to go on.

        Raises:
            StoreMirrorError: the last error, when there is no other try.
        """
        deadline_s = self._clock.monotonic_s() + self._settings.retry_within_s

        def may_retry(exc: BaseException) -> bool:
            is_allowed = self._clock.monotonic_s() < deadline_s and is_held()
            return self._decide(exc, may_retry=is_allowed) is Settlement.RETRY

        return await self._repeat(operation, may_retry, LogEvent.CALL_RETRIED)

    async def until_it_works(
        self,
        operation: Callable[[], Awaitable[T]],
        *,
        log_event: LogEvent = LogEvent.CALL_RETRIED,
        is_refusal_final: bool = True,
    ) -> T:
        """
        Call until it works, for as long as it takes.

        Args:
            operation: may be called any number of times.
            log_event: what the log says of each try that failed.
            is_refusal_final: whether `DatabaseRefused` is raised at once.

        Raises:
            StoreMirrorError: one that no retry can help, or the last one when the writer ends.
        """
        repeatable = {Settlement.RETRY}
        if not is_refusal_final:
            repeatable.add(Settlement.ABANDON)

        def may_retry(exc: BaseException) -> bool:
            return self._decide(exc, may_retry=True) in repeatable

        return await self._repeat(operation, may_retry, log_event)

    def _decide(self, exc: BaseException, *, may_retry: bool) -> Settlement:
        if self._halt.is_set() or not isinstance(exc, Exception):
            return Settlement.STOP
        return decide_settlement(exc, event_count=1, may_retry=may_retry)

    async def _repeat(
        self,
        operation: Callable[[], Awaitable[T]],
        may_retry: Callable[[BaseException], bool],
        log_event: LogEvent,
    ) -> T:
        # Nearly every call works at once, and is spared the machinery, which costs as much
        # processor time as a small batch.
        try:
            return await operation()
        except StoreMirrorError as exc:
            failures: list[Exception] = [exc]
        has_failed = False

        async def attempt() -> T:
            if failures:
                raise failures.pop()
            return await operation()

        def note(state: RetryCallState) -> None:
            nonlocal has_failed
            if not has_failed:
                has_failed = True
                self._repeating_count += 1
            wait_s = state.next_action.sleep if state.next_action else 0.0
            error = state.outcome.exception() if state.outcome else None
            _log.warning(log_event.value, wait_s=round(wait_s, 3), error=str(error))

        retrying = AsyncRetrying(
            retry=retry_if_exception(may_retry),
            wait=waits_of(self._settings),
            sleep=self._pause,
            before_sleep=note,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        finally:
            if has_failed:
                self._repeating_count -= 1
                self._on_calm()

    async def _pause(self, duration_s: float) -> None:
        """Wait, but no longer than the writer goes on."""
        await first_of(self._clock.sleep(duration_s), self._halt.wait())
