"""
Chooses the adapters that every command may ask for.

A command asks `Parts` for what it needs; only that is opened, and all of it is closed in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from storemirror.apply.drain import DrainStats, drain_realtime_mirror_queue
from storemirror.apply.port import BatchObserver, StepHook, WriterSettings
from storemirror.apply.put_back import DeadLetterRound
from storemirror.apply.readiness import refuse_if_off
from storemirror.apply.schedule import Drain
from storemirror.apply.writer import SqlWriterProcessor, create_sql_writer_processor
from storemirror.bus.port import BusAdmin, Consumer, Publisher, SubscriptionSpec, TopicSpec
from storemirror.bus.postgres import PostgresBus
from storemirror.clock import Clock, SystemClock
from storemirror.config import Settings
from storemirror.config.collisions import OWN_SCHEMAS, collisions
from storemirror.errors import ConfigError
from storemirror.event.envelope import source_of
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import DocumentStore
from storemirror.source.relay import TriggerRelay
from storemirror.source.reread import SourceReread
from storemirror.sql.dialects import (
    Dialect,
    Names,
    SqlParts,
    address_of,
    dialect_of,
    rendered_files,
    rendered_grants,
    sql_parts,
)
from storemirror.sql.grants import Job
from storemirror.sql.port import RebaseLedger, SchemaAdmin, SqlMirror
from storemirror.sql.postgres.connection import BUS, DOCUMENTS, Database, Kind
from storemirror.sql.reads import SqlReads
from storemirror.wiring.service_bus import open_service_bus

if TYPE_CHECKING:
    from storemirror.bus.servicebus import ServiceBus
    from storemirror.source.deliveries import Deliveries
    from storemirror.source.receiver_auth import CallerRules

#: Connections beside those of the lanes: probes, stubs, the checker.
_SPARE_CONNECTIONS: Final = 4


class Parts:
    """Opens parts on demand, each once, and closes them on leaving."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Remember the settings; nothing is opened."""
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self._model: Model | None = None
        self._is_store_prepared = False
        self._databases: dict[str, Database] = {}
        self._service_bus: ServiceBus | None = None
        self._sql_parts: SqlParts | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin."""
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close whatever was opened, the last first."""
        await self._stack.__aexit__(kind, error, trace)

    @property
    def model(self) -> Model:
        """Give the declared entities; DeclarationInvalid when a declaration is wrong."""
        if self._model is None:
            declared = self.settings.model
            self._model = load_model(declared.files, with_builtin=declared.with_builtin)
        return self._model

    @property
    def source(self) -> str:
        """Give the CloudEvents source of the mirrored Firestore."""
        firestore = self.settings.firestore
        return source_of(self.settings.text_of("firestore.project"), firestore.database)

    @property
    def subscription(self) -> str:
        """Give the writer's subscription."""
        return self.settings.bus.subscription

    def topic(self, *, lock_duration_s: float | None = None) -> TopicSpec:
        """Give the topic and its subscriptions as the settings name them."""
        topic = TopicSpec(name=self.settings.bus.topic)
        writer, *others = topic.subscriptions
        lock_s = writer.lock_duration_s if lock_duration_s is None else lock_duration_s
        named = SubscriptionSpec(name=self.subscription, lock_duration_s=lock_s)
        return TopicSpec(name=topic.name, subscriptions=(named, *others))

    def writer_settings(self, *, lock_duration_s: float | None = None) -> WriterSettings:
        """Give the writer's settings, with the lock that `topic` provisions."""
        writer = self.settings.writer
        lock_s = self.topic(lock_duration_s=lock_duration_s).subscriptions[0].lock_duration_s
        return WriterSettings(
            is_mirror_on=self.settings.is_mirror_on,
            lane_count=writer.lane_count,
            batch_max_events=writer.batch_max_events,
            batch_max_bytes=writer.batch_max_bytes,
            lock_duration_s=lock_s,
            retry_within_s=min(writer.retry_within_s, lock_s / 2),
            shutdown_timeout_s=writer.shutdown_timeout_s,
        )

    def require(self, *names: str) -> None:
        """
        See that these settings, and the project, are set, and that none of them makes a loop.

        Raises:
            ConfigError: one is not set, or the mirror would be written into what is watched;
                lists all of the kind.
        """
        self.settings.require("firestore.project", *names)
        self.refuse_loops()

    def refuse_loops(self) -> None:
        """
        See that the mirror has no place among the tables of documents or bus.

        Raises:
            ConfigError: it has; names both settings.
        """
        settings = self.settings
        found = collisions(
            places={
                name: self._address_of(name)
                for name in ("sql.dsn", *OWN_SCHEMAS)
                if settings.is_set(name)
                and (name != "documents.dsn" or settings.documents.kind == "embedded")
            },
            schema_name=settings.sql.schema_name,
            procedures=settings.procedures,
        )
        if found:
            listed = "".join(f"\n  {line}" for line in found)
            raise ConfigError(f"the mirror would call for itself; nothing was started{listed}")

    def _address_of(self, name: str) -> Hashable:
        try:
            return address_of(self.settings.text_of(name))
        except ConfigError as exc:
            raise ConfigError(f"{name} {exc}") from None

    def render_schema(
        self, *, dialect: Dialect | None = None, is_drop_create: bool = False
    ) -> Mapping[str, str]:
        """
        Give the deployment as files; needs neither a database nor its address.

        Args:
            dialect: None: that of `sql.dsn`, and PostgreSQL's where it is not set.
            is_drop_create: see `storemirror.sql.dialects.rendered_files`.
        """
        return rendered_files(
            self._dialect(dialect), self._sql_names(), is_drop_create=is_drop_create
        )

    def render_grants(
        self, *, role: str, jobs: Collection[Job], dialect: Dialect | None = None
    ) -> str:
        """
        Give the script that grants a user what it needs; needs no database either.

        Args:
            role: the user's name.
            jobs: what it does.
            dialect: see `render_schema`.
        """
        return rendered_grants(self._dialect(dialect), self._sql_names(), role=role, jobs=jobs)

    def _dialect(self, given: Dialect | None) -> Dialect:
        dsn = self.settings.sql.dsn
        return given or dialect_of("" if dsn is None else dsn.get_secret_value())

    async def mirror(self) -> SqlMirror:
        """Give the SQL mirror."""
        return (await self._sql()).mirror()

    async def sql_reads(self) -> SqlReads:
        """Give what the gateway reads of the mirror."""
        return (await self._sql()).reads()

    async def rebase_ledger(self) -> RebaseLedger:
        """Give what a rebase does to the mirror."""
        return (await self._sql()).rebase_ledger()

    async def schema(self) -> SchemaAdmin:
        """Give what installs tables and procedures."""
        return (await self._sql()).schema()

    def _sql_names(self) -> Names:
        sql = self.settings.sql
        return Names(
            model=self.model,
            schema_name=sql.schema_name if "schema_name" in sql.model_fields_set else None,
            procedures=self.settings.procedures,
        )

    async def _sql(self) -> SqlParts:
        """Give the mirror's database, in the dialect that its DSN names."""
        if self._sql_parts is None:
            self.refuse_loops()
            try:
                parts = sql_parts(
                    self.settings.text_of("sql.dsn"),
                    self._sql_names(),
                    project=self.settings.text_of("firestore.project"),
                    store=self.settings.firestore.database,
                    # A drainer may run beside the writer.
                    max_size=2 * self.settings.writer.lane_count + _SPARE_CONNECTIONS,
                )
            except ConfigError as exc:
                raise ConfigError(f"sql.dsn: {exc}") from exc.__cause__
            await parts.open()
            self._stack.push_async_callback(parts.aclose)
            self._sql_parts = parts
        return self._sql_parts

    async def store(self) -> DocumentStore:
        """Give the document store that the settings name."""
        if self.settings.documents.kind == "embedded":
            return await self.embedded_store()
        try:
            from storemirror.source import firestore  # noqa: PLC0415 - an extra, not always there
        except ImportError as exc:
            raise ConfigError(
                "documents.kind is firestore, and Google's client is not installed: "
                "pip install -e '.[firestore]' in the checkout"
            ) from exc
        address = firestore.FirestoreAddress(
            project=self.settings.text_of("firestore.project"),
            database=self.settings.firestore.database,
            emulator_host=self.settings.firestore.emulator_host,
            retry_within_s=self.settings.firestore.retry_within_s,
        )
        store = firestore.open_firestore(address, self.clock)
        self._stack.push_async_callback(store.aclose)
        return store

    async def pending(self) -> Callable[[int], Awaitable[int]] | None:
        """Give what counts changes not yet on the bus; None where the store cannot tell."""
        if self.settings.documents.kind == "embedded":
            return (await self.embedded_store()).pending_count
        return None

    @property
    def store_settings(self) -> tuple[str, ...]:
        """Name the settings that the document store needs, beside the project."""
        return ("documents.dsn",) if self.settings.documents.kind == "embedded" else ()

    @property
    def publishing_settings(self) -> tuple[str, ...]:
        """Name the settings that publishing needs, beside the project."""
        return self.bus_settings

    @property
    def applying_settings(self) -> tuple[str, ...]:
        """Name the settings that writer and drainer need, beside the project."""
        return (*self.store_settings, *self.bus_settings, "sql.dsn")

    async def embedded_store(self) -> EmbeddedDocumentStore:
        """Give the embedded document store."""
        database = await self._database("documents.dsn", DOCUMENTS, max_size=8)
        store = EmbeddedDocumentStore(database)
        if not self._is_store_prepared:
            await store.prepare()
            self._is_store_prepared = True
        return store

    async def reread(self) -> SourceReread:
        """Give what reads documents again."""
        return SourceReread(await self.store(), self.model, source=self.source)

    async def drain(
        self, *, max_duration_s: float, dead_letters: DeadLetterRound | None = None
    ) -> DrainStats:
        """
        Apply what waits; see `storemirror.apply.drain`.

        Raises:
            SwitchedOff, ConfigError: nothing was opened.
        """
        refuse_if_off(is_mirror_on=self.settings.is_mirror_on)
        self.require(*self.applying_settings)
        drain_once = await self.drainer(dead_letters)
        return await drain_once(max_duration_s=max_duration_s, stop=asyncio.Event())

    async def writer(
        self,
        *,
        consumer: Consumer | None = None,
        lock_duration_s: float | None = None,
        hooks: StepHook | None = None,
        on_batch: BatchObserver | None = None,
    ) -> SqlWriterProcessor:
        """
        Give a writer; nothing is received before its `run`.

        Args:
            consumer: to receive from; one of its own by default.
            lock_duration_s: see `topic`.
            hooks: see `create_sql_writer_processor`.
            on_batch: likewise.
        """
        return create_sql_writer_processor(
            consumer=consumer or await self.consumer(lock_duration_s=lock_duration_s),
            publisher=await self.publisher(),
            mirror=await self.mirror(),
            model=self.model,
            source=self.source,
            clock=self.clock,
            reread=await self.reread(),
            settings=self.writer_settings(lock_duration_s=lock_duration_s),
            hooks=hooks,
            on_batch=on_batch,
        )

    async def drainer(self, dead_letters: DeadLetterRound | None = None) -> Drain:
        """Give what drains the writer's subscription, as often as it is called."""
        return partial(
            drain_realtime_mirror_queue,
            consumer=await self.consumer(),
            publisher=await self.publisher(),
            admin=await self.bus_admin(),
            mirror=await self.mirror(),
            model=self.model,
            source=self.source,
            clock=self.clock,
            reread=await self.reread(),
            settings=self.writer_settings(),
            subscription=self.subscription,
            dead_letters=dead_letters,
        )

    async def deliveries(self) -> Deliveries:
        """
        Give what takes trigger deliveries, for a host that is not ours.

        Raises:
            ConfigError: a setting is missing, or Google's event types are not installed.
        """
        try:
            from storemirror.source import deliveries  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise ConfigError(
                "Google's event types are not installed: "
                "pip install -e '.[triggers]' in the checkout"
            ) from exc
        self.require(*self.publishing_settings)
        return deliveries.Deliveries(
            publisher=await self.publisher(), model=self.model, source=self.source
        )

    async def relay(self) -> TriggerRelay:
        """Give what carries the embedded store's changes to the bus."""
        return TriggerRelay(
            await self.embedded_store(),
            self.model,
            await self.publisher(),
            self.clock,
            source=self.source,
        )

    def caller_rules(self) -> CallerRules | None:
        """
        Give who may deliver to the trigger receiver; None where only this machine can.

        Raises:
            ConfigError: others could reach it and nothing says who may, or its packages are not
                installed.
        """
        try:
            from storemirror.source import receiver_auth  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise ConfigError(
                "the trigger receiver's packages are not installed: "
                "pip install -e '.[triggers]' in the checkout"
            ) from exc
        triggers = self.settings.triggers
        return receiver_auth.caller_rules(
            host=triggers.host,
            audience=triggers.audience,
            service_accounts=triggers.service_accounts,
            certs_url=triggers.certs_url or receiver_auth.GOOGLE_CERTS_URL,
        )

    async def serve_triggers(
        self, stop: asyncio.Event, *, on_listening: Callable[[int], None]
    ) -> Mapping[str, object]:
        """
        Take trigger deliveries until `stop` is set, and give what was counted.

        Args:
            stop: ends it; deliveries under way are answered first.
            on_listening: told the port.

        Raises:
            ConfigError: the address cannot be listened on, or others could reach it and nothing
                says who may; nothing was opened.
        """
        callers = self.caller_rules()
        from storemirror.source import receiver  # noqa: PLC0415 - an extra, which is there now

        triggers = self.settings.triggers
        app = receiver.create_trigger_receiver(
            publisher=await self.publisher(),
            model=self.model,
            source=self.source,
            clock=self.clock,
            callers=callers,
        )
        await receiver.serve(app, triggers.host, triggers.port, stop, on_listening=on_listening)
        return app.status()

    @property
    def bus_settings(self) -> tuple[str, ...]:
        """Name the settings that the bus needs."""
        bus = self.settings.bus
        if bus.kind == "postgres":
            return ("bus.dsn",)
        return ("bus.connection_string",) if bus.namespace is None else ("bus.namespace",)

    async def publisher(self) -> Publisher:
        """Give the topic's publisher."""
        bus = await self._bus()
        publisher: Publisher = bus.publisher(self.clock, topic=self.settings.bus.topic)
        self._stack.push_async_callback(publisher.aclose)
        return publisher

    async def consumer(self, *, lock_duration_s: float | None = None) -> Consumer:
        """
        Give a consumer of the writer's subscription.

        Args:
            lock_duration_s: see `topic`.
        """
        bus = await self._bus()
        place = {"subscription": self.subscription, "topic": self.settings.bus.topic}
        consumer: Consumer
        if isinstance(bus, PostgresBus):
            consumer = bus.consumer(self.clock, **place)
        else:
            lock_s = self.topic(lock_duration_s=lock_duration_s).subscriptions[0].lock_duration_s
            consumer = bus.consumer(self.clock, **place, lock_duration_s=lock_s)
        self._stack.push_async_callback(consumer.aclose)
        return consumer

    async def bus_admin(self) -> BusAdmin:
        """Give what provisions and inspects the bus."""
        bus = await self._bus()
        admin: BusAdmin = bus.admin(self.clock, topic=self.settings.bus.topic)
        self._stack.push_async_callback(admin.aclose)
        return admin

    async def _bus(self) -> PostgresBus | ServiceBus:
        """Give the bus that the settings name."""
        self.settings.require(*self.bus_settings)
        if self.settings.bus.kind == "postgres":
            return PostgresBus(await self._database("bus.dsn", BUS, max_size=8))
        if self._service_bus is None:
            self._service_bus = open_service_bus(self.settings.bus)
            self._stack.push_async_callback(self._service_bus.aclose)
        return self._service_bus

    async def _database(self, setting: str, kind: Kind, *, max_size: int) -> Database:
        if setting not in self._databases:
            self.refuse_loops()
            try:
                database = Database(self.settings.text_of(setting), kind, max_size=max_size)
            except ConfigError as exc:
                raise ConfigError(f"{setting}: {exc}") from None
            await database.open()
            self._stack.push_async_callback(database.aclose)
            self._databases[setting] = database
        return self._databases[setting]
