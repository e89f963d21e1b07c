"""A thread that one connection lives in: the driver's calls block, and are made here."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

_T = TypeVar("_T")
_Job = Callable[[], None]


class Worker:
    """
    Runs calls one after the other in a thread of its own.

    The thread is a daemon: a call that never comes back, since the server neither answers nor
    goes, must not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """
        Run a call in the thread, and give what it gives.

        A caller that is cancelled goes at once; the call goes on to its end.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()

        def job() -> None:
            with _Handed(loop, answer) as handed:
                handed.result = function(*arguments)

        self._jobs.put(job)
        return await answer

    def end(
        self, last: Callable[[], object], *, on_ended: Callable[[], object] | None = None
    ) -> None:
        """
        Let a last call run once those before it have ended, and end the thread.

        Args:
            last: may fail; nobody is left to be told.
            on_ended: called in the thread after it, whatever came of it; must not fail.
        """

        def job() -> None:
            # The server notices by itself that the connection is gone.
            with contextlib.suppress(Exception):
                last()
            if on_ended is not None:
                on_ended()

        self._jobs.put(job)
        self._jobs.put(None)

    @property
    def is_running(self) -> bool:
        """Tell whether the thread is there; it goes after `end`."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            # A frame that waits for the next job must not keep what the last one held.
            del job


class _Handed(Generic[_T]):
    """Hands what comes of a call, an error too, to the loop that waits for it."""

    result: _T

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[_T]) -> None:
        self._loop = loop
        self._answer = answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[True]:
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, error)
        return True

    def _tell(self, error: BaseException | None) -> None:
        """Run in the loop.  Whoever was cancelled is told nothing."""
        if self._answer.done():
            return
        if error is None:
            self._answer.set_result(self.result)
        else:
            self._answer.set_exception(error)
