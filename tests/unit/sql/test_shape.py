"""Everything that would refuse or lose a document in a table that is there is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storemirror.sql.catalogue import (
    ColumnRole,
    FoundColumn,
    FoundForeignKey,
    FoundIndex,
    FoundTable,
    TableRole,
    WantedColumn,
    WantedTable,
)
from storemirror.sql.shape import Alteration, Refusal, own_columns, refusals_of

KEY = WantedColumn(
    name="line_id",
    type="text",
    role=ColumnRole.KEY,
    declared="lineId",
    widens=frozenset({"character varying"}),
    is_binary=True,
    is_nullable=False,
)
ORDER = replace(KEY, name="order_id", declared="orderId")
STATE = WantedColumn(
    name="row_state", type="text", role=ColumnRole.META, is_nullable=False, is_checked=True
)
VERSION = WantedColumn(
    name="last_event_version",
    type="bigint",
    role=ColumnRole.META,
    is_nullable=False,
    has_default=True,
)
BODY = WantedColumn(name="body", type="text", role=ColumnRole.DOCUMENT, declared="body")
COUNT = replace(BODY, name="count", type="bigint", declared="count", widens=frozenset({"integer"}))
TITLE = WantedColumn(
    name="title",
    type="text",
    role=ColumnRole.DERIVED,
    declared="title",
    expression="COALESCE(body)",
)
TABLE = WantedTable(
    name="shop_line",
    declared="ShopLine",
    role=TableRole.ENTITY,
    entity="ShopLine",
    columns=(ORDER, KEY, STATE, VERSION, BODY, COUNT, TITLE),
    key=("order_id", "line_id"),
    parent=("shop_order", 1),
)
SOUND = {
    "order_id": FoundColumn(type="text", is_nullable=False),
    "line_id": FoundColumn(type="text", is_nullable=False),
    "row_state": FoundColumn(type="text", is_nullable=False),
    "last_event_version": FoundColumn(type="bigint", is_nullable=False, has_default=True),
    "body": FoundColumn(type="text"),
    "count": FoundColumn(type="bigint"),
    "title": FoundColumn(type="text", expression="COALESCE(body)"),
    "mine": FoundColumn(type="uuid"),
}
PRIMARY = FoundIndex(
    definition="order_id, line_id", columns=("order_id", "line_id"), is_unique=True
)
FOUND = FoundTable(
    columns=SOUND,
    indexes={"some_key": PRIMARY},
    checks={"some_check": frozenset({"row_state"})},
)


def refused(found: FoundTable, table: WantedTable = TABLE) -> list[Refusal]:
    """Give the refusals; each says what, and what to do."""
    refusals = list(refusals_of(table, found))
    assert all(r.what and r.cure and str(r) == f"{r.what}; {r.cure}" for r in refusals)
    return refusals


def with_column(name: str, **changes: Any) -> FoundTable:
    """Give the sound table with one column changed."""
    return replace(FOUND, columns={**SOUND, name: replace(SOUND[name], **changes)})


def without(*names: str) -> FoundTable:
    """Give the sound table without columns."""
    return replace(FOUND, columns={n: c for n, c in SOUND.items() if n not in names})


def test_a_sound_table_is_not_refused() -> None:
    """A team's own column, and a key under its own name, are welcome."""
    assert refused(FOUND) == []
    assert own_columns(TABLE, FOUND) == ["mine"]


def test_columns_that_are_missing_are_added() -> None:
    """Adding takes nothing away."""
    assert refused(without("row_state", "last_event_version", "body", "count", "title")) == []


@pytest.mark.parametrize(
    ("name", "changes", "alteration", "words"),
    [
        ("body", {"type": "jsonb"}, None, "which would change rows"),
        ("body", {"type": "character varying", "max_length": 9}, None, "varying(9)"),
        ("count", {"type": "integer"}, Alteration.TYPE, "every value would be kept"),
        ("order_id", {"type": "uuid"}, None, "is uuid and is declared as text"),
        ("order_id", {"type": "character varying"}, Alteration.TYPE, "character varying"),
        ("order_id", {"is_binary": False}, Alteration.TYPE, "byte by byte"),
        ("order_id", {"is_nullable": True}, None, "make it NOT NULL"),
        ("body", {"is_nullable": False}, Alteration.NULLABLE, "tombstones and stubs"),
        ("body", {"expression": "upper(mine)"}, None, "documents fill it"),
        ("title", {"expression": "COALESCE(count)"}, None, "declared as COALESCE(body)"),
        ("title", {"expression": None}, None, "not computed"),
        ("last_event_version", {"has_default": False}, None, "StoreMirror's own"),
        ("last_event_version", {"is_nullable": True}, None, "StoreMirror's own"),
        ("last_event_version", {"type": "text"}, None, "to be bigint"),
        ("mine", {"is_nullable": False}, None, "no row could be written"),
    ],
)
def test_a_column_in_the_way_is_named_with_its_cure(
    name: str, changes: dict[str, Any], alteration: Alteration | None, words: str
) -> None:
    """Only what keeps every value may be done on a word."""
    [refusal] = refused(with_column(name, **changes))
    assert (refusal.table, refusal.column) == ("shop_line", name)
    assert refusal.alteration is alteration
    assert words in str(refusal)


@pytest.mark.parametrize(
    "changes", [{"has_default": True}, {"expression": "a sequence"}], ids=["default", "identity"]
)
def test_an_own_column_that_fills_itself_is_welcome(changes: dict[str, Any]) -> None:
    """Our inserts need not name it."""
    assert refused(with_column("mine", is_nullable=False, **changes)) == []


def test_two_things_about_one_column_are_two_refusals() -> None:
    """Each has its own cure."""
    found = with_column("count", type="integer", is_nullable=False)
    assert [r.alteration for r in refused(found)] == [Alteration.TYPE, Alteration.NULLABLE]


def test_a_state_of_their_own_is_no_row_state() -> None:
    """Rows that are neither live nor deleted would be invisible to every reader."""
    [refusal] = refused(replace(FOUND, checks={"c": frozenset({"row_state", "body"})}))
    assert "row_state" in refusal.what


def test_a_missing_key_column_is_refused() -> None:
    """Which document a row is of cannot be guessed."""
    [refusal] = refused(without("line_id"))
    assert "part of its key" in refusal.what


@pytest.mark.parametrize(
    "index",
    [
        None,
        replace(PRIMARY, columns=("line_id", "order_id")),
        replace(PRIMARY, is_unique=False),
        replace(PRIMARY, is_plain=False),
    ],
    ids=["none", "another order", "not unique", "partial"],
)
def test_a_table_without_a_unique_key_is_refused(index: FoundIndex | None) -> None:
    """A row would be written twice, or be searched for through the whole table."""
    [refusal] = refused(replace(FOUND, indexes={} if index is None else {"i": index}))
    assert "no unique key on (order_id, line_id)" in refusal.what


@pytest.mark.parametrize(
    ("columns", "is_refused"),
    [
        (("body",), True),
        (("line_id",), True),
        (("order_id", "body", "line_id"), False),
        (("mine",), False),
        (("mine", "body"), False),
        ((), False),
    ],
)
def test_a_unique_index_over_what_documents_fill_is_refused(
    columns: tuple[str, ...], is_refused: bool
) -> None:
    """Firestore has taken both documents; one user could stop the mirror."""
    index = FoundIndex(definition="", columns=columns, is_unique=True)
    found = refused(replace(FOUND, indexes={"some_key": PRIMARY, "other": index}))
    assert [("other" in r.what) for r in found] == [True] * is_refused


@pytest.mark.parametrize(
    ("columns", "target", "is_refused"),
    [
        (("body",), "people", True),
        (("order_id",), "shop_order", False),
        (("order_id",), "other", True),
        (("order_id", "line_id"), "shop_order", True),
        (("mine",), "people", False),
    ],
)
def test_a_foreign_key_is_refused_unless_its_row_always_comes_first(
    columns: tuple[str, ...], target: str, is_refused: bool
) -> None:
    """A message may arrive before the person that it is from."""
    key = FoundForeignKey(columns=columns, target=target)
    found = refused(replace(FOUND, foreign_keys={"fk": key}))
    assert [("fk" in r.what) for r in found] == [True] * is_refused


def test_a_foreign_key_from_a_table_without_a_parent_is_refused() -> None:
    """Nothing is written before its rows."""
    key = FoundForeignKey(columns=("order_id",), target="shop_order")
    found = replace(FOUND, foreign_keys={"fk": key})
    assert len(refused(found, replace(TABLE, parent=None))) == 1


def test_what_is_no_table_is_refused() -> None:
    """A view over somebody else's table."""
    [refusal] = refused(FoundTable(is_table=False))
    assert "is no table" in refusal.what


def test_an_audit_table_of_another_shape_is_refused() -> None:
    """Rows of it that are there have no version."""
    table = replace(
        TABLE, role=TableRole.AUDIT, columns=(ORDER, KEY, replace(VERSION, has_default=False))
    )
    [refusal] = refused(without("last_event_version", "row_state"), table)
    assert "no audit table" in refusal.what
