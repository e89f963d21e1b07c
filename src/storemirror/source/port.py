"""
What the mirror needs of a document store: Firestore's semantics, as far as they are used.

Times are microseconds since the Unix epoch, UTC, by the store's own clock.  For every document
commit time < read time of any read that saw the commit < commit time of any later commit.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from storemirror.event.change import Fields, Value
from storemirror.source.budget import ReadBudget

T = TypeVar("T")

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
    """Some documents: of a scan in key order, of a query in the query's."""

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
class Decision(Generic[T]):
    """What a transaction is to do, and what is to be said of it."""

    #: Empty: nothing is written, nothing is committed.
    writes: Sequence[Write] = ()
    result: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Transacted(Generic[T]):
    """What a transaction did."""

    #: The same for all writes; None: nothing was written.
    commit_time_us: int | None
    result: T


class TransactionReads(Protocol):
    """Reads within a transaction: all of one moment."""

    async def get(self, path: str) -> Document | None:
        """
        Read one document; None: it is not there.

        What it raises is not for the body to catch: the transaction may begin anew for it.

        Raises:
            ValueError: `path` is no document's.
        """
        ...


#: Reads, and decides; see `DocumentStore.transact`.
TransactionBody: TypeAlias = Callable[[TransactionReads], Awaitable[Decision[T]]]


class Comparison(enum.Enum):
    """How a field's value is to stand to another one."""

    EQUAL = "=="
    #: Any value but this one, of whatever type, and but null.
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    #: The field is an array with this element.
    ARRAY_CONTAINS = "array-contains"

    @property
    def is_inequality(self) -> bool:
        """Tell whether a query with it goes along an index in that field's order."""
        return self not in (Comparison.EQUAL, Comparison.ARRAY_CONTAINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What must hold for a document to be found; one without the field is not."""

    #: Names from the document's root to the field: ("profile", "city").
    field: tuple[str, ...]
    comparison: Comparison
    #: Canonical.  `LESS`, `GREATER` and the like find values of its type alone.
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentQuery:
    """Which documents of one collection, and in which order.

    Numbers stand before times, times before texts, and so on, as Firestore orders values; texts
    and ids are ordered as UTF-8 bytes.
    """

    #: Path of a collection: "conversations/c1/messages".
    collection: str
    #: All must hold.
    conditions: tuple[Condition, ...] = ()
    #: Field by which the documents are ordered; those without it are left out.  None: by id.
    order_by: tuple[str, ...] | None = None
    #: Largest first, and of documents with equal values the largest id.
    is_falling: bool = False
    #: Only what follows this value of the ordered field (None when ordered by id) and document
    #: id; it need be no document's.
    after: tuple[Value | None, str] | None = None
    #: Most documents, at least 1.
    limit: int

    def __post_init__(self) -> None:
        """Refuse what no store could answer."""
        if self.limit < 1:
            raise ValueError(f"a query's limit is at least 1, got {self.limit}")
        if self.after is not None and (self.after[0] is None) != (self.order_by is None):
            raise ValueError("`after` has a value where the query is ordered by a field")


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

    async def transact(self, body: TransactionBody[T]) -> Transacted[T]:
        """
        Read, decide, write: as if nothing else happened between.

        Args:
            body: may run several times, since others write what it reads; so it has no side
                effects.  What it raises comes out, and nothing is written.

        Raises:
            PreconditionFailed: nothing was written.
            ValueError: a document is written twice; nothing was written.
            SourceUnavailable: written or not is unknown; where others wrote what the body reads
                for too long, nothing was written.
        """
        ...

    async def query(self, query: DocumentQuery) -> DocumentPage:
        """
        Find documents, in the query's order, at one read time.

        Firestore bills one read a document found, and one at least; it needs a composite index
        where more than one field is compared or ordered by
        (`storemirror.source.firestore_indexes`).

        Raises:
            ValueError: `collection` is none, or an inequality is on another field than the one
                that orders.
            SourceUnavailable: the store did not answer.
        """
        ...

    async def count_of(self, query: DocumentQuery) -> int:
        """
        Count what a query finds, up to its limit.

        Inequalities may be on several fields, for nothing is put in order.  Firestore bills one
        read for each 1,000 documents, and one at least.

        Raises:
            ValueError: `collection` is none, or the query begins behind a place.
            SourceUnavailable: the store did not answer.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
