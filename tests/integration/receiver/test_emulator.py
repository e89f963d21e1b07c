"""Google's client writes, Google's emulator delivers, the mirror is equal: every part is real."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.vector import Vector

from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import run_check
from storemirror.clock import SystemClock
from storemirror.event.change import RowState
from storemirror.event.envelope import decode_change
from storemirror.source.firestore import FirestoreDocumentStore, open_firestore
from storemirror.source.firestore_calls import FirestoreAddress
from tests.integration.apply.pipe import START_US, Pipe, moment
from tests.integration.receiver.hosted import Hosted, hosted
from tests.support.deliveries import SOURCE
from tests.support.emulator import DeliveringEmulator, delivering_emulator
from tests.support.googles_client import googles_client
from tests.support.mirrors import PROJECT, all_rows

pytestmark = pytest.mark.postgres

DELIVERY_TIMEOUT_S = 60.0


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[DeliveringEmulator]:
    """One a test: what one test has written, another one's check would find."""
    with delivering_emulator(tmp_path / "emulator.log") as running:
        yield running


@pytest.fixture
async def receiver(pipe: Pipe, emulator: DeliveringEmulator) -> AsyncIterator[Hosted]:
    """A receiver where the emulator delivers to."""
    async with hosted(pipe, port=emulator.receiver_port) as opened:
        await asyncio.to_thread(emulator.register, pipe.model)
        yield opened


@pytest.fixture
def client(
    emulator: DeliveringEmulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[firestore.Client]:
    with googles_client(emulator.host, monkeypatch) as opened:
        yield opened


@pytest.fixture
async def store(emulator: DeliveringEmulator) -> AsyncIterator[FirestoreDocumentStore]:
    address = FirestoreAddress(project=PROJECT, emulator_host=emulator.host)
    opened = open_firestore(address, SystemClock())
    yield opened
    await opened.aclose()


def delivered_count(receiver: Hosted) -> int:
    counts = receiver.receiver.deliveries.counts
    return (
        counts.published_count
        + counts.unreadable_count
        + counts.nothing_changed_count
        + counts.never_existed_count
    )


async def delivered(receiver: Hosted, count: int) -> None:
    """Wait until the emulator has delivered so many changes."""
    async with asyncio.timeout(DELIVERY_TIMEOUT_S):
        news = receiver.receiver.answered.next()
        while delivered_count(receiver) < count:
            await news.wait()
            news = receiver.receiver.answered.next()
    assert delivered_count(receiver) == count


async def checked(pipe: Pipe, store: FirestoreDocumentStore) -> CheckResult:
    return await run_check(
        store=store,
        mirror=pipe.under_test.mirror,
        model=pipe.model,
        bus_admin=pipe.admin,
        subscription="sql-writer",
        pending=None,
        clock=pipe.clock,
        settings=CheckSettings(drain_timeout_s=60.0),
    )


def live_an_hour(client: firestore.Client, seed: int) -> int:
    """Let an app open, send, edit, delete, re-create, follow and block; gives the writes made."""
    chosen = random.Random(seed)
    made = 0
    for step in range(120):
        c, m, u, v = (chosen.randrange(n) for n in (4, 6, 5, 5))
        conversation = client.document(f"conversations/c{c}")
        writes: list[tuple[Any, Mapping[str, object] | None]] = [
            (conversation, a_conversation(step)),
            (conversation.collection("messages").document(f"m{m}"), a_message(step)),
            (client.document(f"users/u{u}/following/u{v}"), {"createdAt": moment(START_US)}),
            (client.document(f"users/u{u}/blocks/u{v}"), {"createdAt": moment(START_US + step)}),
        ]
        document, contents = chosen.choice(writes)
        if chosen.random() < 0.25:
            document.delete()
        else:
            document.set(contents)
        made += 1
    return made


def a_conversation(step: int) -> dict[str, object]:
    return {
        "title": f"title {step}",
        "createdAt": moment(START_US + step),
        "participantIds": ["u1", "u2"],
        "lastReadAt": {"u1": moment(START_US + step)},
    }


def a_message(step: int) -> dict[str, object]:
    return {"senderId": "u1", "body": f"body {step}", "sentAt": moment(START_US + step)}


async def test_what_googles_client_writes_arrives_and_is_equal(
    receiver: Hosted, client: firestore.Client, store: FirestoreDocumentStore
) -> None:
    """Every declared collection, through Google's own deliveries; nothing is set aside."""
    made = await asyncio.to_thread(live_an_hour, client, 7)
    await delivered(receiver, made)
    await receiver.pipe.run_until_empty(receiver.pipe.processor())
    result = await checked(receiver.pipe, store)
    assert result.is_clean, result.to_json()
    assert result.dead_letter_count == 0
    assert all(counts.document_count > 0 for counts in result.counts.values())
    counts = receiver.receiver.deliveries.counts
    assert counts.unreadable_count == 0
    assert counts.never_existed_count > 0, "the emulator tells of deletes of nothing"


async def test_a_difference_is_seen_through_the_same_path(
    receiver: Hosted, client: firestore.Client, store: FirestoreDocumentStore
) -> None:
    """The check that found nothing finds a row that was damaged by hand."""
    path = "conversations/c1/messages/m1"
    await asyncio.to_thread(client.document(path).set, a_message(1))
    await delivered(receiver, 1)
    await receiver.pipe.run_until_empty(receiver.pipe.processor())
    await receiver.pipe.under_test.execute("UPDATE storemirror.dm_message SET body = 'other'")
    result = await checked(receiver.pipe, store)
    assert [(m.path, m.field) for m in result.mismatches if m.path == path] == [(path, "body")]


async def test_odd_ids_and_values_survive_the_emulators_delivery(
    receiver: Hosted, client: firestore.Client, store: FirestoreDocumentStore
) -> None:
    """Its headers cannot carry them; the data can: an event's document is the one that is read."""
    contents = {
        "senderId": "u ü \U0001f600",
        "sentAt": moment(START_US + 1),
        "attachments": [{"size": 2**63 - 1, "data": b"\x00\xff", "ratio": -0.0}],
        "nan": math.nan,
        "never": -math.inf,
        "place": firestore.GeoPoint(0.0, -180.0),
        "embedding": Vector([1.0, -0.0]),
        "nothing": None,
        "map": {"{}": {}, "a.b": [], "`\\": 0},
        "reference": client.document("users/u1"),
        "late": moment(253_402_300_799_999_999) - timedelta(microseconds=1),
    }
    path = "conversations/c %2F#?ä'\"/messages/.m~\U0001f600"
    document = client.document(path)
    await asyncio.to_thread(document.set, contents)
    await asyncio.to_thread(document.set, contents)
    await delivered(receiver, 2)
    consumer = receiver.pipe.new_consumer()
    (delivery,) = await consumer.receive(10, max_wait_s=0.0)
    change = decode_change(delivery.message.body, source=SOURCE)
    read = (await store.get(path)).document
    assert read is not None
    assert change.path == path
    assert repr(change.fields) == repr(read.fields)
    assert change.commit_time_us == read.update_time_us
    await consumer.abandon([delivery])
    await receiver.pipe.run_until_empty(receiver.pipe.processor())
    assert await receiver.pipe.dead_letters() == []
    (row,) = (
        await all_rows(receiver.pipe.under_test.mirror, the_message_entity(receiver))
    ).values()
    assert row.state is RowState.LIVE


def the_message_entity(receiver: Hosted) -> Any:
    entity, _ = receiver.pipe.model.match("conversations/c/messages/m")
    return entity


async def test_a_document_that_was_deleted_and_made_anew_is_live(
    receiver: Hosted, client: firestore.Client
) -> None:
    """The delete's delivery carries the time of the write it removed, and may come last."""
    document = client.document("conversations/c1/messages/m1")
    await asyncio.to_thread(document.set, a_message(1))
    await asyncio.to_thread(document.delete)
    await asyncio.to_thread(document.set, a_message(2))
    await delivered(receiver, 3)
    await receiver.pipe.run_until_empty(receiver.pipe.processor())
    rows = await all_rows(receiver.pipe.under_test.mirror, the_message_entity(receiver))
    assert [row.columns["body"] for row in rows.values()] == ["body 2"]
