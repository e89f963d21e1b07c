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
        self, pattern: Sequence[str], *, page_size: int = 300, max_count: int | None = None
    ) -> AsyncIterator[DocumentPage]:
        """
        Read every document whose path fits, by rising key.

        Args:
            pattern: segments of a path pattern (`Entity.path`).
            page_size: most documents a page.
            max_count: stop after so many documents; None for all.

        Returns:
            Pages in which keys (the path's parameters, compared part by part as UTF-8 bytes)
            rise, within a page and from page to page.
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

    def pinned(self) -> AbstractAsyncContextManager[PinnedView]:
        """Open a view on the store as it is now, unmoved by later commits."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
