"""
One event loop, in a thread of its own.

StoreMirror's ports are async; functions are called from the threads of a web server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class LoopThread:
    """Runs coroutines for other threads.  What they open stays open between calls."""

    def __init__(self) -> None:
        """Start nothing: the web server forks after it has loaded this, and threads do not."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, _T], *, timeout_s: float | None = None) -> _T:
        """
        Run a coroutine and wait for it.

        Args:
            coroutine: runs in the loop.
            timeout_s: how long to wait; None for as long as it takes.

        Raises:
            TimeoutError: it still runs.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        return future.result(timeout_s)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: the process may end while the loop has nothing to do.
                threading.Thread(
                    target=self._loop.run_forever, name="storemirror-loop", daemon=True
                ).start()
            return self._loop


#: The process's only one.
LOOP = LoopThread()
