"""An app that goes on writing, a bus, a mirror, and writer processes that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import msgspec

from storemirror.apply.drain import drain_realtime_mirror_queue
from storemirror.apply.port import WriterSettings
from storemirror.bus.port import (
    SUBSCRIPTION_SQL_WRITER,
    Message,
    PublishResult,
    SubscriptionSpec,
    SubscriptionStats,
    TopicSpec,
)
from storemirror.bus.postgres import PostgresBusAdmin, PostgresConsumer, PostgresPublisher
from storemirror.check.result import CheckSettings
from storemirror.check.run import run_check
from storemirror.clock import SystemClock, datetime_from_us
from storemirror.demo.app import SocialApp
from storemirror.errors import BusUnavailable, SqlUnavailable
from storemirror.event.value import encode_fields
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import Write
from storemirror.source.relay import TriggerRelay
from storemirror.source.reread import SourceReread
from storemirror.sql.postgres.connection import BUS, DOCUMENTS, Database
from tests.faults.processes.child import Line, Orders, run_writer
from tests.integration.apply.pipe import SOURCE, START_US
from tests.support.mirrors import Audited, MirrorUnderTest, installed_mirror
from tests.support.proxy import Proxy

#: How long anything may take before a test gives up; nothing is timed by it.
PATIENCE_S = 180.0
#: A lock so short that a killed writer's deliveries come back within the test.
LOCK_S = 2.0
#: One that no load of this machine lets run out, for tests in which nobody dies.
LONG_LOCK_S = 60.0
SETTINGS = WriterSettings(
    is_mirror_on=True,
    batch_max_events=40,
    receive_max_count=80,
    receive_wait_s=0.1,
    lock_duration_s=LOCK_S,
    retry_within_s=LOCK_S / 2,
    retry_first_s=0.01,
    retry_max_s=0.2,
    shutdown_timeout_s=10.0,
)
#: Keeps, in the bus's own transactions, the id of every message that left the queue for good.
_WITNESS = b"""
CREATE TABLE witness (message_id text NOT NULL);
CREATE FUNCTION note_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.witness SELECT message_id FROM gone;
    RETURN NULL;
END
$$;
CREATE TRIGGER witness AFTER DELETE ON bus.queue REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_settled();
"""

#: Where processes come from: a server that has everything imported, so that a start takes moments.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.faults.processes.child"])
_numbers = itertools.count(1)
_clock = SystemClock()


async def wait_for(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await _clock.sleep(0.01)


OUTCOMES = ("applied", "repaired", "duplicate", "stale", "expired")


def assert_settlements_are_outcomes(counted: Sequence[dict[str, int]]) -> None:
    """See that every delivery had one end, and every settled one an outcome."""
    for counters in counted:
        ends = ("settled", "lost_locks", "abandoned", "dead_lettered")
        assert counters["received"] == sum(counters[end] for end in ends)
        outcomes = sum(counters[name] for name in OUTCOMES)
        assert counters["settled"] <= outcomes <= counters["settled"] + counters["lost_locks"]


async def ended(process: BaseProcess) -> int:
    """Wait until a process has ended; gives its status, negative for a signal."""

    async def is_over() -> bool:
        return not process.is_alive()

    await wait_for(is_over)
    assert process.exitcode is not None
    return process.exitcode


class Writer:
    """One writer process."""

    def __init__(self, orders: Orders) -> None:
        """Start it."""
        self.orders = orders
        self.process: BaseProcess = processes.Process(target=run_writer, args=(orders,))
        self.process.start()

    def lines(self) -> list[Line]:
        """Read what it has said so far."""
        if not self.orders.report.exists():
            return []
        whole = self.orders.report.read_bytes().splitlines(keepends=True)
        return [msgspec.json.decode(line, type=Line) for line in whole if line.endswith(b"\n")]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        assert self.process.pid is not None
        if self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def ended(self) -> int:
        """Wait until it has ended; gives its status, negative for a signal."""
        return await ended(self.process)

    async def has_stopped(self) -> None:
        """Wait until SIGSTOP has taken effect."""

        async def is_stopped() -> bool:
            return self._state() == "T"

        await wait_for(is_stopped)

    def _state(self) -> str:
        """Give the process's state as the kernel names it."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    def log(self) -> str:
        """Give what it logged."""
        return self.orders.log.read_text() if self.orders.log.exists() else ""


class CountingPublisher:
    """The real publisher; remembers what the bus took, and asks again while it does not answer."""

    def __init__(self, publisher: PostgresPublisher) -> None:
        """Have published nothing yet."""
        self._publisher = publisher
        self.sent: dict[str, Message] = {}
        #: False: a call that ends without an answer is an error.
        self.is_patient = True
        #: Calls that ended without an answer, and so were made again.
        self.unanswered_count = 0
        #: What the bus said it knew already.
        self.duplicate_count = 0

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        """See `Publisher.publish`; ends when the bus has the messages."""
        while True:
            try:
                result = await self._publisher.publish(messages)
            except BusUnavailable:
                if not self.is_patient:
                    raise
                self.unanswered_count += 1
                await _clock.sleep(0.05)
            else:
                self.sent |= {message.message_id: message for message in messages}
                self.duplicate_count += result.duplicate_count
                return result

    async def aclose(self) -> None:
        """Leave the publisher to its owner."""


class Mirrored(Audited, Protocol):
    """A mirror in any dialect, and where its writers find it."""

    @property
    def model(self) -> Model:
        """Give the declarations."""
        ...

    @property
    def dsn(self) -> str:
        """Give its address."""
        ...

    @property
    def rendering(self) -> Named:
        """Give how its tables are called."""
        ...


class Named(Protocol):
    """What is asked of a dialect's rendering here."""

    schema_name: str


def a_message(conversation: str, message: str) -> Write:
    """Give a write of a message, of which the app knows nothing."""
    fields = {"senderId": "u1", "body": "hello", "sentAt": datetime_from_us(START_US)}
    return Write(
        path=f"conversations/{conversation}/messages/{message}", fields=encode_fields(fields)
    )


class World:
    """See `running_world`."""

    def __init__(
        self,
        *,
        documents: str,
        store: EmbeddedDocumentStore,
        bus: Database,
        mirrored: Mirrored,
        publisher: PostgresPublisher,
        folder: Path,
        bus_dsn: str,
    ) -> None:
        """Name the parts, all open."""
        self.publisher = CountingPublisher(publisher)
        self.mirrored = mirrored
        self.admin = PostgresBusAdmin(bus)
        self.bus = bus
        self.bus_dsn = bus_dsn
        self.store = store
        self.model = mirrored.model
        self.writers: list[Writer] = []
        self._app = SocialApp(store, _clock, seed=random.randrange(2**32))
        self._relay = TriggerRelay(store, self.model, self.publisher, _clock, source=SOURCE)
        self._folder = folder
        self._orders = Orders(
            documents=documents,
            bus=bus_dsn,
            mirror=mirrored.dsn,
            schema=mirrored.rendering.schema_name,
            report=folder,
            log=folder,
            settings=SETTINGS,
        )

    @property
    def under_test(self) -> MirrorUnderTest:
        """Give the mirror on PostgreSQL, with a way past its adapter."""
        assert isinstance(self.mirrored, MirrorUnderTest)
        return self.mirrored

    @property
    def addresses(self) -> tuple[str, str, str]:
        """Give where writers find documents, bus and mirror."""
        return self._orders.documents, self._orders.bus, self._orders.mirror

    async def provision(self, lock_s: float) -> None:
        """Make the topic, or give its only subscription another lock duration."""
        spec = SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER, lock_duration_s=lock_s)
        await self.admin.provision(TopicSpec(subscriptions=(spec,)))

    async def write(self, action_count: int) -> None:
        """Let people do things, and have the triggers tell the bus."""
        for _ in range(action_count):
            await self._app.step()
        await self._tell()

    async def commit(self, *writes: Write) -> None:
        """Write documents that the app knows nothing of, and have the triggers tell the bus."""
        await self.store.commit(writes)
        await self._tell()

    async def _tell(self) -> None:
        while await self._relay.relay_batch():
            pass

    async def write_once(self, action_count: int) -> None:
        """The same; a bus that does not answer is an error, and the changes wait."""
        self.publisher.is_patient = False
        try:
            await self.write(action_count)
        finally:
            self.publisher.is_patient = True

    def start_writer(
        self,
        *,
        through: Proxy | None = None,
        settings: WriterSettings = SETTINGS,
        **orders: Any,
    ) -> Writer:
        """Start a writer process, behind a proxy if one is named; `orders` as in `Orders`."""
        number = next(_numbers)
        if through is not None:
            names = ("documents", "bus", "mirror")
            named = zip(names, self.addresses, strict=True)
            orders |= {name: through.dsn(address) for name, address in named}
        told = replace(
            self._orders,
            report=self._folder / f"{number}.jsonl",
            log=self._folder / f"{number}.log",
            settings=settings,
            **orders,
        )
        self.writers.append(Writer(told))
        return self.writers[-1]

    async def stats(self) -> SubscriptionStats:
        """Count what is on the bus."""
        return await self.admin.stats(SUBSCRIPTION_SQL_WRITER)

    async def has_answered(self) -> bool:
        """Tell whether the mirror answers; connections that broke while nobody looked are gone."""
        try:
            await self.mirrored.mirror.probe()
        except SqlUnavailable:
            return False
        return True

    async def is_settled(self) -> bool:
        """Tell whether nothing waits; while the bus is away nobody knows."""
        try:
            return (await self.stats()).depth == 0
        except BusUnavailable:
            return False

    async def settled(self) -> None:
        """Wait until nothing waits any more."""
        await wait_for(self.is_settled)

    async def has_started(self, writer: Writer) -> None:
        """Wait until a writer is about to receive."""

        async def is_open() -> bool:
            assert writer.process.exitcode in (None, -signal.SIGKILL), writer.log()[-2_000:]
            return bool(writer.lines()) or not writer.process.is_alive()

        await wait_for(is_open)

    async def stop_writers(self) -> list[dict[str, int]]:
        """Ask those that live to end, and give what each of them counted."""
        living = [writer for writer in self.writers if writer.process.is_alive()]
        for writer in living:
            # Before it has begun, a signal ends it without a word.
            await self.has_started(writer)
            writer.send(signal.SIGTERM)
        counted = []
        for writer in living:
            assert await writer.ended() == 0, writer.log()[-2_000:]
            counters = writer.lines()[-1].counters
            assert counters is not None
            counted.append(counters)
        return counted

    async def drain(self) -> None:
        """Put back, once, what the bus set aside after too many deliveries, and apply it."""
        consumer = PostgresConsumer(self.bus, _clock, subscription=SUBSCRIPTION_SQL_WRITER)
        try:
            drained = await drain_realtime_mirror_queue(
                consumer=consumer,
                publisher=self.publisher,
                admin=self.admin,
                mirror=self.mirrored.mirror,
                model=self.model,
                source=SOURCE,
                clock=_clock,
                reread=SourceReread(self.store, self.model, source=SOURCE),
                settings=SETTINGS,
                max_duration_s=PATIENCE_S,
            )
        finally:
            await consumer.aclose()
        assert drained.is_drained

    async def settled_ids(self) -> Counter[str]:
        """Give how often each message left the queue for good, as the bus's database has it."""
        found = await self.bus.fetch("SELECT message_id FROM witness")
        return Counter(message_id for (message_id,) in found)

    async def account(self) -> None:
        """See that both sides are equal, and that every event is accounted for."""
        await wait_for(self.has_answered)
        await self.drain()
        found = await run_check(
            store=self.store,
            mirror=self.mirrored.mirror,
            model=self.model,
            bus_admin=self.admin,
            subscription=SUBSCRIPTION_SQL_WRITER,
            pending=self.store.pending_count,
            clock=_clock,
            settings=CheckSettings(drain_timeout_s=PATIENCE_S),
        )
        assert found.is_clean, found.mismatches[:5]
        assert found.dead_letter_count == 0
        settled = await self.settled_ids()
        originals = {message_id.partition(".")[0] for message_id in settled}
        assert originals == set(self.publisher.sent), "every published id was settled"
        assert set(settled.values()) == {1}, "and none of them twice for good"
        audited = await self.mirrored.audit_ids(self.model["DmMessage"])
        sent = self.publisher.sent.values()
        messages = [m.message_id for m in sent if m.properties["entity"] == "DmMessage"]
        assert sorted(audited) == sorted(messages), "one audit row a distinct event"

    def reported(self) -> tuple[Counter[str], Counter[str]]:
        """Give what all writers said: ids settled, and outcomes."""
        ids: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        for writer in self.writers:
            for line in writer.lines():
                ids.update(line.settled_ids)
                outcomes.update(line.outcomes)
        return ids, outcomes


@contextlib.asynccontextmanager
async def running_world(
    *, documents: str, bus: str, mirror: str | Mirrored, folder: Path
) -> AsyncIterator[World]:
    """
    Lend a world in which nothing has happened yet; its writers are killed in the end.

    Args:
        documents: address of an empty database.
        bus: likewise.
        mirror: likewise, or one that is installed already.
        folder: where writers report and log.
    """
    async with contextlib.AsyncExitStack() as stack:
        databases = Database(documents, DOCUMENTS, max_size=6), Database(bus, BUS, max_size=6)
        for database in databases:
            await database.open()
            stack.push_async_callback(database.aclose)
        store, bus_database = EmbeddedDocumentStore(databases[0]), databases[1]
        await store.prepare()
        if isinstance(mirror, str):
            mirror = await stack.enter_async_context(installed_mirror(load_model(), mirror))
        publisher = PostgresPublisher(bus_database, _clock)
        stack.push_async_callback(publisher.aclose)
        world = World(
            documents=documents,
            store=store,
            bus=bus_database,
            mirrored=mirror,
            publisher=publisher,
            folder=folder,
            bus_dsn=bus,
        )
        await world.provision(LOCK_S)
        async with bus_database.connection() as conn:
            await conn.execute(_WITNESS)
        try:
            yield world
        finally:
            for writer in world.writers:
                writer.send(signal.SIGKILL)
                await writer.ended()
