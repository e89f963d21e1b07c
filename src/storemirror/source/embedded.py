"""
A document store on PostgreSQL, for laptop, tests and demo, with Firestore's semantics.

It has a database of its own; every commit also writes what the triggers are to be told, in the
same transaction.  Commits are serialised by one lock, under which they draw their time, so that
commit times, visibility and the outbox have one order.  It does what the contract suite of
`source/port.py` exercises and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, LiteralString, TypeVar

from storemirror.clock import Clock, SystemClock
from storemirror.errors import ReadTimeRefused
from storemirror.source.budget import ReadBudget
from storemirror.source.embedded_commits import CommitParameters, SharedCommits
from storemirror.source.embedded_paths import (
    bounds_of_scan,
    collection_of,
    segments_of,
    wanted_segments,
)
from storemirror.source.embedded_query import EmbeddedQueries
from storemirror.source.embedded_rows import decoded, document_change_of, document_of, encoded
from storemirror.source.embedded_terms import index_of
from storemirror.source.embedded_transaction import EmbeddedTransactions
from storemirror.source.key_ranges import key_of_path, ranges_between
from storemirror.source.port import (
    Document,
    DocumentChange,
    DocumentPage,
    DocumentQuery,
    DocumentRead,
    KeyRange,
    PreconditionFailed,
    Transacted,
    TransactionBody,
    Write,
)
from storemirror.sql.postgres.connection import Connection, Database

T = TypeVar("T")

#: Most changes a batch of the outbox, and bytes of JSON at which it is cut short.
OUTBOX_MAX_COUNT: Final = 500
OUTBOX_MAX_BYTES: Final = 4 * 1024 * 1024

_LOCK_SCHEMA: Final = "SELECT pg_advisory_xact_lock(3)"
_READ: Final = "SELECT read_us, fields_json, create_us, update_us FROM documents.read_document(%s)"
_READ_TOGETHER: Final = """
SELECT path, fields_json, create_us, update_us FROM documents.read_together(%s::text[])
"""
_NOT_INDEXED: Final = "SELECT path, fields FROM documents.document WHERE terms IS NULL LIMIT 500"
#: Without it rows would be locked in another order than commits lock them.
_LOCK_CLOCK: Final = "SELECT pg_advisory_xact_lock(1)"
#: Of a document that has been written meanwhile, the writer has seen to it.
_INDEX: Final = """
UPDATE documents.document AS d SET terms = w.terms::bigint[], times = w.times::jsonb
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS w (path, fields, terms, times)
WHERE d.path = w.path AND d.fields = w.fields
"""
_DRAW_TIME: Final = "SELECT documents.draw_time()"
_PIN: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
#: Takes the transaction's snapshot; and pins the plan of scans to the index.
_TAKE_SNAPSHOT: Final = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)
"""
_SCAN: Final = """
SELECT path, fields, create_time_us, update_time_us
FROM documents.document
WHERE collection = %(collection)s AND segments > %(after)s::text[]
  AND segments <= %(up_to)s::text[]
  AND (%(wanted)s::text[] IS NULL OR NOT EXISTS (
      SELECT FROM unnest(segments, %(wanted)s::text[]) AS s (segment, wanted)
      WHERE s.segment <> s.wanted))
ORDER BY segments
LIMIT %(limit)s
"""
_COUNT: Final = """
SELECT count(*)
FROM (SELECT FROM documents.document
      WHERE collection = %s
        AND (%s::text[] IS NULL OR NOT EXISTS (
            SELECT FROM unnest(segments, %s::text[]) AS s (segment, wanted)
            WHERE s.segment <> s.wanted))
      LIMIT %s) AS counted
"""
_PARTITIONS: Final = """
SELECT max(segments)
FROM (SELECT segments, ntile(%s) OVER (ORDER BY segments) AS part
      FROM documents.document
      WHERE collection = %s
        AND (%s::text[] IS NULL OR NOT EXISTS (
            SELECT FROM unnest(segments, %s::text[]) AS s (segment, wanted)
            WHERE s.segment <> s.wanted))) AS parts
GROUP BY part
ORDER BY part
"""
#: What is removed is on the bus for good.  A crash may bring it back, and then it is published
#: twice; so nobody need wait for the disk.
_LOCK_RELAY: Final = """
SELECT pg_try_advisory_xact_lock(2), set_config('synchronous_commit', 'off', true)
"""
_OUTBOX: Final = """
SELECT seq, path, before_fields, before_create_time_us, before_update_time_us,
       after_fields, after_create_time_us, after_update_time_us, size_up_to
FROM (SELECT *, sum(size_bytes) OVER (ORDER BY seq)::bigint AS size_up_to
      FROM (SELECT * FROM documents.outbox WHERE seq > %s ORDER BY seq LIMIT %s) AS oldest) AS sized
WHERE size_up_to - size_bytes < %s
ORDER BY seq
"""
_REMOVE: Final = "DELETE FROM documents.outbox WHERE seq > %s AND seq <= %s"
_PENDING: Final = """
SELECT count(*) FROM documents.outbox
WHERE commit_time_us <= coalesce(%s, 9223372036854775807)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxBatch:
    """The oldest changes that the triggers were not told yet."""

    #: In the order of their commits.
    changes: tuple[DocumentChange, ...]
    #: Whether there may be more behind them.
    has_more: bool


class EmbeddedView:
    """See `PinnedView`.  Made by `EmbeddedDocumentStore.pinned`; scans may run at the same time."""

    def __init__(self, conn: Connection, read_time_us: int) -> None:
        """Read in the connection's open transaction, whose snapshot was taken at the read time."""
        self._conn = conn
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
        """See `PinnedView.scan`.  ValueError: the pattern leaves a collection open."""
        bounds = {
            "wanted": wanted_segments(pattern),
            **bounds_of_scan(pattern, within or KeyRange()),
        }
        paid = budget or ReadBudget()
        remaining = max_count
        while remaining is None or remaining > 0:
            wanted_count = page_size if remaining is None else min(page_size, remaining)
            limit = paid.reserve(wanted_count)
            spent_count = limit
            try:
                documents = await self._page(bounds, limit)
                spent_count = max(len(documents), 1)
            finally:
                paid.settle(limit, spent_count=spent_count)
            if documents:
                yield DocumentPage(documents=documents, read_time_us=self._read_time_us)
            if len(documents) < limit:
                return
            bounds["after"] = documents[-1].path.split("/")
            remaining = None if remaining is None else remaining - len(documents)

    async def _page(self, bounds: dict[str, Any], limit: int) -> tuple[Document, ...]:
        """Read the documents that follow `bounds["after"]`."""
        cursor = await self._conn.execute(_SCAN, {**bounds, "limit": limit})
        return tuple(
            Document(
                path=path,
                fields=decoded(fields),
                create_time_us=create_time_us,
                update_time_us=update_time_us,
            )
            for path, fields, create_time_us, update_time_us in await cursor.fetchall()
        )


class EmbeddedDocumentStore:
    """See `DocumentStore`.  Errors that are no retry's business are `DatabaseRefused`."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """
        Work on an open database that nothing else uses.

        Args:
            database: of kind `DOCUMENTS`; closed by `aclose`.  A pinned view holds one of its
                connections, and a second one for the moment in which it is opened.
            clock: says for how long a transaction has been tried; the machine's by default.
        """
        self._database = database
        self._commits = SharedCommits(database)
        self._queries = EmbeddedQueries(database)
        self._transactions = EmbeddedTransactions(
            self._read_together, self._commit_unmoved, clock or SystemClock()
        )
        #: Set after every commit through this object; whoever waits for it clears it.
        self.committed = asyncio.Event()
        #: Outbox rows up to here are gone for good.  Without it every look would pass over the
        #: dead rows before it, which pile up while a pinned view holds its snapshot.
        self._removed_up_to_seq = 0

    async def prepare(self) -> None:
        """
        Create what is missing of tables and functions; idempotent, at any time.

        In a store of before there were queries, also what those go by.
        """
        schema = resources.files(__package__).joinpath("embedded_schema.sql").read_bytes()
        async with self._database.transaction() as conn:
            await conn.execute(_LOCK_SCHEMA)
            await conn.execute(schema)
        while rows := await self._database.fetch(_NOT_INDEXED):
            indexes = [index_of(path, decoded(fields)) for path, fields in rows]
            paths, fields = zip(*rows, strict=True)
            terms, times = zip(*indexes, strict=True)
            async with self._database.transaction() as conn:
                await conn.execute(_LOCK_CLOCK)
                await conn.execute(_INDEX, [list(c) for c in (paths, fields, terms, times)])

    async def get(self, path: str) -> DocumentRead:
        """See `DocumentStore.get`.  ValueError: `path` is no document's."""
        segments_of(path)
        [(read_time_us, fields, create_time_us, update_time_us)] = await self._database.fetch(
            _READ, (path,)
        )
        document = document_of(path, fields, create_time_us, update_time_us)
        return DocumentRead(path=path, document=document, read_time_us=read_time_us)

    async def commit(self, writes: Sequence[Write]) -> int:
        """
        See `DocumentStore.commit`.  What waits at the same time is made durable together.

        A write of the contents that are there changes nothing, the update time neither; so does
        a delete of nothing.  No trigger hears of them.

        Raises:
            ValueError: a path is no document's, or is written twice; nothing was written.
        """
        commit_time_us = await self._commit_unmoved(writes, {})
        assert commit_time_us is not None  # nothing was read before
        return commit_time_us

    async def transact(self, body: TransactionBody[T]) -> Transacted[T]:
        """See `DocumentStore.transact`."""
        return await self._transactions.run(body)

    async def query(self, query: DocumentQuery) -> DocumentPage:
        """
        See `DocumentStore.query`.

        Documents are found by the elements of arrays that are texts, by texts that may be an id
        or a word, and put in order by times or ids; for other questions all of the collection is
        read.
        """
        return await self._queries.page(query)

    async def count_of(self, query: DocumentQuery) -> int:
        """See `DocumentStore.count_of`."""
        return await self._queries.count(query)

    async def _commit_unmoved(
        self, writes: Sequence[Write], read_times_us: Mapping[str, int | None]
    ) -> int | None:
        """
        Commit if the documents that were read have these update times still; None: they have not.

        Raises:
            PreconditionFailed, ValueError: see `commit`.
        """
        committed = await self._commits.commit(_parameters_of(writes, read_times_us))
        if committed.is_overtaken:
            return None
        if committed.refused is not None:
            write = writes[committed.refused - 1]
            raise PreconditionFailed(write.path, write.precondition)
        self.committed.set()
        return committed.commit_time_us

    async def _read_together(self, paths: Sequence[str]) -> Mapping[str, Document]:
        """Give the documents that are there, of one moment; ValueError: a path is no document's."""
        for path in paths:
            segments_of(path)
        rows = await self._database.fetch(_READ_TOGETHER, (list(paths),))
        found = (document_of(*row) for row in rows)
        return {document.path: document for document in found if document is not None}

    @contextlib.asynccontextmanager
    async def pinned(self, read_time_us: int | None = None) -> AsyncIterator[EmbeddedView]:
        """See `DocumentStore.pinned`.  Only now can be seen: the past is not kept.

        The view's snapshot is taken while another connection holds the clock's lock, under which
        it drew the read time: whoever commits has an earlier time and is done, or waits.
        """
        if read_time_us is not None:
            raise ReadTimeRefused("the embedded store shows no moment but now; nothing was read")
        async with self._database.transaction() as conn:
            await conn.execute(_PIN)
            async with self._database.transaction() as locking:
                [(now_us,)] = await _fetch(locking, _DRAW_TIME)
                await conn.execute(_TAKE_SNAPSHOT)
            yield EmbeddedView(conn, now_us)

    async def count(self, pattern: Sequence[str], *, max_count: int | None = None) -> int:
        """See `DocumentStore.count`.  Exact: a scan reads only what fits."""
        wanted = wanted_segments(pattern)
        parameters = (collection_of(pattern), wanted, wanted, max_count)
        [(count,)] = await self._database.fetch(_COUNT, parameters)
        return int(count)

    async def partitions(self, pattern: Sequence[str], max_count: int) -> list[KeyRange]:
        """See `DocumentStore.partitions`.  Equally full; looks at every key."""
        wanted = wanted_segments(pattern)
        parameters = (max_count, collection_of(pattern), wanted, wanted)
        found = await self._database.fetch(_PARTITIONS, parameters)
        bounds = [key_of_path(pattern, segments) for (segments,) in found[:-1]]
        return ranges_between(key for key in bounds if key is not None)

    @contextlib.asynccontextmanager
    async def outbox_batch(
        self, *, max_count: int = OUTBOX_MAX_COUNT, max_bytes: int = OUTBOX_MAX_BYTES
    ) -> AsyncIterator[OutboxBatch]:
        """
        Lend the oldest changes; they leave the outbox when the block ends without an error.

        Empty when there is nothing, or when another relay has a batch in hand.  A batch has at
        least one change, however large.

        Raises:
            SourceUnavailable: the changes may have left the outbox or not.
        """
        async with self._database.transaction() as conn:
            [(is_ours, _)] = await _fetch(conn, _LOCK_RELAY)
            after_seq = self._removed_up_to_seq
            limits = (after_seq, max_count, max_bytes)
            rows = await _fetch(conn, _OUTBOX, limits) if is_ours else []
            yield OutboxBatch(
                changes=tuple(document_change_of(row) for row in rows),
                has_more=bool(rows) and (len(rows) == max_count or rows[-1][-1] >= max_bytes),
            )
            if rows:
                await conn.execute(_REMOVE, (after_seq, rows[-1][0]))
        # Where nothing is left, look from the start next time: a store that was restored, or that
        # lost its last commits in a crash, gives numbers out again.
        self._removed_up_to_seq = max(after_seq, rows[-1][0]) if rows else 0

    async def pending_count(self, up_to_us: int | None = None) -> int:
        """
        Count the changes that the triggers were not told yet.

        Args:
            up_to_us: only those committed at or before this time, microseconds since the Unix
                epoch; None for all.
        """
        [(count,)] = await self._database.fetch(_PENDING, (up_to_us,))
        return int(count)

    async def aclose(self) -> None:
        """See `DocumentStore.aclose`."""
        await self._commits.aclose()
        await self._database.aclose()


async def _fetch(
    conn: Connection, statement: LiteralString, parameters: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Run a statement on this very connection and give its rows."""
    cursor = await conn.execute(statement, parameters)
    return await cursor.fetchall()


def _parameters_of(
    writes: Sequence[Write], read_times_us: Mapping[str, int | None]
) -> CommitParameters:
    """
    Give a commit as the database takes it.

    Raises:
        ValueError: a path is no document's, or is written twice; nothing was written.
    """
    paths = [write.path for write in writes]
    if len(set(paths)) < len(paths):
        raise ValueError("a commit writes a document once; nothing was written")
    collections = [collection_of(segments_of(path)) for path in paths]
    indexes = [None if w.fields is None else index_of(w.path, w.fields) for w in writes]
    return CommitParameters(
        paths=paths,
        collections=collections,
        fields=[None if write.fields is None else encoded(write.fields) for write in writes],
        preconditions=[write.precondition.value for write in writes],
        terms=[None if index is None else index.terms for index in indexes],
        times=[None if index is None else index.times for index in indexes],
        read_paths=list(read_times_us),
        read_times_us=list(read_times_us.values()),
    )
