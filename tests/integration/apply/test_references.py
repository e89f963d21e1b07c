"""Events too large for the bus: the writer reads the document, and applies what it finds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from storemirror.bus.port import Message
from storemirror.errors import EntityUnknown, SourceUnavailable, StoreMirrorError
from storemirror.event.change import Change, Origin
from tests.integration.apply.pipe import (
    START_US,
    Pipe,
    a_change,
    a_chat_message,
    message_of,
    referring_to,
)

pytestmark = pytest.mark.postgres

NOW_US = START_US + 10**9


class Documents:
    """The documents as they are: what each read gives, or the error that it ends with."""

    def __init__(self, *found: Change | StoreMirrorError) -> None:
        self._found = list(found)
        self.read_count = 0
        #: Released with each read.
        self.was_read = asyncio.Semaphore(0)

    async def reread(self, path: str, *, run: str) -> Message:
        self.read_count += 1
        self.was_read.release()
        found = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        if isinstance(found, StoreMirrorError):
            raise found
        assert path == found.path
        return message_of(replace(found, origin=Origin.REREAD, observed_at_us=NOW_US), run=run)


async def version_of(pipe: Pipe, number: int) -> int | None:
    row = await pipe.under_test.mirror.row(pipe.model["DmMessage"], ("c1", f"m{number}"))
    return None if row is None else row.version


async def test_the_document_is_read_and_applied(pipe: Pipe) -> None:
    """Beside events that carry their contents, and settled like them."""
    large, small = a_chat_message(1), a_chat_message(2)
    await pipe.publisher.publish([referring_to(large), message_of(small)])
    documents = Documents(large)
    writer = pipe.processor(reread=documents)
    await pipe.run_until_empty(writer)
    assert (documents.read_count, writer.stats.applied, writer.stats.settled) == (1, 2, 2)
    await pipe.assert_mirrors([large, small])


@pytest.mark.parametrize("is_deleted", [False, True], ids=["written again", "deleted"])
async def test_what_is_found_counts_not_what_was_sent(pipe: Pipe, is_deleted: bool) -> None:
    """A newer version wins, and so does the absence at the read time."""
    sent = a_chat_message(1)
    found = (
        a_change(sent.path, None, NOW_US)
        if is_deleted
        else a_chat_message(1, at_us=NOW_US, body="later")
    )
    await pipe.publisher.publish([referring_to(sent)])
    await pipe.run_until_empty(pipe.processor(reread=Documents(found)))
    assert await version_of(pipe, 1) == found.version


async def test_a_repair_stays_a_repair(pipe: Pipe) -> None:
    """Read again it would be a duplicate, and a damaged row would stay damaged."""
    written = a_chat_message(1)
    await pipe.publish([written])
    await pipe.run_until_empty(pipe.processor())
    repair = replace(written, origin=Origin.REPAIR)
    await pipe.publisher.publish([replace(referring_to(repair), message_id="repair")])
    writer = pipe.processor(reread=Documents(written))
    await pipe.run_until_empty(writer)
    assert writer.stats.repaired == 1


async def test_a_store_that_does_not_answer_is_asked_again(pipe: Pipe) -> None:
    """Nothing is set aside for the store's trouble."""
    change = a_chat_message(1)
    await pipe.publisher.publish([referring_to(change)])
    silent = SourceUnavailable("no answer")
    await pipe.run_until_empty(pipe.processor(reread=Documents(silent, silent, change)))
    assert await version_of(pipe, 1) == change.version
    assert await pipe.dead_letters() == []


async def test_a_lasting_outage_costs_no_delivery_and_stops_nobody(pipe: Pipe) -> None:
    """Others are applied meanwhile; when the writer ends, another one may read it."""
    await pipe.publisher.publish([referring_to(a_chat_message(1)), message_of(a_chat_message(2))])
    documents, stop = Documents(SourceUnavailable("no answer")), asyncio.Event()
    writer = pipe.processor(reread=documents)
    running = asyncio.create_task(writer.run(stop))
    while documents.read_count < 3 or writer.stats.settled < 1:
        await documents.was_read.acquire()
    assert writer.stats.abandoned == 0, "an outage costs no delivery"
    stop.set()
    await running
    assert (await pipe.stats()).depth == 1


async def test_what_can_be_no_event_is_set_aside_with_its_reason(pipe: Pipe) -> None:
    """As if it had carried its contents."""
    await pipe.publisher.publish([referring_to(a_chat_message(1))])
    documents = Documents(EntityUnknown("no entity is declared for this path"))
    await pipe.run_until_empty(pipe.processor(reread=documents))
    (letter,) = await pipe.dead_letters()
    assert letter.reason == "EntityUnknown"
