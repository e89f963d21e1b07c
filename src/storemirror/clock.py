"""
The only place that reads the time or sleeps.

Everything that needs the time is handed a `Clock`, so that a test can say what time it is.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

#: Microseconds in a second.
SECOND_US: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: First microsecond of the year 1, since the Unix epoch: earlier moments cannot be written down.
FIRST_US: Final = -62_135_596_800_000_000
#: Last microsecond of the year 9999, since the Unix epoch: later moments cannot be written down.
LAST_US: Final = 253_402_300_799_999_999

#: Of a time as `rfc3339_from_us` writes it.
_CANONICAL_LENGTH: Final = 27
# `datetime.fromisoformat` alone takes much more: week dates, missing colons, missing seconds.
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class Clock(Protocol):
    """Tells the time and waits."""

    def now_us(self) -> int:
        """Give the wall-clock time in microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Give seconds that only grow; for durations and deadlines."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Wait for `duration_s` seconds."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        """See `Clock.now_us`."""
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(duration_s)


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Block until a condition holds, and tell whether it did in time.  Not in an event loop."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def datetime_from_us(time_us: int) -> datetime:
    """Turn microseconds since the Unix epoch into an aware datetime, exactly.

    >>> datetime_from_us(1).isoformat()
    '1970-01-01T00:00:00.000001+00:00'
    """
    return EPOCH + timedelta(microseconds=time_us)


def us_from_datetime(moment: datetime) -> int:
    """Turn an aware datetime into microseconds since the Unix epoch, exactly.

    Integer arithmetic: a float of seconds loses microseconds from the year 2255 on.

    Raises:
        ValueError: `moment` has no time zone.

    >>> us_from_datetime(datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC))
    1000002
    """
    if moment.tzinfo is None:
        raise ValueError("a datetime without time zone has no place on the time line")
    return (moment - EPOCH) // timedelta(microseconds=1)


def rfc3339_from_us(time_us: int) -> str:
    """Write microseconds since the Unix epoch as RFC 3339 with six decimals and `Z`.

    >>> rfc3339_from_us(1_000_002)
    '1970-01-01T00:00:01.000002Z'
    """
    seconds, rest_us = divmod(time_us, SECOND_US)
    return f"{_text_of_second(seconds)}.{rest_us:06}Z"


# Most times of a stream lie in the same few seconds, and a writer reads and writes several for
# every event: with the second's text kept, each takes a third of the time.
@functools.lru_cache(maxsize=4_096)
def _text_of_second(seconds: int) -> str:
    """Write whole seconds since the Unix epoch as RFC 3339 without decimals and zone."""
    return (EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


@functools.lru_cache(maxsize=4_096)
def _second_of_text(text: str) -> int:
    """Read what `_text_of_second` writes; ValueError: it is none."""
    if not _RFC3339.fullmatch(f"{text}Z"):
        raise ValueError("not an RFC 3339 time with an offset")
    return us_from_datetime(datetime.fromisoformat(f"{text.upper()}Z")) // SECOND_US


def us_from_rfc3339(text: str) -> int:
    """Read an RFC 3339 time, of any offset, as microseconds since the Unix epoch.

    Firestore's REST interface may give nine decimals; what it stores are microseconds, so digits
    beyond the sixth are cut, as Firestore itself does.

    Raises:
        ValueError: `text` is no RFC 3339 time with an offset.

    >>> us_from_rfc3339("1970-01-01T01:00:00.000001999+01:00")
    1
    """
    if len(text) == _CANONICAL_LENGTH and text[19] == "." and text[26] == "Z":
        decimals = text[20:26]
        if decimals.isascii() and decimals.isdigit():
            return _second_of_text(text[:19]) * SECOND_US + int(decimals)
    if not _RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 time with an offset")
    return us_from_datetime(datetime.fromisoformat(text.upper()))
