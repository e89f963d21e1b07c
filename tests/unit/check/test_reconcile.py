"""What is to be done about one key, as a pure rule."""

from __future__ import annotations

import pytest

from storemirror.check.reconcile import Finding, decide_finding
from storemirror.event.change import RowState

READ_US = 1_000
LIVE, TOMBSTONE, STUB = RowState.LIVE, RowState.TOMBSTONE, RowState.STUB


@pytest.mark.parametrize(
    ("document", "state", "version", "expected"),
    [
        (200, None, 0, Finding.MISSING),
        (200, STUB, 0, Finding.MISSING),
        (200, TOMBSTONE, 199, Finding.MISSING),
        (200, LIVE, 198, Finding.OLDER),
        (200, LIVE, 200, Finding.NOTHING),
        (200, LIVE, 2_002, Finding.NOTHING),
        (200, LIVE, 202, Finding.SUSPECT),
        (200, LIVE, 2_000, Finding.SUSPECT),
        (200, TOMBSTONE, 201, Finding.SUSPECT),
        (None, None, 0, Finding.NOTHING),
        (None, STUB, 0, Finding.NOTHING),
        (None, TOMBSTONE, 201, Finding.NOTHING),
        (None, LIVE, 200, Finding.GONE),
        (None, LIVE, 2_000, Finding.GONE),
        (None, LIVE, 2_002, Finding.NOTHING),
    ],
)
def test_a_key_is_judged(
    document: int | None, state: RowState | None, version: int, expected: Finding
) -> None:
    """Never a delete for a row that is newer than the read time."""
    assert decide_finding(document, state, version, read_time_us=READ_US) is expected
