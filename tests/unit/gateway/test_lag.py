"""How far SQL is behind, as far as the bus tells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from storemirror.clock import SECOND_US
from storemirror.errors import BusUnavailable
from storemirror.gateway.lag import REFRESH_AFTER_S, STALE_AFTER_S, LagWatch
from tests.contract.bus.clocks import ManualClock


class Bus:
    """Tells ages one after the other; an error is raised."""

    def __init__(self, *ages: float | Exception | None) -> None:
        self.ages: Sequence[float | Exception | None] = ages
        self.asked_count = 0

    async def oldest_age_s(self) -> float | None:
        age = self.ages[min(self.asked_count, len(self.ages) - 1)]
        self.asked_count += 1
        await asyncio.sleep(0)
        if isinstance(age, Exception):
            raise age
        return age


async def test_an_empty_bus_means_that_sql_shows_everything() -> None:
    """Up to the moment in which it was asked."""
    clock = ManualClock()
    lag = LagWatch(Bus(None).oldest_age_s, clock)
    assert await lag.as_of_us() == clock.now_us()


async def test_the_oldest_event_says_up_to_when_sql_shows_everything() -> None:
    """Older commits are applied."""
    clock = ManualClock()
    lag = LagWatch(Bus(2.5).oldest_age_s, clock)
    assert await lag.as_of_us() == clock.now_us() - 2_500_000


async def test_many_calls_ask_once_a_second_at_most() -> None:
    """The bus is no part of a read."""
    clock, bus = ManualClock(), Bus(None)
    lag = LagWatch(bus.oldest_age_s, clock)
    await asyncio.gather(*(lag.as_of_us() for _ in range(20)))
    assert bus.asked_count == 1
    clock.advance(REFRESH_AFTER_S / 2)
    await lag.as_of_us()
    assert bus.asked_count == 1


async def test_a_figure_is_served_while_a_new_one_is_on_its_way() -> None:
    """No reader waits for the bus, once it has answered."""
    clock, bus = ManualClock(), Bus(None, 7.0)
    lag = LagWatch(bus.oldest_age_s, clock)
    first = await lag.as_of_us()
    clock.advance(REFRESH_AFTER_S)
    assert await lag.as_of_us() == first
    for _ in range(10):
        await asyncio.sleep(0)
    assert await lag.as_of_us() == clock.now_us() - 7 * SECOND_US


async def test_a_figure_that_is_too_old_for_the_limit_is_waited_for() -> None:
    """Where calls are rare each would find a current mirror too far behind (issue 7)."""
    clock, bus = ManualClock(), Bus(None)
    lag = LagWatch(bus.oldest_age_s, clock)
    await lag.as_of_us(max_lag_s=5.0)
    clock.advance(5.0)
    assert clock.now_us() - (await lag.as_of_us(max_lag_s=5.0) or 0) == 5 * SECOND_US
    clock.advance(REFRESH_AFTER_S)
    for _ in range(10):
        await asyncio.sleep(0)
    clock.advance(6.0)
    assert await lag.as_of_us(max_lag_s=5.0) == clock.now_us()


async def test_a_mirror_that_lags_holds_up_nobody_between_questions() -> None:
    """The newest figure there is has said so."""
    clock, bus = ManualClock(), Bus(9.0)
    lag = LagWatch(bus.oldest_age_s, clock)
    behind_us = clock.now_us() - 9 * SECOND_US
    assert [await lag.as_of_us(max_lag_s=5.0) for _ in range(3)] == [behind_us] * 3
    assert bus.asked_count == 1


async def test_a_bus_that_says_nothing_holds_up_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQL and Firestore may both be well (issue 7)."""
    monkeypatch.setattr("storemirror.gateway.lag.ASK_TIMEOUT_S", 0.01)

    async def never() -> float | None:
        await asyncio.Event().wait()
        return None

    lag = LagWatch(never, ManualClock())
    assert await lag.as_of_us(waits=False) is None
    assert await lag.as_of_us() is None
    await lag.aclose()


async def test_a_bus_that_refuses_is_asked_no_more_often_than_another() -> None:
    """With too few rights it always does, and each read would wait for it."""
    clock, bus = ManualClock(), Bus(BusUnavailable("no"))
    lag = LagWatch(bus.oldest_age_s, clock)
    for _ in range(5):
        assert await lag.as_of_us() is None
    assert bus.asked_count == 1
    clock.advance(REFRESH_AFTER_S)
    await lag.as_of_us()
    assert bus.asked_count == 2


async def test_a_bus_that_does_not_answer_makes_the_lag_unknown_in_the_end() -> None:
    """A mirror of which nobody knows how old it is serves nobody."""
    clock, bus = ManualClock(), Bus(None, BusUnavailable("away"))
    lag = LagWatch(bus.oldest_age_s, clock)
    assert await lag.as_of_us() is not None
    clock.advance(STALE_AFTER_S)
    assert await lag.as_of_us() is None
    bus.ages = [0.0]
    clock.advance(REFRESH_AFTER_S)
    assert await lag.as_of_us() == clock.now_us()
    await lag.aclose()
