"""
What the embedded store writes down beside a document, so that queries need not read them all.

Terms: one number for each element of an array that is a text, for each field whose text may be an
id or a word, and for each field in a map, since maps may have ids for names.  Times: every field
that is a time.  A query that asks for a term or a range of
times is answered by the database; what it then finds is compared in full, for two texts may share
a number.  Pure: no I/O, no vendor library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from storemirror.clock import us_from_rfc3339
from storemirror.event.change import Fields
from storemirror.source.port import Comparison, Condition, DocumentQuery

#: Longest text, in code points, that is taken for an id or a word: an index of whole messages
#: would cost more than it spares.
_WORD_MAX_LENGTH: Final = 128
#: Between the parts of what a number is made of, and the names of a field in a map.
_SEPARATOR: Final = "\x1f"
#: What a term says of a field.
_IS_EQUAL: Final = "=="
_CONTAINS: Final = "array-contains"
_IS_THERE: Final = "is there"
_MIN_US: Final = -(2**63)
_MAX_US: Final = 2**63 - 1

_ENCODER: Final = msgspec.json.Encoder()


class Index(NamedTuple):
    """What is written down beside one document, as PostgreSQL takes it."""

    #: Of `bigint[]`: "{1,2}".
    terms: str
    #: Of `jsonb`: field -> microseconds since the Unix epoch.
    times: str


class Narrowing(NamedTuple):
    """What of a query the database can answer."""

    #: A document has all of them; empty: no term is asked for.
    terms: Sequence[int]
    #: Field that is a time, as it is written down; None: no time is asked for.
    time_field: str | None
    #: Bounds of that time, both included.
    from_us: int
    up_to_us: int
    #: Whether that is all that is asked for.
    is_whole: bool
    #: Whether the order that is asked for is by this time, or by id.
    is_ordered: bool


def index_of(path: str, fields: Fields) -> Index:
    """
    Give what is written down beside a document.

    >>> index_of("users/a", {"bornAt": {"timestampValue": "1970-01-01T00:00:00.000001Z"}}).times
    '{"bornAt":1}'
    """
    terms: set[int] = set()
    times: dict[str, int] = {}
    _gather(path.rpartition("/")[0], (), fields, terms, times)
    return Index(
        terms=f"{{{','.join(map(str, sorted(terms)))}}}", times=_ENCODER.encode(times).decode()
    )


def narrowed(query: DocumentQuery) -> Narrowing:
    """Tell what of a query the database can answer by what is written down."""
    terms: list[int] = []
    if query.order_by is not None and len(query.order_by) > 1:
        # Documents without the field are left out.
        terms.append(_term(query.collection, _IS_THERE, query.order_by, ""))
    is_whole = True
    time_field: tuple[str, ...] | None = None
    low_us, high_us = _MIN_US, _MAX_US
    # A range on the ordered field first: with it the database can put in order too.
    for condition in sorted(query.conditions, key=lambda c: c.field != query.order_by):
        term = _term_of(query.collection, condition)
        bounds = _bounds_of(condition)
        if term is not None:
            terms.append(term)
        elif bounds is not None and time_field in (None, condition.field):
            time_field = condition.field
            low_us, high_us = max(low_us, bounds[0]), min(high_us, bounds[1])
        else:
            is_whole = False
    return Narrowing(
        terms=terms,
        time_field=None if time_field is None else _time_field(time_field),
        from_us=low_us,
        up_to_us=high_us,
        is_whole=is_whole,
        is_ordered=time_field == query.order_by and _is_plain(query),
    )


def _is_plain(query: DocumentQuery) -> bool:
    """Tell whether the place behind which a query begins is a time's, as all it finds."""
    if query.after is None or query.after[0] is None:
        return True
    return "timestampValue" in query.after[0]


def _gather(
    collection: str,
    outer: tuple[str, ...],
    fields: Fields,
    terms: set[int],
    times: dict[str, int],
) -> None:
    """Add the terms and times of a document's fields, those in maps as well."""
    content: Any
    for name, value in fields.items():
        for kind, content in value.items():
            if outer:
                terms.add(_term(collection, _IS_THERE, (*outer, name), ""))
            if kind == "stringValue" and _is_word(content):
                terms.add(_term(collection, _IS_EQUAL, (*outer, name), content))
            elif kind == "timestampValue":
                time_field = _time_field((*outer, name))
                if time_field is not None:
                    times[time_field] = us_from_rfc3339(content)
            elif kind == "arrayValue":
                field = (*outer, name)
                texts = [v["stringValue"] for v in content["values"] if "stringValue" in v]
                terms.update([_term(collection, _CONTAINS, field, text) for text in texts])
            elif kind == "mapValue":
                _gather(collection, (*outer, name), content["fields"], terms, times)


def _is_word(text: str) -> bool:
    return len(text) <= _WORD_MAX_LENGTH and " " not in text


def _term(collection: str, kind: str, field: tuple[str, ...], text: str) -> int:
    """Give the number that stands for a text in a field of a collection's documents."""
    whole = _SEPARATOR.join((collection, kind, *field, text))
    digest = hashlib.blake2b(whole.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _term_of(collection: str, condition: Condition) -> int | None:
    """Give the term that a condition asks for; None when it asks for none."""
    text = condition.value.get("stringValue")
    if not isinstance(text, str):
        return None
    is_indexed = condition.comparison is Comparison.ARRAY_CONTAINS or (
        condition.comparison is Comparison.EQUAL and _is_word(text)
    )
    if not is_indexed:
        return None
    kind = _CONTAINS if condition.comparison is Comparison.ARRAY_CONTAINS else _IS_EQUAL
    return _term(collection, kind, condition.field, text)


def _bounds_of(condition: Condition) -> tuple[int, int] | None:
    """Give the bounds, both included, that a condition sets to a time; None when it sets none."""
    text = condition.value.get("timestampValue")
    if not isinstance(text, str) or _time_field(condition.field) is None:
        return None
    time_us = us_from_rfc3339(text)
    match condition.comparison:
        case Comparison.EQUAL:
            return time_us, time_us
        case Comparison.LESS:
            return _MIN_US, time_us - 1
        case Comparison.LESS_OR_EQUAL:
            return _MIN_US, time_us
        case Comparison.GREATER:
            return time_us + 1, _MAX_US
        case Comparison.GREATER_OR_EQUAL:
            return time_us, _MAX_US
    return None


def _time_field(field: tuple[str, ...]) -> str | None:
    """Spell a field as it is written down; None: `jsonb` cannot hold it, or two would be one."""
    name = _SEPARATOR.join(field)
    if "\0" in name or name.count(_SEPARATOR) > len(field) - 1:
        return None
    return name
