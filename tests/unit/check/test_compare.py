"""Every kind of mismatch, planted and named; and a clean pair that passes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import pytest

from storemirror.check.compare import Mismatch, MismatchKind, compare_document, is_same
from storemirror.event.change import Fields, RowState
from storemirror.event.value import encode_fields
from storemirror.model.entity import Entity
from storemirror.source.port import Document
from storemirror.sql.port import MirrorRow
from tests.unit.check.samples import (
    KEY,
    MOMENT,
    ORDER,
    PATH,
    POSTGRES,
    VERSION,
    a_document,
    a_row,
    full_children,
    full_columns,
    full_fields,
)

RAW = json.dumps(full_fields())


def found(
    document: Document | None, row: MirrorRow | None, entity: Entity = ORDER
) -> list[tuple[MismatchKind, str]]:
    """Compare, and give kind and field of each mismatch."""
    mismatches = compare_document(entity, KEY, document, row, POSTGRES)
    return [(mismatch.kind, mismatch.field) for mismatch in mismatches]


def test_a_clean_pair_passes() -> None:
    """A checker that accuses the innocent is switched off within a week."""
    assert found(a_document(), a_row(raw=RAW)) == []


def test_nothing_on_either_side_passes() -> None:
    """A document that never was has no row."""
    assert found(None, None) == []


@pytest.mark.parametrize("state", [RowState.TOMBSTONE, RowState.STUB])
def test_tombstone_and_stub_count_as_absent(state: RowState) -> None:
    """Both stand for a document that does not exist."""
    row = a_row(state=state, columns={"buyer": None}, children={}, raw=None)
    assert found(None, row) == []


def test_a_mismatch_names_document_entity_and_versions() -> None:
    """Whoever reads it must find the document and the row without searching."""
    assert compare_document(ORDER, KEY, a_document(), None, POSTGRES) == [
        Mismatch(
            kind=MismatchKind.MISSING_ROW,
            entity="ShopOrder",
            path=PATH,
            field="",
            document_version=VERSION,
            row_version=None,
        )
    ]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (None, MismatchKind.MISSING_ROW),
        (a_row(state=RowState.STUB, raw=None), MismatchKind.MISSING_ROW),
        (a_row(state=RowState.TOMBSTONE, raw=None), MismatchKind.TOMBSTONE),
        (a_row(version=VERSION - 2, raw=RAW), MismatchKind.OLDER_ROW),
        (a_row(version=VERSION + 1, raw=RAW), MismatchKind.NEWER_ROW),
    ],
    ids=["no row", "stub", "tombstone", "older", "newer"],
)
def test_a_row_of_another_state_or_version_is_one_mismatch(
    row: MirrorRow | None, kind: MismatchKind
) -> None:
    """Its fields are another commit's; naming them one by one would bury the cause."""
    assert found(a_document(), row) == [(kind, "")]


def test_a_live_row_of_a_gone_document_is_named() -> None:
    """A missed delete: the user sees a message that its author took back."""
    row = a_row(raw=RAW)
    assert found(None, row) == [(MismatchKind.ROW_OF_GONE_DOCUMENT, "")]
    [mismatch] = compare_document(ORDER, KEY, None, row, POSTGRES)
    assert (mismatch.document_version, mismatch.row_version) == (None, VERSION)


def test_contents_left_in_a_tombstone_are_named() -> None:
    """A delete must erase; what stays behind is a promise broken to the user."""
    row = a_row(
        state=RowState.TOMBSTONE,
        columns={"note": "x"},
        children={"OrderTag": {"b": {}, "a": {}}},
        raw="{}",
    )
    left = MismatchKind.CONTENTS_LEFT
    assert found(None, row) == [
        (left, "note"),
        (left, "OrderTag[a]"),
        (left, "OrderTag[b]"),
        (left, "raw"),
    ]


DAMAGED: Mapping[str, object] = {
    "buyer": "bob",
    "note": None,
    "count": 2**62 + 1,
    "price": 12.500000000000002,
    "isPaid": 1,
    "paidAt": datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=MOMENT.tzinfo),
    "proof": b"\x00",
    "product": "projects/p/databases/d/documents/products/2",
    "place": {"latitude": 47.5, "longitude": 8},
    "extra": {"a": [], "b": {}},
    "city": "bern",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_column_is_named(name: str) -> None:
    """Same version, other contents: what no count and no version can show."""
    entity = dataclasses.replace(ORDER, derived=())
    row = a_row(columns=full_columns() | {name: DAMAGED[name]}, raw=RAW)
    assert found(a_document(), row, entity) == [(MismatchKind.FIELD_DIFFERS, name)]


def test_a_column_that_the_row_does_not_have_is_named() -> None:
    """A null that is expected must be there, not merely not be contradicted."""
    columns = full_columns() | {"title": "ring twice"}
    del columns["city"]
    fields = {name: value for name, value in full_fields().items() if name != "address"}
    row = a_row(columns=columns, raw=json.dumps(fields))
    assert found(a_document(fields), row) == [(MismatchKind.FIELD_DIFFERS, "city")]


def test_a_derived_column_is_the_first_of_its_sources() -> None:
    """The inbox is sorted by such a column."""
    row = a_row(columns=full_columns() | {"title": "ann"}, raw=RAW)
    assert found(a_document(), row) == [(MismatchKind.FIELD_DIFFERS, "title")]


def test_child_rows_are_named_by_their_key() -> None:
    """A participant too few is a conversation that vanished from an inbox."""
    children = full_children()
    del children["OrderTag"]["new"]
    children["OrderTag"]["old"] = {"weight": None, "label": None}
    children["OrderTag"]["red"]["weight"] = 2.0
    del children["OrderTag"]["red"]["label"]
    row = a_row(children=children, raw=RAW)
    assert found(a_document(), row) == [
        (MismatchKind.CHILD_MISSING, "OrderTag[new]"),
        (MismatchKind.CHILD_EXTRA, "OrderTag[old]"),
        (MismatchKind.CHILD_DIFFERS, "OrderTag[red].weight"),
        (MismatchKind.CHILD_DIFFERS, "OrderTag[red].label"),
    ]


def test_a_child_table_that_the_row_does_not_have_counts_as_empty() -> None:
    """Then every expected child is missing."""
    children = full_children()
    del children["OrderLine"]
    missing = MismatchKind.CHILD_MISSING
    row = a_row(children=children, raw=RAW)
    assert found(a_document(), row) == [(missing, "OrderLine[l1]"), (missing, "OrderLine[l2]")]


def test_lossy_fields_too_many_and_too_few_are_named() -> None:
    """A row that hides a loss, or claims one, misleads whoever trusts `LossyFields`."""
    fields: Fields = {**full_fields(), **encode_fields({"note": "a\0"})}
    columns = full_columns() | {"note": "a\ufffd", "title": "a\ufffd"}
    row = a_row(columns=columns, lossy_fields=("city",), raw=json.dumps(fields))
    assert found(a_document(fields), row) == [
        (MismatchKind.LOSSY_FIELDS_DIFFER, "city"),
        (MismatchKind.LOSSY_FIELDS_DIFFER, "note"),
    ]


@pytest.mark.parametrize(
    "raw",
    [None, "{}", "no json", "[" * 100_000, RAW.replace("12.5", "12.0")],
    ids=lambda r: str(r)[:9],
)
def test_a_raw_document_that_differs_is_named(raw: str | None) -> None:
    """It is kept so that nothing of a document is ever lost."""
    assert found(a_document(), a_row(raw=raw)) == [(MismatchKind.RAW_DIFFERS, "raw")]


def test_a_raw_document_nobody_asked_for_is_named() -> None:
    """It would hold contents that the declaration does not mirror."""
    entity = dataclasses.replace(ORDER, has_raw=False)
    assert found(a_document(), a_row(raw=RAW), entity) == [(MismatchKind.RAW_DIFFERS, "raw")]
    assert found(a_document(), a_row(raw=None), entity) == []


def test_raw_keeps_nan_and_negative_zero() -> None:
    """Raw is lossless: the sign of a zero is compared as well."""
    fields = encode_fields({"buyer": "ann", "price": -0.0, "extra": [math.nan]})
    expected = {
        **dict.fromkeys(full_columns()),
        "buyer": "ann",
        "price": -0.0,
        "extra": [None],
        "title": "ann",
    }
    row = a_row(columns=expected, children={}, lossy_fields=("extra",), raw=json.dumps(fields))
    assert found(a_document(fields), row) == []
    damaged = dataclasses.replace(row, raw=cast("str", row.raw).replace("-0.0", "0.0"))
    assert found(a_document(fields), damaged) == [(MismatchKind.RAW_DIFFERS, "raw")]


@pytest.mark.parametrize("row", [None, a_row(version=VERSION - 2, raw=RAW)], ids=["none", "older"])
def test_an_undeliverable_document_is_named_with_its_field(row: MirrorRow | None) -> None:
    """There should be a dead letter; an older row may well be there."""
    fields: Fields = encode_fields({"buyer": 1})
    assert found(a_document(fields), row) == [(MismatchKind.UNDELIVERABLE, "buyer")]


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        (1, 1),
        (None, None),
        (math.nan, -math.nan),
        (1e16, 10**16),
        (1e23, 10**23),
        (-1e300, -(10**300)),
        ({"a": [1, {"b": 2.0}], "c": None}, {"c": None, "a": [1, {"b": 2.0}]}),
    ],
    ids=str,
)
def test_equal_values_are_the_same(expected: object, shown: object) -> None:
    """PostgreSQL's jsonb shows doubles from 1e16 on without exponent, and so as integers."""
    assert is_same(expected, shown)


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        (1, 1.0),
        (1.0, 1),
        (1, True),
        (True, 1),
        (0.0, -0.0),
        (0.0, None),
        (None, 0),
        (1e15, 10**15),
        (1e16, 10**16 + 2),
        (math.inf, 10**400),
        (math.nan, 10**20),
        ("a", b"a"),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ([1], {"0": 1}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, [["a", 1]]),
        (MOMENT, MOMENT.isoformat()),
        (MOMENT, MOMENT.replace(tzinfo=None)),
    ],
    ids=str,
)
def test_values_of_another_type_or_bit_are_not_the_same(expected: object, shown: object) -> None:
    """1, 1.0 and true are three things in Firestore, and must be in SQL."""
    assert not is_same(expected, shown)


def test_a_mismatch_has_no_place_for_contents() -> None:
    """Results are archived and printed; a user's message must not end up there."""
    fields = full_fields()
    shown: dict[str, object] = dict.fromkeys(full_columns(), "secret-of-the-row")
    row = a_row(columns=shown, children={}, raw='"secret-of-the-row"')
    text = repr(compare_document(ORDER, KEY, a_document(fields), row, POSTGRES))
    assert "secret" not in text
    assert "ring twice" not in text
    assert "Bern" not in text


@pytest.mark.parametrize(
    ("mismatch", "line"),
    [
        (
            Mismatch(
                kind=MismatchKind.MISSING_ROW, entity="ShopOrder", path=PATH, document_version=20
            ),
            "ShopOrder shops/s1/orders/o1: missing row"
            " (version of the document 20, of the row none)",
        ),
        (
            Mismatch(
                kind=MismatchKind.ROLLUP_DIFFERS, entity="ShopOrder", path=PATH, field="count"
            ),
            "ShopOrder shops/s1/orders/o1 count: roll-up differs",
        ),
    ],
    ids=["versions differ", "no versions"],
)
def test_a_mismatch_reads_as_one_line(mismatch: Mismatch, line: str) -> None:
    """It is what the operator sees."""
    assert str(mismatch) == line
