"""
The event loop that every command runs on: libuv's.

A call of the gateway spends more time in the event loop than in our code; asyncio's own costs it a
fifth more.  The tests run on the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Give a loop that runs nothing yet."""
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a process's main coroutine to its end.  See `asyncio.run`."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
