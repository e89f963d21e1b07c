"""What the drainer puts back, and what it does when the bus does not take it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from azure.servicebus import ServiceBusReceivedMessage
from structlog.testing import capture_logs

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.bus.servicebus_dead_letters import DeadLetters
from storemirror.bus.servicebus_provision import acknowledged_name
from storemirror.errors import BusRefused, BusUnavailable, MessageRefused, StoreMirrorError
from storemirror.telemetry import LogEvent
from tests.integration.apply.pipe import HOUR_S, Pipe, UntilTold, a_chat_message, open_pipe
from tests.integration.apply.test_drain import drain, use_up_deliveries
from tests.standins.servicebus.faults import QUOTA, TOO_LARGE
from tests.support.databases import Databases

pytestmark = pytest.mark.postgres

SET_ASIDE = [a_chat_message(number) for number in range(3)]
WAITING = [a_chat_message(number) for number in range(10, 15)]


@pytest.fixture
async def azure(new_database: Databases) -> AsyncIterator[Pipe]:
    """A pipe over Service Bus alone."""
    async with open_pipe(new_database, bus="servicebus") as opened:
        yield opened


async def after_an_outage(pipe: Pipe) -> list[int]:
    """Leave dead letters of the bus's own making, and events that wait; gives the numbers."""
    await pipe.publish(SET_ASIDE)
    await use_up_deliveries(pipe)
    await pipe.publish(WAITING)
    return [letter.sequence_number for letter in await pipe.dead_letters()]


def refuse(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, refusals: Mapping[int, StoreMirrorError]
) -> list[int]:
    """Let the bus refuse to take these dead letters again; gives the numbers that were tried."""
    tried: list[int] = []
    resubmit = pipe.admin.resubmit

    async def resubmit_some(subscription: str, sequence_number: int, *, run: str) -> str:
        tried.append(sequence_number)
        if sequence_number in refusals:
            raise refusals[sequence_number]
        return await resubmit(subscription, sequence_number, run=run)

    monkeypatch.setattr(pipe.admin, "resubmit", resubmit_some)
    return tried


@pytest.mark.parametrize("condition", [QUOTA, TOO_LARGE])
async def test_a_full_topic_is_drained(azure: Pipe, condition: str) -> None:
    """Only receiving makes room: whoever must put something back first never gets there."""
    numbers = await after_an_outage(azure)
    assert azure.standin is not None
    azure.standin.faults.refuse_sends(condition, 100)
    drained = await drain(azure)
    azure.standin.faults.refuse_no_more()
    assert (drained.resubmitted, drained.applied, drained.is_drained) == (0, len(WAITING), True)
    assert [letter.sequence_number for letter in await azure.dead_letters()] == numbers
    later = await drain(azure)
    assert (later.resubmitted, later.applied) == (len(SET_ASIDE), len(SET_ASIDE))


async def test_a_dead_letter_that_the_bus_refuses_holds_up_no_other(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays where it is, and the log says which one, and why."""
    numbers = await after_an_outage(pipe)
    refuse(pipe, monkeypatch, {numbers[0]: MessageRefused("too large")})
    with capture_logs() as logs:
        drained = await drain(pipe)
    assert (drained.resubmitted, drained.is_drained) == (2, True)
    assert [letter.sequence_number for letter in await pipe.dead_letters()] == numbers[:1]
    (told,) = [log for log in logs if log["event"] == LogEvent.DEAD_LETTER_REFUSED.value]
    assert (told["number"], told["error"]) == (numbers[0], "too large")


async def test_a_bus_that_refuses_one_after_the_other_is_asked_no_more(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a full topic the thousandth answer says no more than the third."""
    await pipe.publish([a_chat_message(number) for number in range(5)])
    await use_up_deliveries(pipe)
    numbers = [letter.sequence_number for letter in await pipe.dead_letters()]
    tried = refuse(pipe, monkeypatch, dict.fromkeys(numbers, BusRefused("full")))
    drained = await drain(pipe)
    assert (drained.resubmitted, drained.dead_lettered) == (0, 0)
    assert tried == numbers[:3]


async def test_a_bus_that_does_not_answer_leaves_the_rest_to_the_next_drain(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is applied all the same, if it can be received."""
    numbers = await after_an_outage(pipe)
    tried = refuse(pipe, monkeypatch, {numbers[1]: BusUnavailable("busy")})
    with capture_logs() as logs:
        drained = await drain(pipe)
    assert (drained.resubmitted, drained.applied) == (1, 1 + len(WAITING))
    assert tried == numbers[:2]
    (told,) = [log for log in logs if log["event"] == LogEvent.RESUBMITTING_FAILED.value]
    assert told["error"] == "busy"
    assert len(await pipe.dead_letters()) == 2


async def test_what_waits_is_received_first(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows follow the app; what was set aside hours ago can wait another second.  Refs #5."""
    await after_an_outage(pipe)
    resubmit = pipe.admin.resubmit
    depths: list[int] = []

    async def note_depth(subscription: str, sequence_number: int, *, run: str) -> str:
        depths.append((await pipe.stats()).depth)
        return await resubmit(subscription, sequence_number, run=run)

    monkeypatch.setattr(pipe.admin, "resubmit", note_depth)
    drained = await drain(pipe)
    assert depths[0] == 0
    assert (drained.resubmitted, drained.is_drained) == (len(SET_ASIDE), True)
    await pipe.assert_mirrors([*SET_ASIDE, *WAITING])


class HalfOver(UntilTold):
    """A clock by which half of the hour is over at once."""

    async def sleep(self, duration_s: float) -> None:
        if duration_s != HOUR_S / 2:
            await super().sleep(duration_s)


async def test_a_queue_that_is_never_empty_keeps_nothing_set_aside(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy writer beside the drainer always has something in hand."""
    await after_an_outage(pipe)
    await pipe.new_consumer().receive(1, max_wait_s=1.0)
    resubmit, is_over = pipe.admin.resubmit, asyncio.Event()

    async def resubmit_one(subscription: str, sequence_number: int, *, run: str) -> str:
        is_over.set()
        return await resubmit(subscription, sequence_number, run=run)

    monkeypatch.setattr(pipe.admin, "resubmit", resubmit_one)
    drained = await drain(pipe, max_duration_s=HOUR_S, clock=HalfOver(is_over))
    assert drained.resubmitted > 0
    assert not drained.is_drained


async def test_resubmitting_reads_nothing_that_was_acknowledged(
    azure: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever acknowledges thousands would pay for them with each dead letter.  Refs #5."""
    numbers = await after_an_outage(azure)
    await azure.admin.acknowledge(SUBSCRIPTION_SQL_WRITER, numbers[0], reason="test data")
    browse = DeadLetters.browse
    browsed: list[str] = []

    async def note_path(
        letters: DeadLetters, path: str, *, start: int, limit: int
    ) -> list[ServiceBusReceivedMessage]:
        browsed.append(path)
        return await browse(letters, path, start=start, limit=limit)

    monkeypatch.setattr(DeadLetters, "browse", note_path)
    assert (await drain(azure)).resubmitted == 2
    assert acknowledged_name(SUBSCRIPTION_SQL_WRITER) not in browsed
