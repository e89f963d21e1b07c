"""
What a query asks, answered for one document: Firestore's comparisons and its order of values.

For stores without queries of their own; and what every store refuses.  Pure: no I/O, no vendor
library.
"""

from __future__ import annotations

import base64
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, cast

from storemirror.clock import us_from_rfc3339
from storemirror.event.change import Fields, Value
from storemirror.source.port import Comparison, Condition, DocumentQuery

#: A value's place among all others; of two with the same first part, the type, the rest decides.
Rank: TypeAlias = tuple[Any, ...]

_NULL: Final = 0
#: Kind of value -> its type's place.  A number is an integer or a double.
_TYPES: Final[Mapping[str, int]] = {
    "nullValue": _NULL,
    "booleanValue": 1,
    "integerValue": 2,
    "doubleValue": 2,
    "timestampValue": 3,
    "stringValue": 4,
    "bytesValue": 5,
    "referenceValue": 6,
    "geoPointValue": 7,
    "arrayValue": 8,
    "mapValue": 9,
}
#: Stands before every number, and is found by no range.
_NAN: Final[Rank] = (2, 0)


def collection_segments(query: DocumentQuery) -> list[str]:
    """
    Split the path of a query's collection.

    Raises:
        ValueError: it is no collection's: an even number of segments, or an empty one.
    """
    segments = query.collection.split("/")
    if len(segments) % 2 == 0 or not all(segments):
        raise ValueError(f"{query.collection!r} is no collection's path")
    return segments


def refuse_unordered(query: DocumentQuery) -> None:
    """
    See that a page of the query's documents has an order.

    Raises:
        ValueError: an inequality is on another field than the one that orders.
    """
    for condition in query.conditions:
        if condition.comparison.is_inequality and condition.field != query.order_by:
            raise ValueError(
                f"{query.collection}: {condition.comparison.value} on "
                f"{'.'.join(condition.field)} needs the order by that field"
            )


def refuse_place(query: DocumentQuery) -> None:
    """
    See that a query that is counted begins at its beginning.

    Raises:
        ValueError: it has an `after`.
    """
    if query.after is not None:
        raise ValueError(f"{query.collection}: what is counted begins behind no document")


def ordered_fields(query: DocumentQuery) -> list[tuple[str, ...]]:
    """Give the fields along whose order an index finds the documents, each once."""
    fields = [c.field for c in query.conditions if c.comparison.is_inequality]
    if query.order_by is not None:
        fields.insert(0, query.order_by)
    return list(dict.fromkeys(fields))


def value_at(fields: Fields, field: Sequence[str]) -> Value | None:
    """
    Give the value of a field that may lie in maps; None when there is none.

    >>> value_at({"a": {"mapValue": {"fields": {"b": {"nullValue": None}}}}}, ("a", "b"))
    {'nullValue': None}
    """
    here: Fields = fields
    *outer, last = field
    for name in outer:
        inner = here.get(name, {}).get("mapValue")
        if inner is None:
            return None
        here = cast("Mapping[str, Fields]", inner)["fields"]
    return here.get(last)


def predicate_of(condition: Condition) -> Callable[[Fields], bool]:
    """
    Give what tells whether a condition holds for a document.

    >>> from storemirror.event.value import encode_fields, encode_value
    >>> is_less = predicate_of(
    ...     Condition(field=("n",), comparison=Comparison.LESS, value=encode_value(3))
    ... )
    >>> [is_less(encode_fields({"n": n})) for n in (2, 2.5, 3, "2")]
    [True, True, False, False]
    """
    wanted = rank_of(condition.value)
    compare = partial(_COMPARISONS[condition.comparison], wanted)
    field = condition.field

    def holds(fields: Fields) -> bool:
        value = value_at(fields, field)
        return value is not None and compare(value)

    return holds


def rank_of(value: Value) -> Rank:
    """
    Give a canonical value's place in Firestore's order.

    Equal values have one place, whatever their kind: 1 and 1.0, 0.0 and -0.0.

    >>> from storemirror.event.value import encode_value
    >>> ordered = [None, False, float("nan"), -1, 0.5, 1, "", "a", [], [1], {}]
    >>> ranks = [rank_of(encode_value(v)) for v in ordered]
    >>> ranks == sorted(ranks)
    True
    """
    kind, content = next(iter(value.items()))
    place = _TYPES[kind]
    part = _PARTS.get(kind)
    return (place,) if part is None else (place, *part(content))


def _is_equal(wanted: Rank, value: Value) -> bool:
    return rank_of(value) == wanted


def _is_other(wanted: Rank, value: Value) -> bool:
    return rank_of(value) not in ((_NULL,), wanted)


def _contains(wanted: Rank, value: Value) -> bool:
    return any(rank_of(item) == wanted for item in _items(value))


def _is_in_range(is_in: Callable[[Rank, Rank], bool], wanted: Rank, value: Value) -> bool:
    rank = rank_of(value)
    is_comparable = rank[0] == wanted[0] and _NAN not in (rank, wanted)
    return is_comparable and is_in(rank, wanted)


_COMPARISONS: Final[Mapping[Comparison, Callable[[Rank, Value], bool]]] = {
    Comparison.EQUAL: _is_equal,
    Comparison.NOT_EQUAL: _is_other,
    Comparison.LESS: partial(_is_in_range, operator.lt),
    Comparison.LESS_OR_EQUAL: partial(_is_in_range, operator.le),
    Comparison.GREATER: partial(_is_in_range, operator.gt),
    Comparison.GREATER_OR_EQUAL: partial(_is_in_range, operator.ge),
    Comparison.ARRAY_CONTAINS: _contains,
}


def _items(value: Value) -> Sequence[Value]:
    array = value.get("arrayValue")
    return cast("Mapping[str, Sequence[Value]]", array)["values"] if array is not None else ()


def _double(content: object) -> Rank:
    number = float(cast("float | str", content))
    return (0,) if math.isnan(number) else (1, number)


def _map(content: object) -> Rank:
    fields = cast("Mapping[str, Fields]", content)["fields"]
    return tuple((name, rank_of(fields[name])) for name in sorted(fields))


def _array(content: object) -> Rank:
    return tuple(rank_of(item) for item in _items({"arrayValue": content}))


def _geo_point(content: object) -> Rank:
    point = cast("Mapping[str, float]", content)
    return (point["latitude"], point["longitude"])


_PARTS: Final[Mapping[str, Callable[[Any], Rank]]] = {
    "booleanValue": lambda content: (content,),
    "integerValue": lambda content: (1, int(content)),
    "doubleValue": _double,
    "timestampValue": lambda content: (us_from_rfc3339(content),),
    "stringValue": lambda content: (content,),
    "bytesValue": lambda content: (base64.b64decode(content),),
    "referenceValue": lambda content: (content.split("/"),),
    "geoPointValue": _geo_point,
    "arrayValue": _array,
    "mapValue": _map,
}
