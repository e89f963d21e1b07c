"""
Queries of the embedded store.

The database finds by terms and times (`storemirror.source.embedded_terms`), within one collection.
What it cannot tell is told here, of all that may fit: exact, and slower.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from storemirror.clock import us_from_rfc3339
from storemirror.source.embedded_paths import bounds_of_collection
from storemirror.source.embedded_rows import decoded
from storemirror.source.embedded_terms import Narrowing, narrowed
from storemirror.source.port import Document, DocumentPage, DocumentQuery
from storemirror.source.queries import (
    Rank,
    collection_segments,
    predicate_of,
    rank_of,
    refuse_place,
    refuse_unordered,
    value_at,
)
from storemirror.sql.postgres.connection import Database

_FIND: Final = """
SELECT read_us, path, fields, create_us, update_us
FROM documents.find_documents(
    %(collection)s, %(above)s::text[], %(up_to)s::text[], %(terms)s::bigint[],
    %(time_field)s, %(from_us)s, %(up_to_us)s, %(after_us)s, %(after)s::text[],
    %(is_falling)s, %(limit)s)
"""


class _Found(NamedTuple):
    """What the database found; all of it fits, unless texts share a number."""

    documents: list[Document]
    read_time_us: int


class EmbeddedQueries:
    """Answers queries.  Safe for concurrent use."""

    def __init__(self, database: Database) -> None:
        """Work on an open database, which stays the caller's to close."""
        self._database = database

    async def page(self, query: DocumentQuery) -> DocumentPage:
        """See `DocumentStore.query`."""
        refuse_unordered(query)
        narrowing = narrowed(query)
        if narrowing.is_whole and narrowing.is_ordered:
            found = await self._found(query, narrowing, **_cut(query))
            if len(_fitting(query, found.documents)) == len(found.documents):
                return DocumentPage(
                    documents=tuple(found.documents), read_time_us=found.read_time_us
                )
        found = await self._found(query, narrowing)
        documents = _in_order(query, _fitting(query, found.documents))
        return DocumentPage(
            documents=tuple(documents[: query.limit]), read_time_us=found.read_time_us
        )

    async def count(self, query: DocumentQuery) -> int:
        """See `DocumentStore.count_of`."""
        refuse_place(query)
        narrowing = narrowed(query)
        found = await self._found(query, narrowing)
        return min(len(_fitting(query, found.documents)), query.limit)

    async def _found(
        self,
        query: DocumentQuery,
        narrowing: Narrowing,
        *,
        after_us: int | None = None,
        after: list[str] | None = None,
        limit: int | None = None,
    ) -> _Found:
        """Find what may fit, in the query's order where that is by a time or by id."""
        parameters: dict[str, Any] = {
            **bounds_of_collection(collection_segments(query)),
            "terms": list(narrowing.terms) or None,
            "time_field": narrowing.time_field,
            "from_us": narrowing.from_us,
            "up_to_us": narrowing.up_to_us,
            "after_us": after_us,
            "after": after,
            "is_falling": query.is_falling,
            "limit": limit,
        }
        async with self._database.connection() as conn:
            cursor = await conn.execute(_FIND, parameters)
            [(read_time_us, *_), *rows] = await cursor.fetchall()
        documents = [
            Document(
                path=path,
                fields=decoded(fields),
                create_time_us=create_time_us,
                update_time_us=update_time_us,
            )
            for _, path, fields, create_time_us, update_time_us in rows
        ]
        return _Found(documents, read_time_us)


def _cut(query: DocumentQuery) -> dict[str, Any]:
    """Give where a page begins and how long it is, as the database takes it."""
    if query.after is None:
        return {"limit": query.limit}
    value, document_id = query.after
    return {
        "after_us": None if value is None else us_from_rfc3339(str(value["timestampValue"])),
        "after": [*query.collection.split("/"), document_id],
        "limit": query.limit,
    }


def _fitting(query: DocumentQuery, documents: Iterable[Document]) -> list[Document]:
    """Give those that are the query's, wherever its page begins and ends."""
    predicates = [predicate_of(condition) for condition in query.conditions]
    collection, order_by = query.collection, query.order_by
    return [
        document
        for document in documents
        if document.path.rpartition("/")[0] == collection
        and (order_by is None or value_at(document.fields, order_by) is not None)
        and all(holds(document.fields) for holds in predicates)
    ]


def _in_order(query: DocumentQuery, documents: list[Document]) -> list[Document]:
    """Give what follows the query's place, in the query's order."""
    placed = [(_place_of(query, document), document) for document in documents]
    if query.after is not None:
        value, document_id = query.after
        begin = (() if value is None else rank_of(value), document_id)
        placed = [p for p in placed if (p[0] < begin if query.is_falling else p[0] > begin)]
    placed.sort(key=lambda pair: pair[0], reverse=query.is_falling)
    return [document for _, document in placed]


def _place_of(query: DocumentQuery, document: Document) -> tuple[Rank, str]:
    """Give a document's place in the query's order."""
    document_id = document.path.rpartition("/")[2]
    if query.order_by is None:
        return (), document_id
    value = value_at(document.fields, query.order_by)
    assert value is not None  # `_fitting` has seen to that
    return rank_of(value), document_id
