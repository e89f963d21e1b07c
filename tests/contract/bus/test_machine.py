"""
A state machine over the bus: whatever is called in whatever order, every adapter answers alike.

Each call goes to a plain model and to the adapter, and the answers are compared; after every step
so are the numbers and the dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from storemirror.bus.port import (
    Consumer,
    Delivery,
    ExpiryAction,
    Rejection,
    SubscriptionSpec,
    TopicSpec,
)
from storemirror.errors import BusRefused
from storemirror.sql.postgres.connection import BUS, Database, sql
from storemirror.sql.postgres.server import EmbeddedServer
from tests.contract.bus.model import Held, ModelBus
from tests.contract.bus.servicebus_under_test import ServiceBusUnderTest
from tests.contract.bus.under_test import (
    MONITORING,
    WRITER,
    BusUnderTest,
    MemoryUnderTest,
    PostgresUnderTest,
    a_message,
    counted,
    ids,
    receive_now,
    told,
)
from tests.standins.servicebus import running_standin
from tests.support.databases import lent_database


def spec_of(unit_s: float) -> TopicSpec:
    """Give a topic whose every limit lies well between two units of time.

    So the time which really passes on a database's clock decides nothing.
    """
    return TopicSpec(
        duplicate_window_s=3.5 * unit_s,
        subscriptions=(
            SubscriptionSpec(
                name=WRITER,
                lock_duration_s=1.5 * unit_s,
                max_delivery_count=2,
                time_to_live_s=6.5 * unit_s,
            ),
            SubscriptionSpec(
                name=MONITORING,
                lock_duration_s=2.5 * unit_s,
                max_delivery_count=3,
                time_to_live_s=4.5 * unit_s,
                on_expiry=ExpiryAction.DROP,
            ),
        ),
    )


#: Time passes in these units; on Service Bus a lock lasts five minutes at most.
UNIT_S = 1_000.0
SERVICE_BUS_UNIT_S = 100.0
SPEC = spec_of(UNIT_S)
SCALE = max(1, settings.default.max_examples // 100) if settings.default else 1
_SETTINGS = settings(
    deadline=None,
    database=None,
    derandomize=SCALE == 1,
    suppress_health_check=list(HealthCheck),
    stateful_step_count=30,
)
_T = TypeVar("_T")
_NUMBERS = itertools.count()

SUBSCRIPTION = st.sampled_from([WRITER, WRITER, MONITORING])
#: Few ids, so that duplicates are common; a dot makes a replacement's.
IDS = st.lists(st.sampled_from(["a", "b", "c", "d.r0"]), min_size=1, max_size=4)
#: Which of the deliveries had so far, lost ones among them.
WHICH = st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True)


@dataclass(frozen=True, slots=True)
class Had:
    """One delivery, as the model and the adapter gave it."""

    subscription: str
    held: Held
    delivery: Delivery


class BusMachine(RuleBasedStateMachine):
    """Calls model and adapter side by side."""

    #: Gives a provisioned bus with nothing in it.
    make_bus: Callable[[], Coroutine[object, object, BusUnderTest]]
    runner: asyncio.Runner
    make_model: type[ModelBus] = ModelBus
    unit_s = UNIT_S

    def __init__(self) -> None:
        super().__init__()
        self.bus = bus = self.run(type(self).make_bus())
        self.model = self.make_model(spec_of(self.unit_s))
        self.had: list[Had] = []
        self._publisher = bus.publisher()
        self._consumers = {name: self.new_consumer(name) for name in (WRITER, MONITORING)}

    def new_consumer(self, subscription: str) -> Consumer:
        """Make a consumer."""
        return self.bus.consumer(subscription)

    def run(self, work: Coroutine[object, object, _T]) -> _T:
        """Run on the loop that the adapter lives on."""
        return self.runner.get_loop().run_until_complete(work)

    @rule(message_ids=IDS)
    def publish(self, message_ids: list[str]) -> None:
        sent = list(dict.fromkeys(message_ids))
        result = self.run(self._publisher.publish([a_message(one) for one in sent]))
        accepted_count = self.model.publish(sent)
        duplicate_count = len(sent) - accepted_count
        assert told(self.bus, result, accepted=accepted_count, duplicate=duplicate_count)

    @rule(subscription=SUBSCRIPTION, max_count=st.integers(1, 5))
    def receive(self, subscription: str, max_count: int) -> None:
        found = self.run(receive_now(self._consumers[subscription], max_count))
        expected = self.model.receive(subscription, max_count)
        assert ids(found) == [held.waiting.message_id for held in expected]
        counts = [held.waiting.delivery_count for held in expected]
        assert [delivery.delivery_count for delivery in found] == counts
        self.had += [
            Had(subscription, held, delivery)
            for held, delivery in zip(expected, found, strict=True)
        ]

    def chosen(self, subscription: str, which: Sequence[int]) -> list[Had]:
        """Give some of a subscription's deliveries, the latest first in line."""
        mine = [had for had in reversed(self.had) if had.subscription == subscription]
        return [mine[index] for index in which if index < len(mine)]

    def compare(self, chosen: Sequence[Had], kept: Sequence[bool], lost: list[Delivery]) -> None:
        """See that the adapter calls those lost that the model does."""
        expected = [had.delivery for had, is_kept in zip(chosen, kept, strict=True) if not is_kept]
        assert lost == expected

    @rule(subscription=SUBSCRIPTION, which=WHICH)
    def complete(self, subscription: str, which: list[int]) -> None:
        chosen = self.chosen(subscription, which)
        lost = self.run(self._consumers[subscription].complete([h.delivery for h in chosen]))
        self.compare(chosen, [self.model.complete(subscription, h.held) for h in chosen], lost)

    @rule(subscription=SUBSCRIPTION, which=WHICH)
    def abandon(self, subscription: str, which: list[int]) -> None:
        chosen = self.chosen(subscription, which)
        lost = self.run(self._consumers[subscription].abandon([h.delivery for h in chosen]))
        self.compare(chosen, [self.model.abandon(subscription, h.held) for h in chosen], lost)

    @rule(subscription=SUBSCRIPTION, which=WHICH)
    def dead_letter(self, subscription: str, which: list[int]) -> None:
        chosen = self.chosen(subscription, which)
        rejections = [Rejection(delivery=h.delivery, reason="Bad", description="") for h in chosen]
        lost = self.run(self._consumers[subscription].dead_letter(rejections))
        kept = [self.model.dead_letter(subscription, h.held, "Bad") for h in chosen]
        self.compare(chosen, kept, lost)

    @rule(subscription=SUBSCRIPTION, which=WHICH)
    def renew(self, subscription: str, which: list[int]) -> None:
        chosen = self.chosen(subscription, which)
        renewed = self.run(self._consumers[subscription].renew([h.delivery for h in chosen]))
        kept = [h.delivery for h in chosen if self.model.renew(subscription, h.held)]
        assert [d.sequence_number for d in renewed] == [d.sequence_number for d in kept]

    @rule(units=st.integers(1, 3))
    def let_pass(self, units: int) -> None:
        self.run(self.bus.let_pass(units * self.unit_s))
        self.model.let_pass(units * self.unit_s)

    @rule(which=st.integers(0, 5), run=st.sampled_from(["r0", "r1", "r2"]))
    def resubmit(self, which: int, run: str) -> None:
        letters = self.run(self.bus.admin.peek_dead_letters(WRITER, limit=100))
        if which >= len(letters):
            return
        expected = self.model.resubmit(WRITER, which, run)
        resubmitted = self.bus.admin.resubmit(WRITER, letters[which].sequence_number, run=run)
        if expected is None:
            with pytest.raises(BusRefused):
                self.run(resubmitted)
        else:
            assert self.run(resubmitted) == expected

    @rule(which=st.integers(0, 5))
    def acknowledge(self, which: int) -> None:
        letters = self.run(self.bus.admin.peek_dead_letters(WRITER, limit=100))
        if which >= len(letters):
            return
        acknowledged = self.bus.admin.acknowledge(
            WRITER, letters[which].sequence_number, reason="known"
        )
        if letters[which].acknowledged_reason is None:
            self.run(acknowledged)
            self.model.acknowledge(WRITER, which)
        else:
            with pytest.raises(BusRefused):
                self.run(acknowledged)

    @invariant()
    def every_number_and_dead_letter_is_the_model_s(self) -> None:
        self.run(self._look())

    async def _look(self) -> None:
        for name in (WRITER, MONITORING):
            stats = await self.bus.admin.stats(name)
            depth, locked, dead, acknowledged, completed = self.model.counts(name)
            assert stats.depth == depth, name
            assert stats.locked_count == counted(self.bus, locked), name
            assert stats.dead_letter_count == dead, name
            assert stats.acknowledged_count == acknowledged, name
            assert stats.completed_count == counted(self.bus, completed), name
        letters = await self.bus.admin.peek_dead_letters(WRITER, limit=100)
        named = [(o.message.message_id, o.reason, o.delivery_count) for o in letters]
        assert named == [
            (o.message_id, o.reason, o.delivery_count)
            for o in self.model.subscriptions[WRITER].letters
        ]

    def teardown(self) -> None:
        self.run(self.bus.aclose())


async def memory_bus() -> MemoryUnderTest:
    """Give a memory bus."""
    bus = MemoryUnderTest()
    await bus.admin.provision(SPEC)
    return bus


class MemoryMachine(BusMachine):
    """Calls the memory bus."""

    make_bus = staticmethod(memory_bus)


class PostgresMachine(BusMachine):
    """Moves the low-water mark and sweeps as well, which nobody may notice."""

    @rule()
    def do_upkeep(self) -> None:
        assert isinstance(self.bus, PostgresUnderTest)
        self.run(self.bus.run_upkeep())


def test_the_memory_bus_answers_as_the_model_does(runner: asyncio.Runner) -> None:
    """It stands in for the others in many tests."""

    class Machine(MemoryMachine):
        pass

    Machine.runner = runner
    run_state_machine_as_test(Machine, settings=settings(_SETTINGS, max_examples=25 * SCALE))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop that Hypothesis's plain functions can run work on."""
    with asyncio.Runner() as one:
        yield one


@pytest.mark.postgres
def test_the_postgresql_bus_answers_as_the_model_does(
    postgres: EmbeddedServer, runner: asyncio.Runner
) -> None:
    """Whatever order people and machines call it in."""
    with contextlib.ExitStack() as until_end:
        name = f"bus_machine_{next(_NUMBERS)}"
        dsn = until_end.enter_context(lent_database(postgres.dsn("postgres"), name))
        database = Database(dsn, BUS, max_size=6)
        runner.run(database.open())
        until_end.callback(lambda: runner.run(database.aclose()))

        async def postgres_bus() -> PostgresUnderTest:
            bus = PostgresUnderTest(dsn, database)
            await bus.admin.provision(SPEC)
            async with database.transaction() as conn:
                for table in ("queue", "dead_letter", "seen", "completed"):
                    await conn.execute(sql.SQL("DELETE FROM bus.{}").format(sql.Identifier(table)))
            return bus

        class Machine(PostgresMachine):
            make_bus = staticmethod(postgres_bus)

        Machine.runner = runner
        run_state_machine_as_test(Machine, settings=settings(_SETTINGS, max_examples=8 * SCALE))


class SwallowingNothing(ModelBus):
    """Knows a resubmission by run and number: no id that was seen swallows it."""

    def resubmit(self, name: str, index: int, run: str) -> str | None:
        subscription = self.subscriptions[name]
        letter = subscription.letters.pop(index)
        message_id = f"{letter.message_id.partition('.')[0]}.{run}"
        self._put(subscription, message_id)
        return message_id


class ServiceBusMachine(BusMachine):
    """Takes from one link: several share a reception out among them, and give less at a time."""

    make_model = SwallowingNothing
    unit_s = SERVICE_BUS_UNIT_S

    def new_consumer(self, subscription: str) -> Consumer:
        assert isinstance(self.bus, ServiceBusUnderTest)
        return self.bus.consumer(subscription, link_count=1)


def test_service_bus_answers_as_the_model_does(runner: asyncio.Runner) -> None:
    """Each answer crosses the wire, so that these are fewer."""
    with running_standin() as standin:

        async def service_bus() -> ServiceBusUnderTest:
            standin.call(standin.topics.clear)
            bus = ServiceBusUnderTest(
                standin.connection_string(),
                standin=standin,
                management=standin.management_endpoint,
            )
            await bus.admin.provision(spec_of(SERVICE_BUS_UNIT_S))
            return bus

        class Machine(ServiceBusMachine):
            make_bus = staticmethod(service_bus)

        Machine.runner = runner
        run_state_machine_as_test(Machine, settings=settings(_SETTINGS, max_examples=4 * SCALE))


class ForgetfulModel(ModelBus):
    """Takes what is given back for settled."""

    def abandon(self, name: str, held: Held) -> bool:
        return self.complete(name, held)


def test_a_machine_finds_a_difference(runner: asyncio.Runner) -> None:
    """A machine that finds nothing says something only if it would have found this."""

    class Machine(MemoryMachine):
        make_model = ForgetfulModel

    Machine.runner = runner
    unshrunk = settings(_SETTINGS, max_examples=100, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=unshrunk)
