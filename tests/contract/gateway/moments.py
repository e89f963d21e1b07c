"""Times of documents in the tests of readers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storemirror.clock import us_from_datetime

_BEGIN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def at(second: int) -> datetime:
    """Give a moment, by its seconds from the beginning."""
    return _BEGIN + timedelta(seconds=second)


def us(second: int) -> int:
    """Give the same moment in microseconds since the Unix epoch."""
    return us_from_datetime(at(second))
