"""How far a drain looks at dead letters, and where the next one goes on."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from storemirror.apply.put_back import DeadLetterRound, PutBack
from storemirror.bus.memory import MemoryBus
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, DeadLetter, Message, Rejection, TopicSpec
from storemirror.clock import SystemClock
from storemirror.errors import MessageRefused
from storemirror.telemetry import LogEvent


class Aside:
    """A subscription with dead letters, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bus = MemoryBus(SystemClock())
        self.admin = bus.admin()
        self._publisher = bus.publisher()
        self._bus = bus
        self.stop = asyncio.Event()
        #: Numbers, by look, of the dead letters that were shown.
        self.shown: list[list[int]] = []
        self.resubmitted: list[int] = []
        #: Set `stop` once so many were put back.
        self.stop_after: int | None = None
        self._resubmit, self._peek = self.admin.resubmit, self.admin.peek_dead_letters
        monkeypatch.setattr(self.admin, "resubmit", self._note_resubmit)
        monkeypatch.setattr(self.admin, "peek_dead_letters", self._note_peek)

    async def _note_resubmit(self, subscription: str, number: int, *, run: str) -> str:
        self.resubmitted.append(number)
        if len(self.resubmitted) == self.stop_after:
            self.stop.set()
        return await self._resubmit(subscription, number, run=run)

    async def _note_peek(
        self,
        subscription: str,
        *,
        limit: int,
        after_sequence_number: int,
        with_acknowledged: bool,
    ) -> list[DeadLetter]:
        letters = await self._peek(
            subscription,
            limit=limit,
            after_sequence_number=after_sequence_number,
            with_acknowledged=with_acknowledged,
        )
        self.shown.append([letter.sequence_number for letter in letters])
        return letters

    async def fill(self, *, unmapped_count: int = 0, used_up_count: int = 0) -> None:
        """Set messages aside: first those that stay, then those that are put back."""
        await self.admin.provision(TopicSpec())
        consumer = self._bus.consumer(SUBSCRIPTION_SQL_WRITER)
        await self._publish("unmapped", unmapped_count)
        for delivery in await consumer.receive(1_000, max_wait_s=0.0):
            rejection = Rejection(delivery=delivery, reason="MappingFailed", description="")
            await consumer.dead_letter([rejection])
        await self._publish("used-up", used_up_count)
        while deliveries := await consumer.receive(1_000, max_wait_s=0.0):
            await consumer.abandon(deliveries)

    async def _publish(self, name: str, count: int) -> None:
        await self._publisher.publish(
            [
                Message(message_id=f"{name}-{number}", body=b"", content_type="")
                for number in range(count)
            ]
        )

    async def put_back(self, place: DeadLetterRound) -> int:
        """Put back as one drain does; gives how many."""
        put_back = PutBack(self.admin, SUBSCRIPTION_SQL_WRITER, place)
        await put_back.run(self.stop)
        return put_back.count


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> Aside:
    return Aside(monkeypatch)


async def test_each_drain_looks_at_a_part_and_the_next_goes_on(aside: Aside) -> None:
    """Thousands that stay set aside are not read again every minute.  Refs #5."""
    await aside.fill(unmapped_count=250, used_up_count=2)
    place = DeadLetterRound(max_count=150)
    counts = [await aside.put_back(place) for _ in range(2)]
    assert counts == [0, 2]
    assert [len(numbers) for numbers in aside.shown] == [100, 50, 100, 2, 0]
    assert len({number for numbers in aside.shown for number in numbers}) == 252


async def test_after_the_last_one_it_begins_with_the_first(aside: Aside) -> None:
    """A dead letter keeps its message's number: it may come to stand before others."""
    await aside.fill(unmapped_count=3)
    place = DeadLetterRound(max_count=2)
    for _ in range(3):
        await aside.put_back(place)
    assert aside.shown == [[1, 2], [3], [], [1, 2]]


async def test_without_a_bound_all_are_looked_at(aside: Aside) -> None:
    """A process that ends remembers nothing: what stands behind others would stay for ever."""
    await aside.fill(unmapped_count=250, used_up_count=1)
    assert await aside.put_back(DeadLetterRound(max_count=None)) == 1


async def test_asked_to_end_it_ends_within_a_page(aside: Aside) -> None:
    """A page takes a hundred calls, and a process must end when it is told to.  Refs #5."""
    await aside.fill(used_up_count=5)
    aside.stop_after = 2
    place = DeadLetterRound()
    assert await aside.put_back(place) == 2
    aside.stop.clear()
    assert await aside.put_back(place) == 3
    assert aside.resubmitted == [1, 2, 3, 4, 5]


async def test_asked_to_end_before_it_begins_it_looks_at_nothing(aside: Aside) -> None:
    """The time may be over."""
    aside.stop.set()
    assert await aside.put_back(DeadLetterRound()) == 0
    assert aside.shown == []


async def test_a_refused_dead_letter_is_named_once_a_process(
    aside: Aside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line a minute for ever hides all others."""
    await aside.fill(used_up_count=2)

    async def refuse(subscription: str, number: int, *, run: str) -> str:
        raise MessageRefused("too large")

    monkeypatch.setattr(aside.admin, "resubmit", refuse)
    place = DeadLetterRound()
    with capture_logs() as logs:
        assert [await aside.put_back(place) for _ in range(3)] == [0, 0, 0]
    told = [log["number"] for log in logs if log["event"] == LogEvent.DEAD_LETTER_REFUSED.value]
    assert told == [1, 2]
