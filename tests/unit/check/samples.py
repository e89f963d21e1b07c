"""A declaration with every type of column, a document that fills it, and its row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from storemirror.event.change import Fields, RowState
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.model.entity import (
    ChildColumn,
    ChildTable,
    Column,
    DerivedColumn,
    Entity,
    KeyPart,
)
from storemirror.model.types import ColumnType, DialectLimits
from storemirror.source.port import Document
from storemirror.sql.port import MirrorRow

POSTGRES: Final = DialectLimits(
    holds_nul=False, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)
#: A database that holds as little as any.
POOREST: Final = DialectLimits(
    holds_nul=False, holds_nan=False, holds_negative_zero=False, ignores_trailing_space=True
)
#: A database that holds everything.
RICHEST: Final = DialectLimits(
    holds_nul=True, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)

UPDATE_TIME_US: Final = 1_000
VERSION: Final = 2_000
MOMENT: Final = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def column(name: str, column_type: ColumnType, *, is_required: bool = False) -> Column:
    """Declare a column that comes from the field of its own name."""
    return Column(name=name, type=column_type, is_required=is_required, field=(name,))


ORDER: Final = Entity(
    name="ShopOrder",
    check="orders",
    path=("shops", "{shopId}", "orders", "{orderId}"),
    category="sqlMirror",
    has_audit=False,
    has_raw=True,
    keys=(KeyPart(name="shopId"), KeyPart(name="orderId", max_length=8)),
    columns=(
        column("buyer", ColumnType.STRING, is_required=True),
        column("note", ColumnType.TEXT),
        column("count", ColumnType.INTEGER),
        column("price", ColumnType.DOUBLE),
        column("isPaid", ColumnType.BOOLEAN),
        column("paidAt", ColumnType.TIMESTAMP),
        column("proof", ColumnType.BYTES),
        column("product", ColumnType.REFERENCE),
        column("place", ColumnType.GEOPOINT),
        column("extra", ColumnType.JSON),
        Column(name="city", type=ColumnType.STRING, field=("address", "home", "city")),
    ),
    children=(
        ChildTable(
            name="OrderTag",
            key=KeyPart(name="tag", max_length=8),
            field=("tags",),
            columns=(
                ChildColumn(name="weight", type=ColumnType.DOUBLE, from_map=("weights",)),
                ChildColumn(name="label", type=ColumnType.STRING, from_map=("info", "labels")),
            ),
        ),
        ChildTable(name="OrderLine", key=KeyPart(name="line"), field=("lines",)),
    ),
    derived=(DerivedColumn(name="title", type=ColumnType.TEXT, sources=("note", "buyer")),),
    digest="",
)
KEY: Final = ("s1", "o1")
PATH: Final = "shops/s1/orders/o1"


def full_fields() -> Fields:
    """Give a document in which every field is there."""
    return encode_fields(
        {
            "buyer": "ann",
            "note": "ring twice",
            "count": 2**62,
            "price": 12.5,
            "isPaid": True,
            "paidAt": MOMENT,
            "proof": b"\x00\xff",
            "product": Reference("projects/p/databases/d/documents/products/1"),
            "place": GeoPoint(47.5, 8.0),
            "extra": {"a": [1, 1.0, "x", None, True, MOMENT, b"ab"], "b": {}},
            "address": {"home": {"city": "Bern"}},
            "tags": ["new", "red", "new"],
            "weights": {"red": 2.5, "unused": 1.0},
            "info": {"labels": {"new": "New!"}},
            "lines": {"l1": True, "l2": None},
        }
    )


def a_document(fields: Fields | None = None, *, update_time_us: int = UPDATE_TIME_US) -> Document:
    """Give the document, with these fields or in full."""
    return Document(
        path=PATH,
        fields=full_fields() if fields is None else fields,
        create_time_us=1,
        update_time_us=update_time_us,
    )


def full_columns() -> dict[str, object]:
    """Give the declared columns of the full document's row, written out by hand."""
    return {
        "buyer": "ann",
        "note": "ring twice",
        "count": 2**62,
        "price": 12.5,
        "isPaid": True,
        "paidAt": MOMENT,
        "proof": b"\x00\xff",
        "product": "projects/p/databases/d/documents/products/1",
        "place": {"latitude": 47.5, "longitude": 8.0},
        "extra": {
            "a": [1, 1.0, "x", None, True, "2026-03-01T12:00:00.123456Z", "YWI="],
            "b": {},
        },
        "city": "Bern",
    }


def full_children() -> dict[str, dict[str, dict[str, object]]]:
    """Give the child rows of the full document, written out by hand."""
    return {
        "OrderTag": {
            "new": {"weight": None, "label": "New!"},
            "red": {"weight": 2.5, "label": None},
        },
        "OrderLine": {"l1": {}, "l2": {}},
    }


def a_row(
    *,
    state: RowState = RowState.LIVE,
    version: int = VERSION,
    columns: dict[str, object] | None = None,
    children: dict[str, dict[str, dict[str, object]]] | None = None,
    lossy_fields: tuple[str, ...] = (),
    raw: str | None,
) -> MirrorRow:
    """Give a row; what is not said is as the full document has it."""
    shown = full_columns() | {"title": "ring twice"} if columns is None else columns
    return MirrorRow(
        key=KEY,
        state=state,
        version=version,
        mapping_revision=1,
        digest="",
        lossy_fields=lossy_fields,
        columns=shown,
        children=full_children() if children is None else children,
        raw=raw,
    )
