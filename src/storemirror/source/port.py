"""
What the mirror needs of a document store: Firestore's semantics, as far as they are used.

Times are microseconds since the Unix epoch, UTC, by the store's own clock.  For every document
commit time < read time of any read that saw the commit < commit time of any later commit.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from storemirror.event.change import Fields
from storemirror.source.budget import ReadBudget

#: A document's key: the parameters of its path, in order.  Keys are compared part by part as
#: UTF-8 bytes, which is how Python compares them as tuples of text.
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document at one moment."""

    path: str
    #: Canonical REST `Value` JSON.
    fields: Fields
    create_time_us: int
    update_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRead:
    """The answer to reading one path."""

    path: str
    #: None: there is no such document at `read_time_us`.
    document: Document | None
    read_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPage:
    """Some documents of a scan, in key order."""

    documents: tuple[Document, ...]
    #: The read time that covers this page.
    read_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """The keys above `after`, up to and with `up_to`; a bound need be no document's."""

    #: None: from the first key.
    after: Key | None = None
    #: None: to the last key.
    up_to: Key | None = None


class Precondition(enum.Enum):
    """What must hold for a write to happen."""

    NONE = "none"
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write of a commit: the whole document, or its deletion."""

    path: str
    #: Canonical fields that replace the document; None deletes it.
    fields: Fields | None
    precondition: Precondition = Precondition.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChange:
    """What a trigger is told: one document before and after one commit."""

    path: str
    #: None: the document was not there.
    before: Document | None
    #: None: the document is gone.
    after: Document | None


class PreconditionFailed(Exception):
    """A write's precondition did not hold; nothing of the commit was written."""

    def __init__(self, path: str, precondition: Precondition) -> None:
        """Keep the path, so that callers need not parse the text."""
        super().__init__(f"{path}: must be {precondition.value}; nothing was written")
        self.path = path


class PinnedView(Protocol):
    """The store as it was at one moment."""

    @property
    def read_time_us(self) -> int:
        """Give the moment: all commits before it are seen, none after it."""
        ...

    def scan(
        self,
        pattern: Sequence[str],
        *,
        page_size: int = 300,
        max_count: int | None = None,
        within: KeyRange | None = None,
        budget: ReadBudget | None = None,
    ) -> AsyncIterator[DocumentPage]:
        """
        Read every document whose path fits, by rising key.

        Args:
            pattern: segments of a path pattern (`Entity.path`).
            page_size: most documents a page.
            max_count: stop after so many documents; None for all.
            within: read only documents with these keys; None for all.
            budget: asked before each query, told after it; None: reads are not counted.

        Returns:
            Pages in which keys (the path's parameters, compared part by part as UTF-8 bytes)
            rise, within a page and from page to page.

        Raises:
            ReadBudgetSpent: the next query was not sent; the pages given so far are whole.
            ReadTimeRefused: the store no longer shows this view's moment.
        """
        ...


class DocumentStore(Protocol):
    """Reads and writes documents."""

    async def get(self, path: str) -> DocumentRead:
        """
        Read one document as it is now.

        Raises:
            SourceUnavailable: the store did not answer.
        """
        ...

    async def commit(self, writes: Sequence[Write]) -> int:
        """
        Write all or nothing, and give the commit time, the same for all writes.

        Raises:
            PreconditionFailed: nothing was written.
            SourceUnavailable: written or not is unknown.
        """
        ...

    def pinned(self, read_time_us: int | None = None) -> AbstractAsyncContextManager[PinnedView]:
        """
        Open a view on the store, unmoved by later commits.

        Args:
            read_time_us: the moment, by the store's clock: that of an earlier view; None for now.

        Raises:
            ReadTimeRefused: the store does not show this moment (it may also be said by the
                view's first scan); a view of now can be had.
        """
        ...

    async def count(self, pattern: Sequence[str], *, max_count: int | None = None) -> int:
        """
        Count the documents that a scan of this pattern reads, as of now.

        Firestore bills one read for each 1,000 counted, and one at least.

        Args:
            pattern: segments of a path pattern.
            max_count: count no further; None: to the end.

        Returns:
            At least the number of documents whose path fits; more where the scan must pass
            over others of the same collection group.
        """
        ...

    async def partitions(self, pattern: Sequence[str], max_count: int) -> list[KeyRange]:
        """
        Divide the keys into ranges that can be read at the same time.

        Args:
            pattern: segments of a path pattern.
            max_count: most ranges, at least 1.

        Returns:
            Ranges by rising key, without gap or overlap, from the first key to the last; about
            equally full as far as the store can tell.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
