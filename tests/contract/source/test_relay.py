"""The relay between the embedded store's outbox and the bus: nothing lost, whatever strikes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from storemirror.bus.port import Message, PublishResult
from storemirror.clock import SystemClock
from storemirror.errors import BusRefused, BusUnavailable, StoreMirrorError
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.envelope import decode_change, source_of
from storemirror.event.value import encode_fields
from storemirror.model.entity import Model
from storemirror.source.embedded import EmbeddedDocumentStore
from storemirror.source.port import Write
from storemirror.source.relay import POLL_S, TriggerRelay
from storemirror.sql.postgres.connection import Database

pytestmark = pytest.mark.postgres

SOURCE = source_of("demo", "(default)")


class RecordingPublisher:
    """A topic in a list, with duplicate detection; fails as often as it is told."""

    def __init__(self, *failures: StoreMirrorError) -> None:
        self.messages: dict[str, Message] = {}
        self.published_ids: list[str] = []
        self.failures = list(failures)

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        if self.failures:
            raise self.failures.pop()
        known = len(self.messages)
        self.messages |= {message.message_id: message for message in messages}
        self.published_ids += [message.message_id for message in messages]
        accepted = len(self.messages) - known
        return PublishResult(accepted_count=accepted, duplicate_count=len(messages) - accepted)

    async def aclose(self) -> None:
        """Nothing to let go of."""


class ClockThatNeverPolls(SystemClock):
    """Waits between polls never end; all other waits end at once."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def sleep(self, duration_s: float) -> None:
        self.waits_s.append(duration_s)
        if duration_s == POLL_S:
            await asyncio.Event().wait()


class Arrivals:
    """Waits until so many distinct events are on the bus."""

    def __init__(self, expected_count: int) -> None:
        self.expected_count = expected_count
        self.event_ids: set[str] = set()
        self.done = asyncio.Event()

    def __call__(self, changes: Sequence[Change]) -> None:
        self.event_ids |= {change.event_id for change in changes}
        if len(self.event_ids) >= self.expected_count:
            self.done.set()


def a_message(number: int, body: str = "hi") -> Write:
    fields = encode_fields({"senderId": "a", "body": body})
    return Write(path=f"conversations/c1/messages/m{number}", fields=fields)


async def relay_until(done: asyncio.Event, *relays: TriggerRelay) -> None:
    """Run relays until `done` is set, then stop them."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for relay in relays:
            tasks.create_task(relay.run(stop))
        await done.wait()
        stop.set()


async def test_every_change_is_published_once_and_in_order(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """The id, the version and the contents are the trigger's, and the outbox is empty after."""
    written_us = await embedded.commit([a_message(1)])
    await embedded.commit([Write(path=a_message(1).path, fields=None)])
    publisher = RecordingPublisher()
    relay = TriggerRelay(embedded, model, publisher, SystemClock(), source=SOURCE)
    assert await relay.relay_batch() is False
    changes = [decode_change(m.body, source=SOURCE) for m in publisher.messages.values()]
    assert [(c.version, c.origin, c.fields) for c in changes] == [
        (version_of(written_us, is_deleted=False), Origin.TRIGGER, a_message(1).fields),
        (version_of(written_us, is_deleted=True), Origin.TRIGGER, None),
    ]
    assert publisher.published_ids == [change.event_id for change in changes]
    assert relay.counts.published_count == 2
    assert await embedded.pending_count() == 0


async def test_documents_of_no_entity_are_dropped_and_counted(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """An app has collections that nobody mirrors; they must not stop the others."""
    settings = Write(path="settings/s1", fields=encode_fields({"dark": True}))
    await embedded.commit([settings, a_message(1)])
    publisher = RecordingPublisher()
    relay = TriggerRelay(embedded, model, publisher, SystemClock(), source=SOURCE)
    await relay.relay_batch()
    [message] = publisher.messages.values()
    assert message.properties["entity"] == "DmMessage"
    assert (relay.counts.published_count, relay.counts.undeclared_count) == (1, 1)
    assert await embedded.pending_count() == 0


async def test_a_crash_after_publishing_publishes_the_same_ids_again(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """At least once: the outbox forgets only what is durable, so a crash repeats, never loses."""
    await embedded.commit([a_message(number) for number in range(3)])
    publisher = RecordingPublisher()

    def crash(changes: Sequence[Change]) -> None:
        raise RuntimeError(f"killed with {len(changes)} on the bus")

    doomed = TriggerRelay(
        embedded, model, publisher, SystemClock(), source=SOURCE, on_published=crash
    )
    with pytest.raises(RuntimeError, match="killed with 3"):
        await doomed.relay_batch()
    assert await embedded.pending_count() == 3
    relay = TriggerRelay(embedded, model, publisher, SystemClock(), source=SOURCE)
    await relay.relay_batch()
    assert publisher.published_ids[:3] == publisher.published_ids[3:]
    assert len(publisher.messages) == 3
    assert await embedded.pending_count() == 0


async def test_a_commit_of_this_process_wakes_the_relay(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """Real time does not wait for a poll: with polling off the event comes all the same."""
    arrivals, publisher = Arrivals(1), RecordingPublisher()
    first_look = asyncio.Event()

    class NotedClock(ClockThatNeverPolls):
        async def sleep(self, duration_s: float) -> None:
            first_look.set()
            await super().sleep(duration_s)

    relay = TriggerRelay(
        embedded, model, publisher, NotedClock(), source=SOURCE, on_published=arrivals
    )

    async def commit_when_idle() -> None:
        await first_look.wait()
        await embedded.commit([a_message(1)])

    await asyncio.gather(relay_until(arrivals.done, relay), commit_when_idle())
    assert len(publisher.messages) == 1


async def test_a_commit_of_another_process_is_found_by_polling(
    embedded: EmbeddedDocumentStore, database: Database, model: Model
) -> None:
    """Nobody wakes the relay then; it looks by itself."""
    arrivals, publisher = Arrivals(1), RecordingPublisher()
    relay = TriggerRelay(
        embedded, model, publisher, SystemClock(), source=SOURCE, on_published=arrivals
    )
    elsewhere = EmbeddedDocumentStore(database)
    await asyncio.gather(relay_until(arrivals.done, relay), elsewhere.commit([a_message(1)]))
    assert not embedded.committed.is_set()
    assert await embedded.pending_count() == 0


async def test_an_unavailable_bus_is_retried_until_it_answers(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """An outage costs time, never an event."""
    await embedded.commit([a_message(number) for number in range(5)])
    publisher = RecordingPublisher(*[BusUnavailable("down")] * 8)
    arrivals, clock = Arrivals(5), ClockThatNeverPolls()
    relay = TriggerRelay(embedded, model, publisher, clock, source=SOURCE, on_published=arrivals)
    await relay_until(arrivals.done, relay)
    assert relay.counts.failed_count == 8
    assert relay.counts.published_count == 5
    assert len(clock.waits_s) >= 8
    assert await embedded.pending_count() == 0


async def test_stopping_during_an_outage_leaves_everything_in_the_outbox(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """Ctrl-C must end the program, and the next start must find what was not published."""
    await embedded.commit([a_message(1)])
    stop = asyncio.Event()

    class StoppingPublisher(RecordingPublisher):
        async def publish(self, messages: Sequence[Message]) -> PublishResult:
            stop.set()
            raise BusUnavailable(f"{len(messages)} not published")

    relay = TriggerRelay(embedded, model, StoppingPublisher(), SystemClock(), source=SOURCE)
    await relay.run(stop)
    assert await embedded.pending_count() == 1


async def test_a_refusing_bus_ends_the_relay_and_loses_nothing(
    embedded: EmbeddedDocumentStore, model: Model
) -> None:
    """A missing topic is mended by a person; retrying for ever would hide it."""
    await embedded.commit([a_message(1)])
    publisher = RecordingPublisher(BusRefused("no such topic"))
    relay = TriggerRelay(embedded, model, publisher, SystemClock(), source=SOURCE)
    with pytest.raises(BusRefused):
        await relay.run(asyncio.Event())
    assert await embedded.pending_count() == 1


async def test_two_relays_at_once_lose_nothing(
    embedded: EmbeddedDocumentStore, database: Database, model: Model
) -> None:
    """Deployments overlap; a document's changes keep their order all the same."""
    publisher, arrivals = RecordingPublisher(), Arrivals(300)
    relays = [
        TriggerRelay(
            store,
            model,
            publisher,
            SystemClock(),
            source=SOURCE,
            batch_size=7,
            on_published=arrivals,
        )
        for store in (embedded, EmbeddedDocumentStore(database))
    ]

    async def write_many(writer: int) -> None:
        for number in range(100):
            await embedded.commit([a_message(writer, body=f"{number}")])

    await asyncio.gather(
        relay_until(arrivals.done, *relays), *[write_many(writer) for writer in range(3)]
    )
    assert len(publisher.messages) == 300
    assert await embedded.pending_count() == 0
    versions = [int(m.properties["version"]) for m in publisher.messages.values()]
    assert versions == sorted(versions)


async def test_numbers_given_out_again_after_a_restore_are_not_passed_over(
    embedded: EmbeddedDocumentStore, database: Database, model: Model
) -> None:
    """A relay that outlives its database must not wait for numbers that come no more."""
    publisher = RecordingPublisher()
    relay = TriggerRelay(embedded, model, publisher, SystemClock(), source=SOURCE)
    for number in range(3):
        await embedded.commit([a_message(number)])
    while await relay.relay_batch() or await embedded.pending_count():
        pass
    async with database.connection() as conn:
        await conn.execute("ALTER TABLE documents.outbox ALTER COLUMN seq RESTART WITH 1")
    await embedded.commit([a_message(9)])
    await relay.relay_batch()
    await relay.relay_batch()
    assert await embedded.pending_count() == 0
    assert len(publisher.messages) == 4
