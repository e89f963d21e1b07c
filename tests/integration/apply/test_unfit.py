"""Conversations are marked in the mirror before their events are set aside (#7)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import pytest

from storemirror.errors import DatabaseRefused, SqlUnavailable, StoreMirrorError
from storemirror.event.change import version_of
from storemirror.sql.port import UnverifiedDocument
from tests.integration.apply.faulty import FaultyConsumer, FaultyMirror
from tests.integration.apply.pipe import (
    FUTURE_US,
    START_US,
    Pipe,
    a_change,
    a_chat_message,
    message_of,
    moment,
    referring_to,
)

pytestmark = pytest.mark.postgres

PATH = "conversations/c1"
UNFIT = a_change(PATH, {"title": 1, "createdAt": moment(START_US)}, START_US + 5)


class UnmarkedMirror(FaultyMirror):
    """Raises the errors of `mark_faults` first, and waits for `may_mark`."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(pipe)
        self.mark_faults: deque[StoreMirrorError] = deque()
        #: What was asked to be marked, failed calls included.
        self.asked: list[str] = []

    async def mark_unverified(self, marks: Sequence[UnverifiedDocument]) -> None:
        self.asked += [mark.message_id for mark in marks]
        if self.mark_faults:
            raise self.mark_faults.popleft()
        await super().mark_unverified(marks)


async def marked(pipe: Pipe) -> list[tuple[str, int | None]]:
    return [(m.message_id, m.version) for m in await pipe.under_test.mirror.unverified()]


async def test_every_way_of_being_set_aside_marks(pipe: Pipe) -> None:
    """Undecodable, read where it was referred to, or refused by the database."""
    refused = a_change("conversations/c2", {"createdAt": moment(START_US)}, FUTURE_US)
    referred = a_change("conversations/c3", {"createdAt": moment(START_US)}, START_US)

    class Unfit:
        async def reread(self, path: str, *, run: str) -> object:
            assert (path, run) == ("conversations/c3", "reference")
            return message_of(a_change(path, {"title": 1}, START_US))

    await pipe.publisher.publish([message_of(UNFIT), message_of(refused), referring_to(referred)])
    writer = pipe.processor(reread=Unfit())  # type: ignore[arg-type]
    await pipe.run_until_empty(writer)
    assert writer.stats.dead_lettered == 3
    assert sorted(await marked(pipe)) == [
        ("unfit:c1", UNFIT.version),
        ("unfit:c2", version_of(FUTURE_US, is_deleted=False)),
        ("unfit:c3", referred.version),
    ]


@pytest.mark.parametrize("error", [SqlUnavailable("away"), DatabaseRefused("no right")], ids=repr)
async def test_nothing_is_set_aside_before_the_mirror_knows(
    pipe: Pipe, error: StoreMirrorError
) -> None:
    """It stays under lock, however often the mirror says no, and costs no second delivery."""
    await pipe.publish([UNFIT, a_chat_message(1)])
    mirror, consumer = UnmarkedMirror(pipe), FaultyConsumer(pipe.new_consumer())
    mirror.mark_faults.extend([error] * 30)
    is_told_early: list[str] = []

    async def look(call: str) -> None:
        if call == "dead_letter":
            is_told_early.extend(["early"] * len(mirror.mark_faults))

    consumer.before_call = look
    writer = pipe.processor(mirror=mirror, consumer=consumer, retry_within_s=0.01)
    await pipe.run_until_empty(writer)
    assert is_told_early == []
    assert len(mirror.asked) == 31
    assert [d.message.message_id for d in consumer.received].count(UNFIT.event_id) == 1
    assert [letter.reason for letter in await pipe.dead_letters()] == ["MappingFailed"]
    assert await marked(pipe) == [("unfit:c1", UNFIT.version)]
    assert (writer.stats.applied, writer.stats.dead_lettered) == (1, 1)


async def test_what_is_tried_first_after_an_outage_is_marked_too(pipe: Pipe) -> None:
    """The gate stays closed over it: nobody would come back to it once it is open."""
    refused = a_change(PATH, {"createdAt": moment(START_US)}, FUTURE_US)
    await pipe.publish([refused])
    mirror = UnmarkedMirror(pipe)
    mirror.apply_faults.append(DatabaseRefused("full"))
    mirror.mark_faults.extend([DatabaseRefused("no right")] * 2)
    await pipe.run_until_empty(pipe.processor(mirror=mirror))
    assert mirror.asked == ["unfit:c1"] * 3
    assert await marked(pipe) == [("unfit:c1", refused.version)]
    assert len(await pipe.dead_letters()) == 1


async def test_what_the_mirror_never_took_is_given_back(pipe: Pipe) -> None:
    """A writer that ends meanwhile leaves the event to the next one, and no dead letter."""
    await pipe.publish([UNFIT])
    mirror, stop = UnmarkedMirror(pipe), asyncio.Event()
    mirror.mark_faults.extend([SqlUnavailable("away")] * 1_000_000)

    async def stop_when_asked_twice() -> None:
        if len(mirror.asked) > 1:
            stop.set()

    mirror.before_probe = stop_when_asked_twice
    await pipe.processor(mirror=mirror, retry_within_s=0.01).run(stop)
    assert await pipe.dead_letters() == []
    assert await pipe.locked_count() == 0
    await pipe.run_until_empty(pipe.processor())
    assert await marked(pipe) == [("unfit:c1", UNFIT.version)]
    assert len(await pipe.dead_letters()) == 1


async def test_messages_and_edges_are_set_aside_without_a_mark(pipe: Pipe) -> None:
    """Nobody's rights hang on them, and SQL is not asked."""
    mirror = UnmarkedMirror(pipe)
    await pipe.publish(
        [
            a_change("conversations/c1/messages/m", {"body": "no sender"}, START_US),
            a_change("users/a/blocks/b", {"createdAt": "no time"}, START_US),
        ]
    )
    writer = pipe.processor(mirror=mirror)
    await pipe.run_until_empty(writer)
    assert (writer.stats.dead_lettered, mirror.asked) == (2, [])
