"""Queries as Firestore takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.field_path import render_field_path

from storemirror.source.firestore_values import Proto, fill_value
from storemirror.source.port import Comparison, Condition, DocumentQuery
from storemirror.source.queries import ordered_fields

_Field: Final = types.StructuredQuery.FieldFilter.Operator
_Unary: Final = types.StructuredQuery.UnaryFilter.Operator
_Direction: Final = types.StructuredQuery.Direction

#: A document's own name, as a field.
NAME_FIELD: Final = "__name__"
_OPERATORS: Final[Mapping[Comparison, int]] = {
    Comparison.EQUAL: _Field.EQUAL,
    Comparison.NOT_EQUAL: _Field.NOT_EQUAL,
    Comparison.LESS: _Field.LESS_THAN,
    Comparison.LESS_OR_EQUAL: _Field.LESS_THAN_OR_EQUAL,
    Comparison.GREATER: _Field.GREATER_THAN,
    Comparison.GREATER_OR_EQUAL: _Field.GREATER_THAN_OR_EQUAL,
    Comparison.ARRAY_CONTAINS: _Field.ARRAY_CONTAINS,
}
#: Comparisons with null and with NaN have operators of their own.
_WITH_NULL: Final[Mapping[Comparison, int]] = {
    Comparison.EQUAL: _Unary.IS_NULL,
    Comparison.NOT_EQUAL: _Unary.IS_NOT_NULL,
}
_WITH_NAN: Final[Mapping[Comparison, int]] = {
    Comparison.EQUAL: _Unary.IS_NAN,
    Comparison.NOT_EQUAL: _Unary.IS_NOT_NAN,
}


def page_query(query: DocumentQuery, name_of: Callable[[str], str]) -> Proto:
    """
    Give the bare `StructuredQuery` message that reads a page.

    Args:
        query: inequalities on the ordered field alone (`queries.refuse_unordered`).
        name_of: gives the resource name of a document's path.
    """
    structured = _selection(query)
    fields = [NAME_FIELD]
    if query.order_by is not None:
        fields.insert(0, render_field_path(query.order_by))
    for field in fields:
        order = structured.order_by.add()
        order.field.field_path = field
        order.direction = _Direction.DESCENDING if query.is_falling else _Direction.ASCENDING
    if query.after is not None:
        value, document_id = query.after
        structured.start_at.before = False
        if value is not None:
            fill_value(structured.start_at.values.add(), value)
        name = name_of(f"{query.collection}/{document_id}")
        structured.start_at.values.add().reference_value = name
    structured.limit.value = query.limit
    return structured


def count_query(query: DocumentQuery) -> Proto:
    """
    Give the bare `StructuredQuery` message that finds what is counted.

    The order decides which index is gone along, and how many entries of it are looked at: that of
    the ordered field, then those of the inequalities as they come.
    """
    structured = _selection(query)
    for field in ordered_fields(query):
        order = structured.order_by.add()
        order.field.field_path = render_field_path(field)
        order.direction = _Direction.ASCENDING
    return structured


def _selection(query: DocumentQuery) -> Proto:
    """Give a query with collection and conditions."""
    structured = types.StructuredQuery.pb()()
    structured.from_.add().collection_id = query.collection.rpartition("/")[2]
    if query.conditions:
        together = structured.where.composite_filter
        together.op = types.StructuredQuery.CompositeFilter.Operator.AND
        for condition in query.conditions:
            _fill_filter(together.filters.add(), condition)
    return structured


def _fill_filter(target: Proto, condition: Condition) -> None:
    field, comparison, value = condition.field, condition.comparison, condition.value
    unary: Mapping[Comparison, int] = {}
    if "nullValue" in value:
        unary = _WITH_NULL
    elif value.get("doubleValue") == "NaN":
        unary = _WITH_NAN
    if comparison in unary:
        target.unary_filter.field.field_path = render_field_path(field)
        target.unary_filter.op = unary[comparison]
        return
    target.field_filter.field.field_path = render_field_path(field)
    target.field_filter.op = _OPERATORS[comparison]
    fill_value(target.field_filter.value, value)
