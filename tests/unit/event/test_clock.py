"""Times: exact to the microsecond, in integers, and strict about what is a time."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storemirror.clock import (
    LAST_US,
    SystemClock,
    datetime_from_us,
    rfc3339_from_us,
    us_from_datetime,
    us_from_rfc3339,
    wait_until,
)

FIRST_US = us_from_rfc3339("0001-01-01T00:00:00Z")
TIME_US = st.integers(FIRST_US, LAST_US)


@given(TIME_US)
def test_a_time_comes_back_exactly(time_us: int) -> None:
    """One lost microsecond is another version, and a row that never converges."""
    assert us_from_datetime(datetime_from_us(time_us)) == time_us
    assert us_from_rfc3339(rfc3339_from_us(time_us)) == time_us


@given(TIME_US)
def test_written_times_have_one_length_and_sort_as_text(time_us: int) -> None:
    """The canonical form is compared byte by byte."""
    text = rfc3339_from_us(time_us)
    assert len(text) == 27
    assert (text < "1970-01-01T00:00:00.000000Z") == (time_us < 0)


def test_the_last_microsecond_is_the_last() -> None:
    """Everything that bounds a version by it relies on the next one failing."""
    assert rfc3339_from_us(LAST_US) == "9999-12-31T23:59:59.999999Z"
    with pytest.raises(OverflowError):
        rfc3339_from_us(LAST_US + 1)


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:00.1Z", 100_000),
        ("1970-01-01T00:00:00.0000019Z", 1),
        ("1970-01-01T00:00:00.000001999-00:00", 1),
        ("1970-01-01T05:45:00+05:45", 0),
    ],
)
def test_spellings_of_rfc_3339_are_read(text: str, time_us: int) -> None:
    """Firestore, its emulator and other clients write the same moment differently."""
    assert us_from_rfc3339(text) == time_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01 00:00:00Z",
        "19700101T000000Z",
        "1970-W01-4T00:00:00Z",
        "1970-01-01T00:00Z",
        "1970-01-01T00:00:00,5Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00+00:00:30",
        "1970-13-01T00:00:00Z",
        "1970-01-01T24:00:01Z",
        "1970-01-01T00:00:00Z\n",
        "\uff11970-01-01T00:00:00Z",
    ],
)
def test_what_is_no_rfc_3339_time_is_refused(text: str) -> None:
    """`datetime.fromisoformat` alone would guess at most of these."""
    with pytest.raises(ValueError, match=r".+"):
        us_from_rfc3339(text)


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    """Drivers give times in the session's zone."""
    moment = datetime(1970, 1, 1, 1, 0, 0, 1, tzinfo=timezone(timedelta(hours=1)))
    assert us_from_datetime(moment) == 1


def test_a_time_without_a_zone_is_refused() -> None:
    """Guessing the machine's zone would shift every version by hours."""
    with pytest.raises(ValueError, match="without time zone"):
        us_from_datetime(datetime(1970, 1, 1))  # noqa: DTZ001 - the planted fault


def test_the_system_clock_counts_microseconds_and_only_grows() -> None:
    """Milliseconds would look like 1970 to the database's bound on future versions."""
    clock = SystemClock()
    assert us_from_rfc3339("2026-01-01T00:00:00Z") < clock.now_us() < LAST_US
    before_s = clock.monotonic_s()
    assert clock.monotonic_s() >= before_s


async def test_the_system_clock_sleeps_without_blocking() -> None:
    """Lock renewals run while a lane waits for its next attempt."""
    ran = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(SystemClock().sleep(0))
        group.create_task(_set(ran))
    assert ran.is_set()


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_waiting_ends_when_the_condition_holds() -> None:
    """The embedded server is used as soon as it is ready."""
    answers = iter([False, True])
    assert wait_until(lambda: next(answers), timeout_s=5.0)


def test_waiting_ends_when_time_is_up() -> None:
    """A server that never starts must become an error, not a hang."""
    assert not wait_until(lambda: False, timeout_s=0.0)
