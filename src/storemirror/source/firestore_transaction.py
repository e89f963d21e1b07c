"""
Firestore's commits and read-write transactions.

By default Firestore locks what a transaction reads until it ends, so one that is not wanted any
more is rolled back, in the background: whoever waits for an answer need not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, TypeVar

from google.api_core import exceptions as google_errors

from storemirror.source.firestore_calls import FirestoreCalls
from storemirror.source.firestore_errors import TRANSIENT, translated, translated_errors
from storemirror.source.firestore_names import is_reserved, segments_of
from storemirror.source.port import (
    Document,
    Precondition,
    PreconditionFailed,
    Transacted,
    TransactionBody,
    Write,
)
from storemirror.source.turns import Turns

T = TypeVar("T")

_OUTAGES: Final = tuple(kind for kind in TRANSIENT if kind is not google_errors.Aborted)


class FirestoreTransactions:
    """Runs transactions.  Safe for concurrent use, in one event loop."""

    def __init__(self, calls: FirestoreCalls) -> None:
        """Work through an open client, which stays the caller's to close."""
        self._calls = calls
        self._given_up: set[asyncio.Task[None]] = set()
        #: Held for one run by one of those that lost: together they would only make each other lose
        #: again, and Google's emulator takes two seconds to find out.  Not while one waits to run
        #: again: what others have lost may be another document beside the first.
        self._turns = Turns()

    async def run(self, body: TransactionBody[T]) -> Transacted[T]:
        """See `DocumentStore.transact`."""
        # A transaction that has lost is begun again with the priority that its age gives it.
        lost = b""
        wanted = ""

        async def attempt() -> Transacted[T]:
            nonlocal lost, wanted
            transaction = await self._calls.begin(lost)
            reads = _Reads(self._calls, transaction)
            try:
                return await self._attempt(transaction, reads, body)
            except google_errors.Aborted:
                lost, wanted = transaction, reads.first_path
                raise

        async def in_turn() -> Transacted[T]:
            async with self._turns.of(wanted):
                return await attempt()

        deadline_s = self._calls.retry_deadline_s()
        with translated_errors(self._calls.where):
            try:
                return await self._calls.repeated(attempt, _OUTAGES, deadline_s=deadline_s)
            except google_errors.Aborted:
                return await self._calls.repeated(in_turn, TRANSIENT, deadline_s=deadline_s)

    async def _attempt(
        self, transaction: bytes, reads: _Reads, body: TransactionBody[T]
    ) -> Transacted[T]:
        """Run the body once, and commit.  Google's errors mean that nothing was written."""
        is_open = True
        try:
            decision = await body(reads)
            if not decision.writes:
                return Transacted(commit_time_us=None, result=decision.result)
            commit_time_us = await self._commit(decision.writes, transaction)
            is_open = False
            return Transacted(commit_time_us=commit_time_us, result=decision.result)
        finally:
            if is_open:
                self._give_up(transaction)

    async def _commit(self, writes: Sequence[Write], transaction: bytes) -> int:
        try:
            return await commit_once(self._calls, writes, transaction)
        except google_errors.Aborted:
            raise
        except TRANSIENT as exc:
            # Written or not is unknown: to repeat it would be to write it twice.
            raise translated(exc, self._calls.where) from exc

    def _give_up(self, transaction: bytes) -> None:
        """Roll back in the background."""
        task = asyncio.create_task(self._roll_back(transaction))
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)

    async def _roll_back(self, transaction: bytes) -> None:
        # Firestore itself ends what is not rolled back, when it has lain idle for a minute.
        with contextlib.suppress(google_errors.GoogleAPIError):
            await self._calls.roll_back(transaction)

    async def aclose(self) -> None:
        """Let what is being rolled back end."""
        await asyncio.gather(*self._given_up)


class _Reads:
    """See `TransactionReads`."""

    def __init__(self, calls: FirestoreCalls, transaction: bytes) -> None:
        self._calls = calls
        self._transaction = transaction
        #: Path of the document that was asked for first; empty: none was.
        self.first_path = ""

    async def get(self, path: str) -> Document | None:
        """See `TransactionReads.get`."""
        self.first_path = self.first_path or path
        if is_reserved(segments_of(path)):
            # Firestore refuses to look, since no document can have such a name.
            return None
        return (await self._calls.get_once(path, self._transaction)).document


async def commit_once(
    calls: FirestoreCalls, writes: Sequence[Write], transaction: bytes = b""
) -> int:
    """
    Send a commit, and give its time.  Google's errors come out as they are.

    Args:
        calls: an open client.
        writes: see `DocumentStore.commit`.
        transaction: the open one that this ends; empty for none.

    Raises:
        ValueError: a path is no document's, or is written twice; nothing was written.
        PreconditionFailed: nothing was written.
    """
    paths = [write.path for write in writes]
    for path in paths:
        segments_of(path)
    if len(set(paths)) < len(paths):
        raise ValueError("a commit writes a document once; nothing was written")
    try:
        return await calls.commit(writes, transaction)
    except (google_errors.NotFound, google_errors.AlreadyExists) as exc:
        is_missing = isinstance(exc, google_errors.NotFound)
        refused = await _refused_write(calls, writes, is_missing=is_missing)
        if refused is None:
            raise
        raise PreconditionFailed(refused.path, refused.precondition) from exc


async def _refused_write(
    calls: FirestoreCalls, writes: Sequence[Write], *, is_missing: bool
) -> Write | None:
    """Find the write whose precondition failed: Firestore names it only in words."""
    failed = Precondition.EXISTS if is_missing else Precondition.ABSENT
    guarded = [write for write in writes if write.precondition is failed]
    for write in guarded if len(guarded) > 1 else ():
        read = await calls.get(write.path)
        if (read.document is None) is is_missing:
            return write
    return guarded[0] if guarded else None
