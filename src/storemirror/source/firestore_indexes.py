"""
The composite indexes that Firestore must have for queries, as `firestore.indexes.json` has them.

Firestore indexes every field by itself, unless told otherwise; what compares or orders by more
than one is refused until its index is there.  Google's emulator makes them up by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from google.cloud.firestore_v1.field_path import render_field_path

from storemirror.source.port import Comparison, DocumentQuery
from storemirror.source.queries import ordered_fields

#: One index, with the names of `firestore.indexes.json`.
CompositeIndex: TypeAlias = Mapping[str, object]


def composite_indexes(queries: Iterable[DocumentQuery]) -> list[CompositeIndex]:
    """
    Give the composite indexes that queries need, each once.

    Args:
        queries: of one collection, not falling by id; pages and what is counted alike.
    """
    found: list[CompositeIndex] = []
    for query in queries:
        index = _index_of(query)
        if index is not None and index not in found:
            found.append(index)
    return found


def _index_of(query: DocumentQuery) -> CompositeIndex | None:
    """Give the index that a query needs beside those of single fields; None: none."""
    direction = "DESCENDING" if query.is_falling else "ASCENDING"
    kinds: dict[tuple[str, ...], tuple[str, str]] = {}
    for condition in query.conditions:
        if condition.comparison is Comparison.ARRAY_CONTAINS:
            kinds[condition.field] = ("arrayConfig", "CONTAINS")
        elif condition.comparison is Comparison.EQUAL:
            kinds[condition.field] = ("order", "ASCENDING")
    ordered = ordered_fields(query)
    kinds.update((field, ("order", direction)) for field in ordered)
    if not ordered or len(kinds) < 2:
        return None
    return {
        "collectionGroup": query.collection.rpartition("/")[2],
        "queryScope": "COLLECTION",
        "fields": [
            {"fieldPath": render_field_path(field), name: content}
            for field, (name, content) in kinds.items()
        ],
    }
