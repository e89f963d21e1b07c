"""The writer's reading of a document and the checker's agree, whatever the document holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storemirror.check.compare import compare_document, is_same
from storemirror.check.decode import ExpectedRow, Undeliverable, decode_document
from storemirror.clock import LAST_US, datetime_from_us
from storemirror.errors import KeyRefused, MappingFailed
from storemirror.event.change import Fields, RowState
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.model.mapping import JsonScalar, MappedRow, check_key, map_document
from storemirror.model.types import ColumnType, DialectLimits
from storemirror.sql.port import MirrorRow
from tests.unit.check.samples import KEY, ORDER, PATH, POOREST, POSTGRES, VERSION, a_document

#: First microsecond of the year 1, since the Unix epoch.
FIRST_US = -62_135_596_800_000_000
TYPE_OF = {c.name: c.type for c in ORDER.columns}
TAG_TYPE_OF = {c.name: c.type for c in ORDER.children[0].columns}

texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["a", "b\0", "\ufffd", "c "]
)
doubles = st.floats() | st.sampled_from([-0.0, 1e16, 1e22, 5e-324, 1.7976931348623157e308])
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2**53, 2**53 + 1])
moments = st.builds(datetime_from_us, st.integers(FIRST_US, LAST_US))
places = st.builds(GeoPoint, *[st.floats(-180, 180)] * 2) | st.just(GeoPoint(-0.0, 1e-7))
references = st.builds(Reference, texts)
scalars = (
    st.none()
    | st.booleans()
    | integers
    | doubles
    | texts
    | st.binary(max_size=5)
    | moments
    | places
    | references
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
fitting = st.fixed_dictionaries(
    {"buyer": texts},
    optional={
        "note": texts | st.none(),
        "count": integers,
        "price": doubles | st.integers(-(2**53), 2**53),
        "isPaid": st.booleans(),
        "paidAt": moments,
        "proof": st.binary(max_size=5),
        "product": references,
        "place": places,
        "extra": values,
        "address": st.none() | st.fixed_dictionaries({}, optional={"home": st.just({"city": "x"})}),
        "tags": st.lists(st.sampled_from(["a", "b", "c "]), max_size=3),
        "weights": st.dictionaries(st.sampled_from("ab"), st.none() | doubles),
        "info": st.just({"labels": {"a": "\0"}}),
        "lines": st.dictionaries(texts, values, max_size=2),
    },
)
odd = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*TYPE_OF, "address", "tags", "weights", "info", "lines"], values)
)
documents = st.builds(lambda fits, breaks: fits | breaks, fitting, st.just({}) | odd)


def as_python(column_type: ColumnType, scalar: JsonScalar) -> object:
    """Read a column back as an ideal database would give it."""
    if scalar is None or isinstance(scalar, bool):
        return scalar
    match column_type:
        case ColumnType.INTEGER:
            return int(scalar)
        case ColumnType.DOUBLE:
            return float(scalar)
        case ColumnType.TIMESTAMP:
            return datetime.fromisoformat(scalar)
        case ColumnType.BYTES:
            return base64.b64decode(scalar)
        case ColumnType.JSON | ColumnType.GEOPOINT:
            return json.loads(scalar)
    return scalar


def stored(mapped: MappedRow) -> MirrorRow:
    """Give the row that an ideal database makes of what the writer hands it."""
    columns = {name: as_python(TYPE_OF[name], value) for name, value in mapped.columns.items()}
    title = columns["buyer"] if columns["note"] is None else columns["note"]
    return MirrorRow(
        key=KEY,
        state=RowState.LIVE,
        version=VERSION,
        mapping_revision=1,
        digest="",
        lossy_fields=mapped.lossy_fields,
        columns=columns | {"title": title},
        children={
            "OrderTag": _children(mapped, "OrderTag", "tag"),
            "OrderLine": _children(mapped, "OrderLine", "line"),
        },
        raw=mapped.raw,
    )


def _children(mapped: MappedRow, table: str, key: str) -> dict[str, Mapping[str, object]]:
    return {
        cast("str", row[key]): {
            name: as_python(TAG_TYPE_OF[name], value) for name, value in row.items() if name != key
        }
        for row in mapped.children[table]
    }


@pytest.mark.parametrize("limits", [POSTGRES, POOREST], ids=["postgres", "poorest"])
@settings(max_examples=400, deadline=None)
@given(document=documents)
@example(document={"buyer": "a", "extra": [1e22, 1e300, -1e16, 2**63 - 1, True, 1, 1.0]})
@example(document={"buyer": "a", "price": float("nan"), "tags": ["a"], "weights": {"a": -0.0}})
def test_both_readings_of_a_document_agree(
    limits: DialectLimits, document: dict[str, object]
) -> None:
    """They were written apart; where they part, one of them is wrong."""
    fields: Fields = encode_fields(document)
    expected = decode_document(ORDER, KEY, fields, limits)
    try:
        mapped = map_document(ORDER, fields, limits)
    except MappingFailed:
        assert isinstance(expected, Undeliverable)
        return
    assert isinstance(expected, ExpectedRow)
    assert compare_document(ORDER, KEY, a_document(fields), stored(mapped), limits) == []


@pytest.mark.parametrize("limits", [POSTGRES, POOREST], ids=["postgres", "poorest"])
@settings(deadline=None)
@given(key=st.tuples(texts, texts | st.text("x", min_size=7, max_size=9)))
def test_both_readings_of_a_key_agree(limits: DialectLimits, key: tuple[str, str]) -> None:
    """A key that one takes and the other refuses is a row nobody accounts for."""
    expected = decode_document(ORDER, key, encode_fields({"buyer": "a"}), limits)
    try:
        check_key(ORDER, key, limits)
    except KeyRefused:
        assert isinstance(expected, Undeliverable)
        return
    assert isinstance(expected, ExpectedRow)


def test_the_ideal_database_shows_damage() -> None:
    """The property above would hold of anything if the comparison never failed."""
    fields = encode_fields({"buyer": "a", "count": 1})
    mapped = map_document(ORDER, fields, POSTGRES)
    damaged = MappedRow(
        columns={**mapped.columns, "count": "2"},
        children=mapped.children,
        raw=mapped.raw,
        lossy_fields=(),
    )
    [mismatch] = compare_document(ORDER, KEY, a_document(fields), stored(damaged), POSTGRES)
    assert (mismatch.path, mismatch.field) == (PATH, "count")
    assert not is_same(1, 2)
