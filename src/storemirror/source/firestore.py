"""
Cloud Firestore behind the port `DocumentStore`, by Google's asynchronous client.

A pinned view is a read time that Firestore itself has given: every commit before it is seen at
any later read of that moment, and every later commit has a later time.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final, TypeVar

from google.api_core import exceptions as google_errors

from storemirror.clock import Clock
from storemirror.model.own_paths import PROBE_COLLECTION
from storemirror.source.budget import ReadBudget
from storemirror.source.firestore_calls import FirestoreAddress, FirestoreCalls, Span
from storemirror.source.firestore_errors import translated_errors
from storemirror.source.firestore_names import is_reserved, plan_scan, segments_of
from storemirror.source.firestore_scan import FirestoreScan
from storemirror.source.firestore_transaction import FirestoreTransactions, commit_once
from storemirror.source.key_ranges import even_ranges, key_of_path, path_of_key, ranges_between
from storemirror.source.port import (
    DocumentPage,
    DocumentQuery,
    DocumentRead,
    KeyRange,
    Transacted,
    TransactionBody,
    Write,
)
from storemirror.source.queries import refuse_place, refuse_unordered

__all__ = ["FirestoreAddress", "FirestoreDocumentStore", "FirestoreView", "open_firestore"]

T = TypeVar("T")

#: A document that is never there; reading it gives the time of now.
_PROBE_PATH: Final = f"{PROBE_COLLECTION}/none"

#: Most ranges where the server cannot say where its documents are: each costs Google's emulator a
#: look at the whole collection.
_EVEN_RANGE_COUNT: Final = 4


class FirestoreView:
    """See `PinnedView`.  Made by `FirestoreDocumentStore.pinned`; its scans may run at once."""

    def __init__(self, calls: FirestoreCalls, read_time_us: int) -> None:
        """Read at this moment."""
        self._calls = calls
        self._read_time_us = read_time_us

    @property
    def read_time_us(self) -> int:
        """See `PinnedView.read_time_us`."""
        return self._read_time_us

    async def scan(
        self,
        pattern: Sequence[str],
        *,
        page_size: int = 300,
        max_count: int | None = None,
        within: KeyRange | None = None,
        budget: ReadBudget | None = None,
    ) -> AsyncIterator[DocumentPage]:
        """
        See `PinnedView.scan`.

        Pages are smaller than `page_size` where documents are large, where a query failed on the
        way, or where other collections of the same id lie between: those are read, paid for and
        left out.

        Raises:
            ValueError: the pattern leaves a collection open.
            SourceUnavailable: Firestore did not answer.
            SourceRefused: rights, or an id that is sorted by its number.
            ReadTimeRefused, ReadBudgetSpent: see `PinnedView.scan`.
        """
        scan = FirestoreScan(
            self._calls,
            plan_scan(pattern),
            _span_of(pattern, within or KeyRange()),
            page_size=page_size,
            read_time_us=self._read_time_us,
            budget=budget or ReadBudget(),
        )
        async with contextlib.aclosing(scan):
            remaining = max_count
            while remaining is None or remaining > 0:
                found = await scan.next_page(remaining)
                if found is None:
                    return
                documents = found[:remaining]
                if documents:
                    yield DocumentPage(documents=documents, read_time_us=self._read_time_us)
                remaining = None if remaining is None else remaining - len(documents)


class FirestoreDocumentStore:
    """See `DocumentStore`.  Make it with `open_firestore`.

    What a person must mend (rights, a database that is not there) is `SourceRefused`.
    """

    def __init__(self, calls: FirestoreCalls) -> None:
        """Work through an open client."""
        self._calls = calls
        self._transactions = FirestoreTransactions(calls)

    @property
    def read_count(self) -> int:
        """Give how many document reads were paid for, as far as they can be counted here."""
        return self._calls.read_count

    async def get(self, path: str) -> DocumentRead:
        """See `DocumentStore.get`.  ValueError: `path` is no document's."""
        if is_reserved(segments_of(path)):
            # Firestore refuses to look, since no document can have such a name.
            probe = await self._calls.get(_PROBE_PATH)
            return DocumentRead(path=path, document=None, read_time_us=probe.read_time_us)
        return await self._calls.get(path)

    async def commit(self, writes: Sequence[Write]) -> int:
        """
        See `DocumentStore.commit`.

        A write of the contents that are there leaves the update time as it was.

        Raises:
            ValueError: a path is no document's, or is written twice; nothing was written.
            SourceRefused: Firestore refuses the rights or the data; nothing was written.
        """
        with translated_errors(self._calls.where):
            commit = partial(commit_once, self._calls, writes)
            # It lost against another one: nothing was written.
            return await self._calls.repeated(commit, (google_errors.Aborted,))

    async def transact(self, body: TransactionBody[T]) -> Transacted[T]:
        """
        See `DocumentStore.transact`.

        Raises:
            SourceRefused: Firestore refuses the rights or the data; nothing was written.
        """
        return await self._transactions.run(body)

    async def query(self, query: DocumentQuery) -> DocumentPage:
        """
        See `DocumentStore.query`.

        Raises:
            SourceRefused: rights, or a composite index that is not there; Firestore's own words
                lead to the page that makes it.
        """
        refuse_unordered(query)
        if is_reserved(segments_of(f"{query.collection}/any")):
            probe = await self._calls.get(_PROBE_PATH)
            return DocumentPage(documents=(), read_time_us=probe.read_time_us)
        return await self._calls.page(query)

    async def count_of(self, query: DocumentQuery) -> int:
        """See `DocumentStore.count_of`.  SourceRefused: see `query`."""
        refuse_place(query)
        if is_reserved(segments_of(f"{query.collection}/any")):
            return 0
        return await self._calls.count_of(query)

    @contextlib.asynccontextmanager
    async def pinned(self, read_time_us: int | None = None) -> AsyncIterator[FirestoreView]:
        """
        See `DocumentStore.pinned`.  A view of now costs one read.

        A moment that is too old is refused by the view's scans, also while they are under way.
        """
        if read_time_us is None:
            read_time_us = (await self._calls.get(_PROBE_PATH)).read_time_us
        yield FirestoreView(self._calls, read_time_us)

    async def count(self, pattern: Sequence[str], *, max_count: int | None = None) -> int:
        """See `DocumentStore.count`."""
        return await self._calls.count(plan_scan(pattern), max_count)

    async def partitions(self, pattern: Sequence[str], max_count: int) -> list[KeyRange]:
        """
        See `DocumentStore.partitions`.

        Where the server has no partition queries, as if ids were spread evenly.
        """
        plan = plan_scan(pattern)
        if max_count == 1:
            return [KeyRange()]
        paths = await self._calls.partition_paths(plan, max_count)
        if paths is None:
            count = min(max_count, _EVEN_RANGE_COUNT)
            return even_ranges(sum(s.startswith("{") for s in pattern), count)
        keys = {key_of_path(pattern, path.split("/")) for path in paths}
        return ranges_between(sorted(key for key in keys if key is not None))

    async def aclose(self) -> None:
        """See `DocumentStore.aclose`."""
        await self._transactions.aclose()
        await self._calls.aclose()


def _span_of(pattern: Sequence[str], within: KeyRange) -> Span:
    """Give a key range as paths."""
    return Span(
        after=None if within.after is None else path_of_key(pattern, within.after),
        up_to=None if within.up_to is None else path_of_key(pattern, within.up_to),
    )


def open_firestore(address: FirestoreAddress, clock: Clock) -> FirestoreDocumentStore:
    """
    Make a store; nothing is sent yet.  To be called in the event loop that uses it.

    Raises:
        SourceRefused: there are no application default credentials.
    """
    with translated_errors(f"Firestore {address.name}"):
        return FirestoreDocumentStore(FirestoreCalls(address, clock))
