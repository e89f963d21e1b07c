"""
Transactions of the embedded store: what was read is compared when it is written.

Nobody waits for anybody: a body reads without a lock, and the commit, which holds the clock's
lock, writes only when every document that was read is still the same.  Else the body runs again;
then somebody else has committed, so that there is always progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from storemirror.clock import Clock
from storemirror.errors import SourceUnavailable
from storemirror.source.port import Document, Transacted, TransactionBody, Write
from storemirror.source.turns import Turns

#: For how long a body is repeated while others write what it reads.
CONTENTION_TIMEOUT_S: Final = 10.0

T = TypeVar("T")

#: Gives, of one moment, the documents that are there of these paths.
ReadTogether = Callable[[Sequence[str]], Awaitable[Mapping[str, Document]]]
#: Commits what still fits what was read (path -> update time, None for absence), and gives the
#: commit time; None: it did not fit, and nothing was written.
CommitIfUnmoved = Callable[[Sequence[Write], Mapping[str, int | None]], Awaitable[int | None]]


class _Overtaken(Exception):
    """A document that the body has read is another one by now."""


class EmbeddedTransactions:
    """Runs transactions.  Safe for concurrent use, in one event loop."""

    def __init__(self, read: ReadTogether, commit: CommitIfUnmoved, clock: Clock) -> None:
        """Work through the store's own reads and commits."""
        self._read = read
        self._commit = commit
        self._clock = clock
        #: Held for one run by one of those that were overtaken: together they would only overtake
        #: each other again.
        self._turns = Turns()

    async def run(self, body: TransactionBody[T]) -> Transacted[T]:
        """See `DocumentStore.transact`."""
        deadline_s = self._clock.monotonic_s() + CONTENTION_TIMEOUT_S
        reads = _Reads(self._read)
        done = await self._attempt(body, reads)
        if done is not None:
            return done
        while self._clock.monotonic_s() < deadline_s:
            # Whoever waits is first come first served: one that lost again goes to the end.
            async with self._turns.of(reads.first_path):
                reads = _Reads(self._read)
                done = await self._attempt(body, reads)
            if done is not None:
                return done
        raise SourceUnavailable(
            "the documents' database: others wrote what a transaction reads, for "
            f"{CONTENTION_TIMEOUT_S:g} s; nothing was written"
        )

    async def _attempt(self, body: TransactionBody[T], reads: _Reads) -> Transacted[T] | None:
        """Run the body once and commit; None: it was overtaken, and nothing was written."""
        try:
            decision = await body(reads)
        except _Overtaken:
            return None
        if not decision.writes:
            return Transacted(commit_time_us=None, result=decision.result)
        commit_time_us = await self._commit(decision.writes, reads.update_times_us)
        if commit_time_us is None:
            return None
        return Transacted(commit_time_us=commit_time_us, result=decision.result)


class _Reads:
    """See `TransactionReads`.

    With every document the earlier ones are read again: what the body has in hand is always of
    one moment, also where it then raises, or writes nothing.
    """

    def __init__(self, read: ReadTogether) -> None:
        self._read = read
        self._found: dict[str, Document | None] = {}
        self._turn = asyncio.Lock()

    @property
    def first_path(self) -> str:
        """Give the path of the document that was read first; empty: none was."""
        return next(iter(self._found), "")

    @property
    def update_times_us(self) -> Mapping[str, int | None]:
        """Give what was read: path -> update time, None for absence."""
        return {path: _time_of(document) for path, document in self._found.items()}

    async def get(self, path: str) -> Document | None:
        """See `TransactionReads.get`."""
        async with self._turn:
            if path not in self._found:
                together = await self._read([*self._found, path])
                for known, document in self._found.items():
                    if _time_of(together.get(known)) != _time_of(document):
                        raise _Overtaken
                self._found[path] = together.get(path)
            return self._found[path]


def _time_of(document: Document | None) -> int | None:
    return None if document is None else document.update_time_us
