"""What is held, and how locks are kept alive, by a clock that the test holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storemirror.apply.hand import Hand
from storemirror.apply.port import WriterSettings
from storemirror.apply.stats import WriterStats
from storemirror.bus.memory import MemoryBus, MemoryConsumer
from storemirror.bus.port import (
    SUBSCRIPTION_SQL_WRITER,
    TOPIC,
    Delivery,
    Message,
    SubscriptionSpec,
    TopicSpec,
)
from storemirror.errors import BusUnavailable

LOCK_S = 60.0


class HandSetClock:
    """Time passes when the test, or somebody who sleeps, says so."""

    def __init__(self) -> None:
        self.time_s = 1_000.0
        self.sleep_count = 0

    def now_us(self) -> int:
        return round(self.time_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, duration_s: float) -> None:
        self.time_s += duration_s
        self.sleep_count += 1


class Enough(Exception):
    """Ends a loop that has no end."""


class SilentConsumer(MemoryConsumer):
    """A consumer whose bus does not answer renewals so many times."""

    def __init__(self, bus: MemoryBus, clock: HandSetClock, *, silent_count: int) -> None:
        super().__init__(bus, clock, TOPIC, SUBSCRIPTION_SQL_WRITER)
        self.silent_count = silent_count
        self.renewed: list[int] = []

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        if self.silent_count:
            self.silent_count -= 1
            raise BusUnavailable("gone")
        self.renewed.append(len(deliveries))
        return await super().renew(deliveries)


class Bench:
    """A hand over an in-memory bus, and four deliveries in it."""

    def __init__(self) -> None:
        self.clock = HandSetClock()
        self.bus = MemoryBus(self.clock)
        self.stats = WriterStats()
        self.shrink_count = 0

    async def fill(self, *, silent_count: int = 0) -> None:
        spec = SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER, lock_duration_s=LOCK_S)
        await self.bus.admin().provision(TopicSpec(subscriptions=(spec,)))
        await self.bus.publisher().publish(
            [Message(message_id=f"m{n}", body=b"12345", content_type="x") for n in range(4)]
        )
        self.consumer = SilentConsumer(self.bus, self.clock, silent_count=silent_count)
        self.hand = Hand(
            consumer=self.consumer,
            clock=self.clock,
            stats=self.stats,
            settings=WriterSettings(is_mirror_on=True, lock_duration_s=LOCK_S),
            on_shrink=self.note_shrink,
        )
        self.deliveries = await self.receive()

    def note_shrink(self) -> None:
        self.shrink_count += 1

    async def receive(self) -> list[Delivery]:
        deliveries = await self.consumer.receive(10, max_wait_s=0.0)
        if deliveries:
            self.hand.take(deliveries)
        return deliveries


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_it_knows_how_much_is_held(bench: Bench) -> None:
    """Receiving goes by it, so that memory stays bounded."""
    await bench.fill()
    assert (len(bench.hand), bench.hand.size_bytes) == (4, 20)
    bench.hand.let_go(bench.deliveries[:3])
    assert (len(bench.hand), bench.hand.size_bytes) == (1, 5)
    assert bench.hand.held() == bench.deliveries[3:]
    bench.hand.let_go(bench.deliveries)
    assert (len(bench.hand), bench.hand.size_bytes) == (0, 0)
    assert bench.shrink_count == 2, "room again, each time"


async def test_locks_are_renewed_when_half_of_them_has_passed(bench: Bench) -> None:
    """Sooner would be work for nothing, later would be close."""
    await bench.fill()
    bench.clock.time_s += LOCK_S / 2 - 1
    await bench.hand.renew_due()
    assert bench.consumer.renewed == []
    bench.clock.time_s += 1
    await bench.hand.renew_due()
    assert bench.consumer.renewed == [4]
    bench.clock.time_s += LOCK_S - 1
    assert await bench.receive() == [], "still under lock, long after the first one ended"


async def test_a_batch_may_be_in_hand_for_many_locks(bench: Bench) -> None:
    """A database that takes ten minutes for a checkpoint costs no delivery."""
    await bench.fill()
    for _ in range(20):
        bench.clock.time_s += LOCK_S / 2
        await bench.hand.renew_due()
    assert bench.consumer.renewed == [4] * 20
    assert await bench.consumer.complete(bench.deliveries) == []
    assert bench.stats.lost_locks == 0


async def test_only_what_is_still_held_is_renewed(bench: Bench) -> None:
    """What is settled is nobody's any more."""
    await bench.fill()
    bench.hand.let_go(bench.deliveries[:3])
    bench.clock.time_s += LOCK_S / 2
    await bench.hand.renew_due()
    assert bench.consumer.renewed == [1]
    bench.hand.let_go(bench.deliveries)
    bench.clock.time_s += LOCK_S / 2
    await bench.hand.renew_due()
    assert bench.consumer.renewed == [1]


async def test_a_bus_that_does_not_answer_is_asked_again_before_the_lock_ends(
    bench: Bench,
) -> None:
    """One lost packet must not cost a batch its locks."""
    await bench.fill(silent_count=2)
    bench.clock.time_s += LOCK_S / 2
    for _ in range(3):
        await bench.hand.renew_due()
    assert bench.consumer.renewed == [4]
    assert bench.stats.lost_locks == 0


async def test_a_lock_that_ran_out_is_noticed_by_the_renewal(bench: Bench) -> None:
    """Work on what another one may hold is work for nothing."""
    await bench.fill()
    bench.clock.time_s += LOCK_S + 1
    await bench.hand.renew_due()
    assert bench.stats.lost_locks == 4
    assert not any(map(bench.hand.holds, bench.deliveries))


async def test_what_comes_again_was_lost(bench: Bench) -> None:
    """The old delivery cannot be settled any more, the new one can."""
    await bench.fill()
    bench.clock.time_s += LOCK_S + 1
    again = await bench.receive()
    assert bench.stats.lost_locks == 4
    assert not any(map(bench.hand.holds, bench.deliveries))
    assert all(map(bench.hand.holds, again))
    assert (len(bench.hand), bench.hand.size_bytes) == (4, 20)


async def test_a_late_answer_does_not_let_go_of_what_came_again(bench: Bench) -> None:
    """The call that settled the lost delivery may end after the next one was received."""
    await bench.fill()
    bench.clock.time_s += LOCK_S + 1
    again = await bench.receive()
    bench.hand.let_go(bench.deliveries)
    assert all(map(bench.hand.holds, again))
    assert (len(bench.hand), bench.hand.size_bytes) == (4, 20)


async def test_the_locks_are_looked_at_often_enough(bench: Bench) -> None:
    """Looked at too seldom, a lock would run out between two looks."""
    await bench.fill()

    async def sleep(duration_s: float) -> None:
        bench.clock.time_s += duration_s
        bench.clock.sleep_count += 1
        if bench.clock.sleep_count > 80:
            raise Enough

    bench.clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(Enough):
        await bench.hand.keep_locks()
    assert len(bench.consumer.renewed) >= 15
    assert bench.stats.lost_locks == 0


async def test_what_was_just_settled_is_not_called_lost(bench: Bench) -> None:
    """The bus has taken note, and its answer is still on the way; nobody need look into it."""
    await bench.fill()
    bench.clock.time_s += LOCK_S / 2
    settled, others = bench.deliveries[:1], bench.deliveries[1:]
    with bench.hand.settling(settled):
        assert await bench.consumer.complete(settled) == []
        await bench.hand.renew_due()
        assert bench.stats.lost_locks == 0
        assert bench.hand.holds(settled[0])
        bench.hand.let_go(settled)
    await bench.hand.renew_due()
    assert (bench.stats.lost_locks, bench.consumer.renewed) == (0, [4])
    assert all(map(bench.hand.holds, others))


async def test_a_lock_that_was_lost_before_settling_failed_is_noticed_next(bench: Bench) -> None:
    """A settlement that never came must not keep a delivery in hand for ever."""
    await bench.fill()
    bench.clock.time_s += LOCK_S + 1
    with bench.hand.settling(bench.deliveries):
        await bench.hand.renew_due()
        assert bench.stats.lost_locks == 0
    await bench.hand.renew_due()
    assert bench.stats.lost_locks == 4
