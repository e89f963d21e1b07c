"""SQL or the bus does not answer, or says no: nothing is lost, and nothing is dead-lettered."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

import pytest

from storemirror.apply.port import Step
from storemirror.bus.port import Delivery, Message
from storemirror.errors import (
    BusRefused,
    BusUnavailable,
    DatabaseRefused,
    MessageRefused,
    SchemaMismatch,
    SourceUnavailable,
    SqlUnavailable,
    StoreMirrorError,
)
from storemirror.event.change import Change, Origin, RowState
from tests.integration.apply.faulty import FaultyConsumer, FaultyMirror
from tests.integration.apply.pipe import (
    START_US,
    Pipe,
    a_change,
    a_chat_message,
    a_follow,
    message_of,
)

pytestmark = pytest.mark.postgres
BUSES = ("memory", "postgres", "servicebus")

CHANGES = [a_chat_message(number, conversation=f"c{number % 5}") for number in range(40)]


def most_deliveries(deliveries: Sequence[Delivery]) -> int:
    """Give how often the most unlucky message was delivered."""
    return max(Counter(d.message.message_id for d in deliveries).values())


async def test_a_blip_costs_no_delivery(pipe: Pipe) -> None:
    """A deadlock or a failover of a second is retried under the lock."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    mirror.apply_faults.extend(SqlUnavailable("gone") for _ in range(3))
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, consumer=consumer, retry_within_s=60.0)
    await pipe.run_until_empty(writer)
    assert writer.stats.abandoned == 0
    assert most_deliveries(consumer.received) == 1
    await pipe.assert_mirrors(CHANGES)


async def test_a_lasting_outage_costs_one_delivery_and_dead_letters_nothing(pipe: Pipe) -> None:
    """With the database down for longer than the locks, events wait on the bus."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    received_while_down: list[int] = []

    async def count_received() -> None:
        received_while_down.append(len(consumer.received))

    async def fall(step: Step, deliveries: Sequence[Delivery]) -> None:
        if step is Step.RECEIVED and not received_while_down:
            mirror.apply_faults.append(DatabaseRefused("no space left"))
            mirror.probe_faults.extend(SqlUnavailable("gone") for _ in range(30))
            mirror.before_probe = count_received

    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, consumer=consumer, hooks=fall)
    await pipe.run_until_empty(writer)
    assert len(received_while_down) > 30
    assert len(set(received_while_down[:30])) == 1, "nothing is received until a probe succeeds"
    assert most_deliveries(consumer.received) <= 2
    assert await pipe.dead_letters() == []
    await pipe.assert_mirrors(CHANGES)


async def test_retries_end_when_their_time_is_over(pipe: Pipe) -> None:
    """Another worker may reach the database: what is held too long is given back."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    mirror.apply_faults.extend(SqlUnavailable("gone") for _ in range(12))
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, consumer=consumer, retry_within_s=0.0, lane_count=1)
    await pipe.run_until_empty(writer)
    assert 0 < writer.stats.abandoned < len(CHANGES), "all but the canary, once"
    assert most_deliveries(consumer.received) == 2
    await pipe.assert_mirrors(CHANGES)


async def test_a_refusal_that_probes_do_not_see_spends_no_deliveries(pipe: Pipe) -> None:
    """A right missing on one table lasts until a person grants it; nothing may be set aside."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    mirror.apply_faults.extend(DatabaseRefused("permission denied") for _ in range(40))
    await pipe.publish([*CHANGES, *(a_follow(number) for number in range(9))])
    writer = pipe.processor(mirror=mirror, consumer=consumer)
    await pipe.run_until_empty(writer)
    assert most_deliveries(consumer.received) <= 3
    assert await pipe.dead_letters() == []
    assert writer.stats.applied == len(CHANGES) + 9


async def test_a_real_read_only_database_is_waited_out(pipe: Pipe) -> None:
    """As after a failover to a standby: probes say no until it is writable again."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    probes: list[int] = []

    async def mend_later() -> None:
        probes.append(1)
        if len(probes) == 8:
            await pipe.under_test.take_writes(are_taken=True)

    async def fall(step: Step, deliveries: Sequence[Delivery]) -> None:
        if step is Step.RECEIVED and not probes:
            mirror.before_probe = mend_later
            await pipe.under_test.take_writes(are_taken=False)

    await pipe.publish(CHANGES)
    writer = pipe.processor(
        mirror=mirror, consumer=consumer, hooks=fall, retry_within_s=0.02, lane_count=1
    )
    await pipe.run_until_empty(writer)
    assert len(probes) >= 8
    assert most_deliveries(consumer.received) <= 2
    assert await pipe.dead_letters() == []
    await pipe.assert_mirrors(CHANGES)


async def test_another_schema_stops_the_writer(pipe: Pipe) -> None:
    """Going on could write rows that the tables were not made for."""
    mirror = FaultyMirror(pipe)
    mirror.apply_faults.append(SchemaMismatch("version 9 is installed"))
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, lane_count=1)
    with pytest.raises(SchemaMismatch, match="version 9"):
        await writer.run(asyncio.Event())
    stats = await pipe.stats()
    assert (stats.depth, await pipe.locked_count()) == (len(CHANGES), 0), (
        "everything was given back"
    )


async def test_a_database_that_says_no_at_the_start_is_an_error(pipe: Pipe) -> None:
    """Whoever has just started it is there to read why."""
    mirror = FaultyMirror(pipe)
    mirror.probe_faults.append(DatabaseRefused("no such role"))
    await pipe.publish(CHANGES)
    with pytest.raises(DatabaseRefused, match="role"):
        await pipe.processor(mirror=mirror).run(asyncio.Event())
    assert await pipe.locked_count() == 0


async def test_started_before_the_database_it_waits(pipe: Pipe) -> None:
    """After a power cut nobody can say which of them comes up first."""
    mirror = FaultyMirror(pipe)
    mirror.probe_faults.extend(SqlUnavailable("starting up") for _ in range(5))
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror)
    await pipe.run_until_empty(writer)
    assert writer.stats.applied == len(CHANGES)


async def test_stopped_while_it_waits_for_the_database_it_ends(pipe: Pipe) -> None:
    """Ctrl-C works during an outage, too."""
    mirror, stop = FaultyMirror(pipe), asyncio.Event()
    mirror.probe_faults.extend(SqlUnavailable("gone") for _ in range(1_000))

    async def interrupt() -> None:
        if len(mirror.probe_faults) < 995:
            stop.set()

    mirror.before_probe = interrupt
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, retry_max_s=60.0)
    await writer.run(stop)
    assert writer.stats.received == 0


async def test_stopped_behind_a_closed_gate_it_gives_back_the_canaries(pipe: Pipe) -> None:
    """A canary that stayed locked would be late by a whole lock."""
    mirror, stop = FaultyMirror(pipe), asyncio.Event()
    mirror.apply_faults.extend(DatabaseRefused("disk full") for _ in range(1_000))

    async def interrupt() -> None:
        if len(mirror.sizes) > 5:
            stop.set()

    mirror.before_probe = interrupt
    await pipe.publish(CHANGES)
    await pipe.processor(mirror=mirror).run(stop)
    stats = await pipe.stats()
    assert (stats.depth, await pipe.locked_count()) == (len(CHANGES), 0)


async def test_another_schema_between_batches_stops_the_writer(pipe: Pipe) -> None:
    """A deployment changed the tables while this old writer ran."""
    mirror = FaultyMirror(pipe)
    probes: list[int] = []

    async def deploy() -> None:
        probes.append(1)
        if len(probes) == 2:
            mirror.probe_faults.append(SchemaMismatch("version 9 is installed"))

    mirror.before_probe = deploy
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, clock_check_every_s=0.0)
    with pytest.raises(SchemaMismatch):
        await writer.run(asyncio.Event())
    assert await pipe.locked_count() == 0


@pytest.mark.parametrize("call", ["receive", "complete"])
async def test_a_bus_that_does_not_answer_is_asked_again(pipe: Pipe, call: str) -> None:
    """The bus may fail over as well."""
    consumer = FaultyConsumer(pipe.new_consumer())
    consumer.faults[call] = deque(BusUnavailable("gone") for _ in range(4))
    await pipe.publish(CHANGES)
    writer = pipe.processor(consumer=consumer)
    await pipe.run_until_empty(writer)
    assert writer.stats.applied == len(CHANGES)
    assert writer.stats.settled == len(CHANGES)


async def test_a_bus_that_says_no_stops_the_writer(pipe: Pipe) -> None:
    """A missing topic or right is for a person to mend."""
    consumer = FaultyConsumer(pipe.new_consumer())
    consumer.faults["receive"] = deque([BusRefused("no such subscription")])
    with pytest.raises(BusRefused, match="subscription"):
        await pipe.processor(consumer=consumer).run(asyncio.Event())


async def test_stopped_while_the_bus_does_not_answer_it_ends(pipe: Pipe) -> None:
    """Ctrl-C works during an outage of the bus, too."""
    stop = asyncio.Event()
    consumer = FaultyConsumer(pipe.new_consumer())
    consumer.faults["receive"] = deque(BusUnavailable("gone") for _ in range(1_000))

    async def interrupt(call: str) -> None:
        if len(consumer.faults["receive"]) < 995:
            stop.set()

    consumer.before_call = interrupt
    await pipe.processor(consumer=consumer, retry_max_s=60.0).run(stop)
    assert len(consumer.faults["receive"]) > 900


async def test_what_arrives_behind_a_closing_gate_is_given_back_once(pipe: Pipe) -> None:
    """A receive that was under way must not be swallowed, nor get back what is given back."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    failed, is_under_way = asyncio.Event(), asyncio.Event()
    held_count = 0

    async def wait_for_failure(call: str) -> None:
        if call == "receive" and consumer.received:
            is_under_way.set()
            await failed.wait()

    async def note_held() -> None:
        nonlocal held_count
        if failed.is_set():
            held_count = held_count or len(consumer.received)

    async def fail(step: Step, deliveries: Sequence[Delivery]) -> None:
        if step is Step.BEFORE_APPLY and not failed.is_set():
            await is_under_way.wait()
            mirror.apply_faults.append(DatabaseRefused("disk full"))
            failed.set()

    consumer.before_call, mirror.before_probe = wait_for_failure, note_held
    await pipe.publish(CHANGES)
    writer = pipe.processor(
        mirror=mirror, consumer=consumer, hooks=fail, lane_count=1, receive_max_count=20
    )
    await pipe.run_until_empty(writer)
    assert held_count > 20, "two receives"
    assert writer.stats.abandoned == held_count - 1, "all but the canary"
    assert most_deliveries(consumer.received) == 2
    await pipe.assert_mirrors(CHANGES)


async def test_a_schema_that_changed_during_an_outage_stops_the_writer(pipe: Pipe) -> None:
    """Outages are when databases are replaced by others."""
    mirror = FaultyMirror(pipe)
    mirror.apply_faults.append(DatabaseRefused("shutting down"))
    probes: list[int] = []

    async def replace_schema() -> None:
        probes.append(1)
        if len(probes) == 2:
            mirror.probe_faults.append(SchemaMismatch("version 9 is installed"))

    mirror.before_probe = replace_schema
    await pipe.publish(CHANGES)
    with pytest.raises(SchemaMismatch):
        await pipe.processor(mirror=mirror).run(asyncio.Event())
    assert await pipe.locked_count() == 0


async def test_rows_that_the_bus_was_not_told_of_come_again_as_duplicates(pipe: Pipe) -> None:
    """The bus is away for longer than the locks; the rows are there, and stay right."""
    consumer = FaultyConsumer(pipe.new_consumer())
    consumer.faults["complete"] = deque([BusUnavailable("gone")])

    async def expire(step: Step, deliveries: Sequence[Delivery]) -> None:
        if step is Step.AFTER_COMPLETE and writer.stats.lost_locks and not writer.stats.duplicate:
            await pipe.expire_locks()

    await pipe.publish(CHANGES)
    writer = pipe.processor(consumer=consumer, hooks=expire, lane_count=1, retry_within_s=0.0)
    await pipe.run_until_empty(writer)
    counters = writer.stats.counters()
    assert counters["lost_locks"] == counters["duplicate"] == counters["applied"] == len(CHANGES)
    assert counters["settled"] == len(CHANGES)
    await pipe.assert_mirrors(CHANGES)


async def test_what_was_lost_while_it_waited_is_not_applied(pipe: Pipe) -> None:
    """Another worker has it: doing it again would be work for nothing."""
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    noticed, changes = asyncio.Event(), CHANGES[:5]
    arrived, arrived_count = asyncio.Event(), 0

    async def note() -> None:
        if writer.stats.lost_locks == len(changes):
            noticed.set()

    async def lose(step: Step, deliveries: Sequence[Delivery]) -> None:
        nonlocal arrived_count
        if step is Step.RECEIVED:
            arrived_count += len(deliveries)
            if arrived_count == len(changes):
                arrived.set()
        if step is Step.BEFORE_APPLY and not noticed.is_set():
            await arrived.wait()
            await pipe.expire_locks()
            await noticed.wait()

    await pipe.publish(changes)
    for _ in range(2):
        await consumer.abandon(await consumer.receive(len(changes), max_wait_s=1.0))
    consumer.after_renew = note
    writer = pipe.processor(
        mirror=mirror, consumer=consumer, hooks=lose, lane_count=1, lock_duration_s=0.2
    )
    await pipe.run_until_empty(writer)
    assert writer.stats.lost_locks == len(changes)
    assert len(mirror.sizes) == len(changes) + 1, "the one that was being applied, and all again"
    await pipe.assert_mirrors(changes)


@pytest.mark.parametrize("error", [SqlUnavailable, DatabaseRefused])
async def test_a_failing_probe_between_batches_closes_the_gate(
    pipe: Pipe, error: type[StoreMirrorError]
) -> None:
    """The clocks are compared again and again; the database may be away just then."""
    mirror = FaultyMirror(pipe)
    calls: list[int] = []

    async def fail_later() -> None:
        calls.append(1)
        if len(calls) in (2, 3):
            mirror.probe_faults.append(error("gone"))

    mirror.before_probe = fail_later
    await pipe.publish(CHANGES)
    writer = pipe.processor(mirror=mirror, clock_check_every_s=0.0)
    await pipe.run_until_empty(writer)
    assert len(calls) > 3
    assert writer.stats.settled == len(CHANGES)
    assert writer.stats.abandoned == 0


async def test_from_the_third_delivery_on_events_are_applied_alone(pipe: Pipe) -> None:
    """A batch that killed its worker twice is taken apart."""
    await pipe.publish(CHANGES)
    consumer = pipe.new_consumer()
    for _ in range(2):
        await consumer.abandon(await consumer.receive(len(CHANGES), max_wait_s=1.0))
    mirror = FaultyMirror(pipe)
    await pipe.run_until_empty(pipe.processor(mirror=mirror))
    assert mirror.sizes == [1] * len(CHANGES)


class FailingReread:
    """A document store that does not answer for a while, and then does."""

    def __init__(self, change: Change, faults: Sequence[Exception]) -> None:
        self._change = change
        self.faults = deque(faults)

    async def reread(self, path: str, *, run: str) -> Message:
        if self.faults:
            raise self.faults.popleft()
        return message_of(self._change, run=run)


def a_reread(late: Change, faults: Sequence[Exception]) -> FailingReread:
    current = a_change(late.path, None, START_US + 3 * 86_400_000_000, origin=Origin.REREAD)
    return FailingReread(current, faults)


async def test_an_expired_event_waits_for_the_documents(pipe: Pipe) -> None:
    """Completing it without a replacement would lose the document's newest state."""
    await pipe.set_purge_horizon("2026-01-02")
    late = [a_chat_message(1), a_chat_message(2)]
    await pipe.publish(late)
    reread = a_reread(late[0], [SourceUnavailable("gone") for _ in range(3)])
    consumer = FaultyConsumer(pipe.new_consumer())
    writer = pipe.processor(consumer=consumer, reread=reread)
    await pipe.run_until_empty(writer)
    assert {d.delivery_count for d in consumer.received} == {1}
    assert not reread.faults
    assert await pipe.dead_letters() == []
    row = await pipe.under_test.mirror.row(pipe.model["DmMessage"], ("c1", "m1"))
    assert row is not None
    assert row.state is RowState.TOMBSTONE


async def test_an_expired_event_whose_replacement_the_bus_refuses_is_set_aside(
    pipe: Pipe,
) -> None:
    """A document too large for the bus is for a person to see, and must not stop the others."""
    await pipe.set_purge_horizon("2026-01-02")
    late = a_chat_message(1)
    await pipe.publish([late, a_follow(1)])
    reread = a_reread(late, [MessageRefused("the message is too large")])
    await pipe.run_until_empty(pipe.processor(reread=reread))
    (letter,) = await pipe.dead_letters()
    assert (letter.message.message_id, letter.reason) == (late.event_id, "MessageRefused")
    assert "too large" in letter.description
    assert await pipe.under_test.mirror.row(pipe.model["FollowEdge"], ("u1", "v")) is not None
