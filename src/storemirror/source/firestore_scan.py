"""
One scan of Firestore: pages out of as few queries as can be.

A query is answered as a stream, and a page is what arrived of it: where the reader takes its time
the stream waits.  A query of its own for each page would cost Google's emulator a look at the
whole collection each time.  A query that ends before its time (an outage, the limit of a call) is
gone on with by another one, behind the last document that arrived.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from storemirror.source.budget import ReadBudget
from storemirror.source.firestore_calls import FirestoreCalls, Span
from storemirror.source.firestore_errors import TRANSIENT, translated_errors
from storemirror.source.firestore_names import ScanPlan
from storemirror.source.firestore_values import Proto
from storemirror.source.port import Document

#: Most documents of one query, where nothing limits the reads.
QUERY_MAX_COUNT: Final = 50_000
#: Bytes of documents at which a page is cut short: 300 documents may have 300 MiB.
PAGE_MAX_BYTES: Final = 16 * 1024 * 1024


class FirestoreScan:
    """A scan under way.  For one reader."""

    def __init__(
        self,
        calls: FirestoreCalls,
        plan: ScanPlan,
        span: Span,
        *,
        page_size: int,
        read_time_us: int,
        budget: ReadBudget,
    ) -> None:
        """Begin at the span's start; nothing is sent yet."""
        self._calls = calls
        self._plan = plan
        self._span = span
        self._page_size = page_size
        self._read_time_us = read_time_us
        self._budget = budget
        self._query: _Query | None = None
        self._is_at_end = False
        self._is_among_strangers = False

    async def next_page(self, wanted_count: int | None) -> tuple[Document, ...] | None:
        """
        Read on.

        Args:
            wanted_count: how many more documents the reader will take; None: all.

        Returns:
            Up to a page of documents that the pattern fits, perhaps none; None at the end.

        Raises:
            SourceUnavailable, SourceRefused, ReadTimeRefused, ReadBudgetSpent: see
                `PinnedView.scan`.
        """
        if self._is_at_end:
            return None

        async def read() -> tuple[Document, ...]:
            return await self._read(wanted_count)

        with translated_errors(self._calls.where):
            return await self._calls.repeated(read, TRANSIENT)

    async def aclose(self) -> None:
        """Call off what is under way."""
        if self._query is not None:
            await self._query.aclose()
            self._query = None

    async def _read(self, wanted_count: int | None) -> tuple[Document, ...]:
        """Read a page, or what arrives of it before the query fails."""
        query = self._query
        if query is None:
            query = self._query = await self._sent(wanted_count)
        documents: list[Document] = []
        count = size_bytes = 0
        path: str | None = None
        try:
            while count < self._page_size and size_bytes <= PAGE_MAX_BYTES:
                found = await query.next_document()
                if found is None:
                    self._is_at_end = query.is_whole
                    await self.aclose()
                    break
                count += 1
                size_bytes += found.ByteSize()
                path = self._calls.path_of(found.name)
                segments = path.split("/")
                if self._plan.fits(segments):
                    documents.append(self._calls.document_of(found))
                elif self._plan.is_past(segments):
                    self._is_at_end = True
                    await self.aclose()
                    break
        except TRANSIENT:
            await self.aclose()
            if count == 0:
                raise
        except BaseException:
            await self.aclose()
            raise
        if path is not None:
            self._span = replace(self._span, after=path)
        self._is_among_strangers = not documents
        return tuple(documents)

    async def _sent(self, wanted_count: int | None) -> _Query:
        """Send the query for what is left."""
        limit = self._page_size
        if self._budget.max_count is None:
            # Nobody else is kept from reading by what is set aside here.
            limit = max(limit, QUERY_MAX_COUNT)
        if wanted_count is not None and not self._is_among_strangers:
            limit = min(limit, wanted_count)
        query = _Query(self._calls, self._budget, self._budget.reserve(limit))
        await query.send(self._plan, self._span, self._read_time_us)
        return query


class _Query:
    """One query under way, and the reads that are set aside for it."""

    def __init__(self, calls: FirestoreCalls, budget: ReadBudget, limit: int) -> None:
        self._calls = calls
        self._budget = budget
        self._limit = limit
        self._count = 0
        self._has_failed = False
        self._stack = contextlib.AsyncExitStack()
        self._read: Callable[[], Awaitable[Proto | None]] | None = None

    @property
    def is_whole(self) -> bool:
        """Tell whether there is nothing behind what it gave."""
        return self._count < self._limit

    async def send(self, plan: ScanPlan, span: Span, read_time_us: int) -> None:
        """Send it; what was set aside is settled if that fails."""
        running = self._calls.running_query(plan, span, self._limit, read_time_us)
        try:
            self._read = await self._stack.enter_async_context(running)
        except BaseException:
            self._has_failed = True
            await self.aclose()
            raise

    async def next_document(self) -> Proto | None:
        """Give the next `Document` message; None when there is none left."""
        assert self._read is not None
        try:
            while (answer := await self._read()) is not None:
                found = answer.document
                if found.name:
                    self._note()
                    return found
                # Else it says how far the query is, or that it is done.
        except BaseException:
            self._has_failed = True
            raise
        return None

    def _note(self) -> None:
        self._count += 1
        self._calls.read_count += 1
        self._budget.settle(1, spent_count=1)

    async def aclose(self) -> None:
        """End it.  What one that failed had read is not known: all that a limit allowed it."""
        left = self._limit - self._count
        spent_count = 0
        if self._has_failed and self._budget.max_count is not None:
            spent_count = left
        elif self._count == 0:
            spent_count = 1  # a query costs one read at least
            self._calls.read_count += 1
        self._budget.settle(left, spent_count=spent_count)
        await self._stack.aclose()
