"""Whatever a document holds: the mapping gives a row that keeps it, or refuses by the rules."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storemirror.clock import rfc3339_from_us, us_from_datetime
from storemirror.errors import MappingFailed
from storemirror.event.value import encode_fields
from storemirror.model.entity import ChildTable, Column, Entity, KeyPart
from storemirror.model.mapping import MappedRow, map_document
from storemirror.model.types import ColumnType, DialectLimits

ALL = DialectLimits(
    holds_nul=True, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)
NOTHING = DialectLimits(
    holds_nul=False, holds_nan=False, holds_negative_zero=False, ignores_trailing_space=True
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - a bound is naive
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | TEXT | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def entity_of(kind: ColumnType) -> Entity:
    """Give an entity with one column, and a child table from the field `members`."""
    return Entity(
        name="Thing",
        check="things",
        path=("things", "{thingId}"),
        category="things",
        has_audit=False,
        has_raw=False,
        keys=(KeyPart(name="thingId"),),
        columns=(Column(name="value", type=kind, field=("value",)),),
        children=(ChildTable(name="ThingMember", key=KeyPart(name="userId"), field=("members",)),),
        digest="",
    )


def row_of(kind: ColumnType, value: object, limits: DialectLimits = ALL) -> MappedRow:
    """Map a document with this one value."""
    return map_document(entity_of(kind), encode_fields({"value": value}), limits)


def read_time(text: str) -> datetime:
    """Read a time back as Python has it."""
    return datetime.fromisoformat(text)


BACK: list[tuple[ColumnType, st.SearchStrategy[Any], Callable[[Any], object]]] = [
    (ColumnType.STRING, TEXT, str),
    (ColumnType.TEXT, TEXT, str),
    (ColumnType.INTEGER, INT64, int),
    (ColumnType.BOOLEAN, st.booleans(), bool),
    (ColumnType.TIMESTAMP, TIMES, read_time),
    (ColumnType.BYTES, st.binary(), base64.b64decode),
    (ColumnType.DOUBLE, st.floats(allow_nan=False), float),
]


@pytest.mark.parametrize(("kind", "values", "back"), BACK, ids=[k.value for k, _, _ in BACK])
@given(data=st.data())
def test_a_value_comes_back_as_it_was(
    kind: ColumnType,
    values: st.SearchStrategy[Any],
    back: Callable[[Any], object],
    data: st.DataObject,
) -> None:
    """Where a database holds everything nothing may be lost on the way."""
    value = data.draw(values)
    row = row_of(kind, value)
    assert back(row.columns["value"]) == value
    assert row.lossy_fields == ()


@given(TIMES)
def test_a_time_keeps_its_microseconds(value: datetime) -> None:
    """Milliseconds would make two writes look like one."""
    row = row_of(ColumnType.TIMESTAMP, value)
    assert row.columns["value"] == rfc3339_from_us(us_from_datetime(value))


@given(INT64)
def test_an_integer_in_a_double_column_is_exact_or_refused(value: int) -> None:
    """Never another number."""
    try:
        row = row_of(ColumnType.DOUBLE, value)
    except MappingFailed:
        assert int(float(value)) != value
    else:
        assert int(float(str(row.columns["value"]))) == value


@given(st.floats())
def test_a_double_that_is_not_lossy_is_exact_everywhere(value: float) -> None:
    """`LossyFields` is what the checker goes by."""
    row = row_of(ColumnType.DOUBLE, value, NOTHING)
    column = row.columns["value"]
    if row.lossy_fields:
        assert math.isnan(value) or math.isinf(value) or math.copysign(1, value) < 0
        return
    assert float(str(column)) == value
    assert math.copysign(1, float(str(column))) == math.copysign(1, value)


@given(TEXT)
def test_text_without_nul_is_kept_and_with_nul_is_named(value: str) -> None:
    """Nothing else in a string is touched."""
    row = row_of(ColumnType.TEXT, value, NOTHING)
    assert row.columns["value"] == value.replace("\0", "\ufffd")
    assert bool(row.lossy_fields) is ("\0" in value)


def holds_negative_zero(value: object) -> bool:
    """Tell whether a -0.0 is anywhere in a value."""
    if isinstance(value, float):
        return value == 0 and math.copysign(1, value) < 0
    if isinstance(value, list):
        return any(holds_negative_zero(item) for item in value)
    return isinstance(value, dict) and any(holds_negative_zero(v) for v in value.values())


@given(JSON.filter(lambda value: value is not None))
def test_json_comes_back_as_it_was(value: object) -> None:
    """-0.0 equals 0.0 in Python, and is named as lossy."""
    row = row_of(ColumnType.JSON, value)
    assert json.loads(str(row.columns["value"])) == value
    assert bool(row.lossy_fields) is holds_negative_zero(value)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=130), max_size=6))
def test_children_are_the_distinct_elements_in_order(members: list[str]) -> None:
    """Or none of them: half a list of participants would be worse than a dead letter."""
    fields = encode_fields({"members": members})
    are_keys = all(0 < len(m) <= 128 and "\0" not in m for m in members)
    if not are_keys:
        with pytest.raises(MappingFailed):
            map_document(entity_of(ColumnType.TEXT), fields, ALL)
        return
    row = map_document(entity_of(ColumnType.TEXT), fields, ALL)
    keys = [child["userId"] for child in row.children["ThingMember"]]
    assert keys == list(dict.fromkeys(members))
