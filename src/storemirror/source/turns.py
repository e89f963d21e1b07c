"""Whoever lost a race for a document runs again in turn, and holds up nobody who wants another."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """Locks by document, each for as long as somebody has or wants it.  For one event loop."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, path: str) -> asyncio.Lock:
        """
        Give the lock of those who want a document; first come, first served.

        Args:
            path: of the document that a transaction reads first: in what has to do with each
                other that is the same one.  Empty: of those that read none.
        """
        return self._locks.setdefault(path, asyncio.Lock())
