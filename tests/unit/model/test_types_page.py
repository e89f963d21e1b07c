"""The page of types is true: what it says is taken is taken, and what it says is lost is lost."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from storemirror.event.value import GeoPoint, Reference, encode_value
from storemirror.model.conversion import Misfit, conversion_of
from storemirror.model.types import ColumnType
from storemirror.sql.postgres.types import LIMITS, TYPES

PAGE: Final = Path(__file__).parents[3] / "docs" / "reference" / "types.md"
#: The first table: every kind, with every type that takes it.
TABLE: Final = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
ROWS: Final = [
    tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))
    for line in re.findall(r"^\| .* \|$", TABLE, re.MULTILINE)[2:]
]
#: Kind -> values of it that every column which takes the kind takes; the first is harmless.
SAMPLES: Final[dict[str, tuple[object, ...]]] = {
    "booleanValue": (True,),
    "integerValue": (1, 2**53, -(2**63)),
    "doubleValue": (0.1, math.nan, math.inf, -0.0, 5e-324),
    "timestampValue": (datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),),
    "stringValue": ("a", "a\0b", "\U0001f600"),
    "bytesValue": (bytes(range(256)),),
    "referenceValue": (Reference("a"), Reference("a\0b")),
    "geoPointValue": (GeoPoint(1.5, 2.5), GeoPoint(-0.0, 1.5)),
    "arrayValue": ([1], [-0.0], [None]),
    "mapValue": ({"a": 1}, {"a\0b": 1}, {"a": {"b": [math.nan]}}),
}


def losses(kind: str, column_type: ColumnType) -> list[bool] | None:
    """Tell of each sample whether it is only stored as the nearest value; None: it is refused."""
    conversion = conversion_of(column_type, LIMITS)
    found: list[bool] = []
    for sample in SAMPLES[kind]:
        value = encode_value(sample)
        assert list(value) == [kind]
        if kind == conversion.plain_kind and conversion.is_sound(value[kind]):
            found.append(False)
            continue
        try:
            found.append(conversion.convert(value, "f")[1])
        except Misfit:
            return None
    return found


def test_the_page_has_every_pair_that_fits_and_no_other() -> None:
    """What is not in the table ends as a dead letter."""
    fitting = {(k, t.value) for k in SAMPLES for t in ColumnType if losses(k, t) is not None}
    assert {(kind, column) for _, kind, column, _, _ in ROWS[1:]} == fitting
    assert ROWS[0][1:4] == ("nullValue", "every type", "NULL")


@pytest.mark.parametrize("row", ROWS[1:], ids="-".join)
def test_a_row_of_the_page_is_what_the_code_does(row: tuple[str, ...]) -> None:
    """A database administrator plans columns, and an auditor losses, by this table."""
    _, kind, column_type, in_postgres, lost = row
    found = losses(kind, ColumnType(column_type))
    assert found is not None
    assert in_postgres == TYPES[ColumnType(column_type)].column
    assert not found[0]
    assert any(found) is not lost.startswith("nothing")
