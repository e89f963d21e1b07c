"""Strategies for documents, as Python values and as REST `Value` JSON of a foreign sender."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from storemirror.event.value import GeoPoint, Reference

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MOMENT = st.datetimes(
    datetime(1, 1, 1),  # noqa: DTZ001 - hypothesis adds the time zone
    datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    timezones=st.just(UTC),
)
COORDINATE = st.floats(-90, 90)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    INT64,
    st.floats(),
    TEXT,
    st.binary(max_size=20),
    MOMENT,
    st.builds(Reference, TEXT),
    st.builds(GeoPoint, COORDINATE, COORDINATE),
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
#: A document as a program has it: field name -> Python value.
DOCUMENT: st.SearchStrategy[dict[str, object]] = st.dictionaries(TEXT, VALUE, max_size=5)
