"""
A writer in a process of its own, which stops or kills itself at a step, when it is told to.

What it has done it writes into a file, line by line, past every buffer: a process that is killed
leaves its words behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from storemirror import loop
from storemirror.apply.port import BatchReport, Step, WriterSettings
from storemirror.apply.writer import create_sql_writer_processor
from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Delivery
from storemirror.bus.postgres import PostgresConsumer, PostgresPublisher
from storemirror.clock import SystemClock
from storemirror.event.change import Change
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.reread import SourceReread
from storemirror.sql.dialects import Dialect, Names, dialect_of, sql_parts
from storemirror.sql.port import SqlMirror
from storemirror.sql.postgres.connection import BUS, DOCUMENTS, MIRROR, Connection, Database
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.sql.postgres.rendering import Rendering
from storemirror.telemetry import configure_logging
from tests.integration.apply.pipe import SOURCE, START_US, a_chat_message, message_of
from tests.support.mirrors import PROJECT, SCHEMA, STORE

#: The step that lies inside the adapter: the procedures have run, and nothing is committed.
BEFORE_COMMIT = "before_commit"
STEPS = (Step.RECEIVED.value, Step.BEFORE_APPLY.value, BEFORE_COMMIT,
         Step.AFTER_APPLY_BEFORE_COMPLETE.value, Step.AFTER_COMPLETE.value)  # fmt: skip


class Line(msgspec.Struct, frozen=True):
    """What a writer says: empty once all is open, a batch that it settled, its counters at last."""

    settled_ids: tuple[str, ...] = ()
    #: Outcome -> deliveries, of one batch.
    outcomes: dict[str, int] = {}
    #: `WriterStats.counters`, in its last line.
    counters: dict[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a writer process is to do."""

    documents: str
    bus: str
    mirror: str
    #: Schema of the mirror's tables.
    schema: str = SCHEMA
    #: Of this process alone.
    report: Path
    log: Path
    #: One of `STEPS`; None: it strikes nowhere.
    strikes_at: str | None = None
    #: How often the step is passed before.
    passes: int = 0
    signal: signal.Signals = signal.SIGKILL
    settings: WriterSettings
    stall_timeout_s: float = 60.0


class Striker:
    """Sends this process a signal at a step, once."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._left = orders.passes

    async def at_step(self, step: Step, deliveries: Sequence[Delivery]) -> None:
        """See `storemirror.apply.port.StepHook`."""
        self.reach(step.value)

    def reach(self, step: str) -> None:
        """Strike here, if it is the step, and the time."""
        if step != self._orders.strikes_at:
            return
        if self._left == 0:
            os.kill(os.getpid(), self._orders.signal)
        self._left -= 1


class _WatchedConnection:
    """A connection that tells of the moment before a commit."""

    def __init__(self, conn: Connection, before_commit: Callable[[], None]) -> None:
        self._conn = conn
        self._before_commit = before_commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[object]:
        async with self._conn.transaction() as transaction:
            yield transaction
            self._before_commit()


class WatchedDatabase(Database):
    """The mirror's database; tells of the moment before each commit."""

    def __init__(self, dsn: str, before_commit: Callable[[], None], **settings: Any) -> None:
        super().__init__(dsn, MIRROR, **settings)
        self._before_commit = before_commit

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with super().connection() as conn:
            yield _WatchedConnection(conn, self._before_commit)


class Report:
    """The file of what was done."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def batch(self, batch: BatchReport) -> None:
        """See `storemirror.apply.port.BatchObserver`."""
        ids = tuple(delivery.message.message_id for delivery in batch.settled)
        self.write(Line(settled_ids=ids, outcomes=dict(Counter(o.value for o in batch.outcomes))))

    def write(self, line: Line) -> None:
        """Add a line, whole or not at all."""
        os.write(self._file, msgspec.json.encode(line) + b"\n")


@contextlib.asynccontextmanager
async def opened_mirror(orders: Orders, model: Model, striker: Striker) -> AsyncIterator[SqlMirror]:
    """Lend the mirror in the dialect of its address."""
    if dialect_of(orders.mirror) is Dialect.SQLSERVER:
        names = Names(model=model, schema_name=orders.schema, procedures={})
        parts = sql_parts(orders.mirror, names, project=PROJECT, store=STORE, max_size=8)
        await parts.open()
        try:
            # A transaction is one batch there: no moment before its commit can be told.
            yield parts.mirror()
        finally:
            await parts.aclose()
        return
    database = WatchedDatabase(
        orders.mirror,
        lambda: striker.reach(BEFORE_COMMIT),
        stall_timeout_s=orders.stall_timeout_s,
    )
    await database.open()
    try:
        rendering = Rendering(model, schema_name=orders.schema, procedures={})
        yield PostgresMirror(database, rendering, project=PROJECT, store=STORE)
    finally:
        await database.aclose()


async def apply_events(orders: Orders) -> None:
    """Apply events until SIGTERM."""
    clock, model, striker = SystemClock(), load_model(), Striker(orders)
    report, stop = Report(orders.report), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        stall_s = orders.stall_timeout_s
        bus = Database(orders.bus, BUS, stall_timeout_s=stall_s)
        documents = Database(orders.documents, DOCUMENTS)
        for database in (bus, documents):
            await database.open()
            stack.push_async_callback(database.aclose)
        publisher = PostgresPublisher(bus, clock)
        stack.push_async_callback(publisher.aclose)
        consumer = PostgresConsumer(bus, clock, subscription=SUBSCRIPTION_SQL_WRITER)
        stack.push_async_callback(consumer.aclose)
        processor = create_sql_writer_processor(
            consumer=consumer,
            publisher=publisher,
            mirror=await stack.enter_async_context(opened_mirror(orders, model, striker)),
            model=model,
            source=SOURCE,
            clock=clock,
            reread=SourceReread(EmbeddedDocumentStore(documents), model, source=SOURCE),
            settings=dataclasses.replace(orders.settings),
            hooks=striker.at_step,
            on_batch=report.batch,
        )
        report.write(Line())
        await processor.run(stop)
        report.write(Line(counters=processor.stats.counters()))


def run_writer(orders: Orders) -> None:
    """Be the writer; where the process begins."""
    sys.stderr = orders.log.open("a", buffering=1)
    configure_logging("info")
    loop.run(apply_events(orders))


@dataclass(frozen=True, kw_only=True)
class PublisherOrders:
    """What a publisher process is to do."""

    bus: str
    #: Numbers of messages, as in `chat_message`.
    numbers: range
    report: Path
    batch_size: int = 100


class Published(msgspec.Struct, frozen=True):
    """What a publisher process says in the end."""

    accepted: int
    duplicates: int


def chat_message(number: int) -> Change:
    """Give one of many messages, in a few conversations; every fifth is edited by the next one."""
    edited = number - 1 if number % 5 == 0 and number else number
    return a_chat_message(
        edited,
        conversation=f"c{edited % 20}",
        at_us=START_US + 10**9 + number,
        body=f"text {number}",
    )


async def publish_messages(orders: PublisherOrders) -> None:
    """Publish them all, batch by batch."""
    database = Database(orders.bus, BUS)
    await database.open()
    publisher = PostgresPublisher(database, SystemClock())
    accepted = duplicates = 0
    for first in range(orders.numbers.start, orders.numbers.stop, orders.batch_size):
        numbers = range(first, min(first + orders.batch_size, orders.numbers.stop))
        result = await publisher.publish([message_of(chat_message(n)) for n in numbers])
        accepted += result.accepted_count
        duplicates += result.duplicate_count
    await publisher.aclose()
    await database.aclose()
    orders.report.write_bytes(msgspec.json.encode(Published(accepted, duplicates)))


def run_publisher(orders: PublisherOrders) -> None:
    """Be the publisher; where the process begins."""
    loop.run(publish_messages(orders))
