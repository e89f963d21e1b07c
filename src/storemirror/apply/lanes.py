"""
Lanes: what may be applied at the same time, and in which portions.

Events of one parent share a lane, so that two transactions of one writer never wait for each
other's parent rows.  Nothing rests on it but speed: other writers have lanes of their own.
"""

from __future__ import annotations

import asyncio
import bisect
import functools
import zlib
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice

from storemirror.apply.port import Taken, WriterSettings
from storemirror.sql.port import RowEvent


def lane_of(event: RowEvent, lane_count: int) -> int:
    """
    Give the lane of an event: the hash of its roll-up parent's key, or of its own without one.

    A conversation so shares its messages' lane.  CRC-32, because Python's own hash of a string
    differs from process to process, and a lane should be the same in a log from yesterday.
    """
    entity, key = event.entity, event.key
    if entity.rollup is None:
        return _hash_of(entity.name, key) % lane_count
    return _hash_of_parent(entity.rollup.into, key[:-1]) % lane_count


def _hash_of(name: str, key: tuple[str, ...]) -> int:
    return zlib.crc32("\0".join((name, *key)).encode("utf-8", "surrogatepass"))


#: A parent has many children, and they come close together.
_hash_of_parent = functools.lru_cache(maxsize=16_384)(_hash_of)


def lanes_of(settings: WriterSettings) -> list[Lane]:
    """Give a writer's lanes, empty."""
    return [
        Lane(number, max_events=settings.batch_max_events, max_bytes=settings.batch_max_bytes)
        for number in range(settings.lane_count)
    ]


class Lane:
    """Events that wait for one transaction at a time."""

    def __init__(self, number: int, *, max_events: int, max_bytes: int) -> None:
        """Say how much a portion may hold: events, and bytes of their messages."""
        self.number = number
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiting: deque[Taken] = deque()
        self._has_some = asyncio.Event()
        self._is_closed = False

    def put(self, taken: Taken) -> None:
        """Add one event at the end."""
        self._waiting.append(taken)
        self._has_some.set()

    async def take(self) -> list[Taken]:
        """Wait for an event, and give all that wait, up to a portion.  Never waits for more.

        Gives nothing once the lane is closed and empty.
        """
        await self._has_some.wait()
        portion = self._cut()
        self._note_if_empty()
        return portion

    def clear(self) -> Sequence[Taken]:
        """Take out everything that waits."""
        left = list(self._waiting)
        self._waiting.clear()
        self._note_if_empty()
        return left

    def close(self) -> None:
        """Let no `take` wait any more."""
        self._is_closed = True
        self._has_some.set()

    def _note_if_empty(self) -> None:
        if not self._waiting and not self._is_closed:
            self._has_some.clear()

    def _cut(self) -> list[Taken]:
        """Give the longest beginning that is within both limits; at least one event."""
        waiting = self._waiting
        sizes = [len(t.delivery.message.body) for t in islice(waiting, self._max_events)]
        fitting_count = bisect.bisect_right(list(accumulate(sizes)), self._max_bytes)
        count = min(len(waiting), max(fitting_count, 1))
        return [waiting.popleft() for _ in range(count)]
