"""The writer between a real bus and a real database, on a good day and with bad events."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from storemirror.apply.port import Step
from storemirror.bus.port import Delivery, Message
from storemirror.errors import ClockSkewed, SwitchedOff
from storemirror.event.change import Change, Origin
from storemirror.model.entity import Entity, Model
from tests.integration.apply.pipe import (
    FUTURE_US,
    SOURCE,
    START_US,
    Pipe,
    a_change,
    a_chat_message,
    a_follow,
    message_of,
    moment,
)

pytestmark = pytest.mark.postgres


def a_social_history() -> list[Change]:
    """Writes, edits, deletes and re-creations of every entity, in the order they were made."""
    changes: list[Change] = []
    for number in range(60):
        conversation = f"c{number % 7}"
        changes.append(a_chat_message(number, conversation=conversation))
        if number % 3 == 0:
            later_us = START_US + 1_000 + number
            changes.append(
                a_chat_message(number, conversation=conversation, at_us=later_us, body="edited")
            )
        if number % 5 == 0:
            path = f"conversations/{conversation}/messages/m{number}"
            changes.append(a_change(path, None, START_US + 2_000 + number))
        if number % 10 == 0:
            again_us = START_US + 3_000 + number
            changes.append(a_chat_message(number, conversation=conversation, at_us=again_us))
    for number in range(7):
        document = {
            "createdAt": moment(START_US),
            "participantIds": ["u1", f"u{number}"],
            "lastReadAt": {"u1": moment(START_US + number)},
        }
        changes.append(a_change(f"conversations/c{number}", document, START_US + number))
        changes.append(a_follow(number))
    changes.append(a_change("users/u1/following/v", None, START_US + 5_000))
    return changes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lane_count", [1, 3])
async def test_any_order_and_repetition_ends_at_the_newest(
    pipe: Pipe, seed: int, lane_count: int
) -> None:
    """The bus may reorder and repeat as it likes: both sides end equal."""
    changes = a_social_history()
    shuffled = random.Random(seed).sample(changes, len(changes))
    await pipe.publish(shuffled)
    await pipe.publish_again(shuffled[::2], run="again")
    writer = pipe.processor(lane_count=lane_count, batch_max_events=20, receive_max_count=30)
    await pipe.run_until_empty(writer)
    await pipe.assert_mirrors(changes)
    counters = writer.stats.counters()
    assert counters["received"] == counters["settled"] == len(changes) + len(changes[::2])
    assert counters["abandoned"] == counters["dead_lettered"] == 0


async def test_every_settled_message_is_reported(pipe: Pipe) -> None:
    """The demo counts what was settled by these reports."""
    changes = [a_chat_message(number) for number in range(30)]
    await pipe.publish(changes)
    await pipe.run_until_empty(pipe.processor())
    settled = [d.message.message_id for report in pipe.reports for d in report.settled]
    assert sorted(settled) == sorted(change.event_id for change in changes)
    assert Counter(o.value for r in pipe.reports for o in r.outcomes) == {"applied": 30}


async def test_a_batch_never_exceeds_its_limits(pipe: Pipe) -> None:
    """The procedures take so many events and no more."""
    await pipe.publish([a_chat_message(number) for number in range(50)])
    await pipe.run_until_empty(pipe.processor(lane_count=1, batch_max_events=7))
    assert max(len(report.outcomes) for report in pipe.reports) <= 7


async def test_no_more_is_held_than_the_lanes_can_take(pipe: Pipe) -> None:
    """A worker that locks a whole backlog keeps the others idle, and loses locks."""
    held: list[int] = []

    async def look(step: Step, deliveries: Sequence[Delivery]) -> None:
        held.append(writer.in_hand_count)

    await pipe.publish([a_chat_message(number) for number in range(100)])
    writer = pipe.processor(hooks=look, lane_count=2, batch_max_events=5, receive_max_count=50)
    await pipe.run_until_empty(writer)
    assert writer.stats.applied == 100
    assert max(held) <= 50, "one call may bring more than two batches a lane, but no second one"


@pytest.mark.parametrize("bad_count", [1, 50])
async def test_bad_events_are_bisected_out_of_their_batch(pipe: Pipe, bad_count: int) -> None:
    """What the database refuses is set aside with a reason; all its neighbours are applied."""
    good = [a_chat_message(number) for number in range(500 - bad_count)]
    bad = [a_chat_message(1_000 + n, at_us=FUTURE_US + n) for n in range(bad_count)]
    mixed = random.Random(bad_count).sample([*good, *bad], 500)
    await pipe.publish(mixed)
    writer = pipe.processor(lane_count=1)
    await pipe.run_until_empty(writer)
    letters = await pipe.dead_letters()
    assert {letter.message.message_id for letter in letters} == {c.event_id for c in bad}
    assert {letter.reason for letter in letters} == {"EventRefused"}
    assert all("future" in letter.description for letter in letters)
    assert writer.stats.applied == len(good)
    assert writer.stats.dead_lettered == bad_count
    await pipe.assert_mirrors(good)


async def test_what_cannot_be_read_is_dead_lettered_with_its_reason(pipe: Pipe) -> None:
    """A person must be able to tell from the dead letter what to mend."""
    bodies = {
        "EnvelopeInvalid": b"no event",
        "EntityUnknown": message_of(a_change("invoices/i", {}, START_US)).body,
        "KeyRefused": message_of(a_change(f"users/{'x' * 200}/following/v", {}, START_US)).body,
        "MappingFailed": message_of(
            a_change("users/a/following/b", {"createdAt": "no time"}, START_US)
        ).body,
    }
    await pipe.publisher.publish(
        [Message(message_id=reason, body=b, content_type="x") for reason, b in bodies.items()]
    )
    await pipe.publish([a_follow(1)])
    writer = pipe.processor()
    await pipe.run_until_empty(writer)
    letters = await pipe.dead_letters()
    assert {letter.message.message_id: letter.reason for letter in letters} == {
        reason: reason for reason in bodies
    }
    assert all(letter.description for letter in letters)
    assert writer.stats.dead_lettered == len(bodies)
    await pipe.assert_mirrors([a_follow(1)])


class DefectiveModel(Model):
    """Ends in an error that nobody foresaw for one user's follows."""

    def match(self, path: str) -> tuple[Entity, tuple[str, ...]]:
        if path.startswith("users/u2/"):
            raise ZeroDivisionError
        return super().match(path)


async def test_a_defect_met_by_one_event_does_not_stop_the_others(pipe: Pipe) -> None:
    """Else one document could keep the mirror from ever starting again."""
    pipe.model = DefectiveModel(pipe.model.entities)
    follows = [a_follow(number) for number in range(4)]
    await pipe.publish(follows)
    writer = pipe.processor()
    await pipe.run_until_empty(writer)
    (letter,) = await pipe.dead_letters()
    assert letter.message.message_id == follows[2].event_id
    assert (letter.reason, letter.description) == (
        "UnexpectedError",
        "decoding ended in ZeroDivisionError",
    )
    assert writer.stats.applied == 3


class Rereader:
    """Gives what the document is now."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.runs: list[str] = []

    async def reread(self, path: str, *, run: str) -> Message:
        assert path == self.change.path
        self.runs.append(run)
        return message_of(self.change, run=run)


async def test_an_expired_event_is_replaced_by_the_document_as_it_is(pipe: Pipe) -> None:
    """An event from before a purge may have been overtaken by a delete that left no trace."""
    await pipe.set_purge_horizon("2026-01-02")
    late = a_chat_message(1)
    now_us = START_US + 3 * 86_400_000_000
    current = a_change(late.path, None, now_us, origin=Origin.REREAD)
    await pipe.publish([late])
    rereader = Rereader(current)
    writer = pipe.processor(reread=rereader)
    await pipe.run_until_empty(writer)
    assert writer.stats.expired == 1
    assert writer.stats.applied == 1
    assert writer.stats.settled == 2
    assert len(rereader.runs) == 1
    row = await pipe.under_test.mirror.row(pipe.model["DmMessage"], ("c1", "m1"))
    assert row is not None
    assert row.version == current.version


async def test_switched_off_it_receives_nothing(pipe: Pipe) -> None:
    """The master switch says no before the bus is asked."""
    await pipe.publish([a_follow(1)])
    writer = pipe.processor(is_mirror_on=False)
    with pytest.raises(SwitchedOff):
        await writer.run(asyncio.Event())
    stats = await pipe.stats()
    assert (stats.depth, await pipe.locked_count()) == (1, 0)


class SkewedClock:
    """The machine's clock, set wrongly."""

    def __init__(self, pipe: Pipe, skew_s: int) -> None:
        self._clock = pipe.clock
        self._skew_us = skew_s * 1_000_000

    def now_us(self) -> int:
        return self._clock.now_us() + self._skew_us

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()

    async def sleep(self, duration_s: float) -> None:
        await self._clock.sleep(duration_s)


@pytest.mark.parametrize(("skew_s", "words"), [(-90, "behind"), (90, "ahead of")])
async def test_a_wrong_clock_stops_it_before_anything_is_applied(
    pipe: Pipe, skew_s: int, words: str
) -> None:
    """Its latencies and purges would be wrong by as much."""
    await pipe.publish([a_follow(1)])
    writer = pipe.processor(clock=SkewedClock(pipe, skew_s))
    with pytest.raises(ClockSkewed, match=words):
        await writer.run(asyncio.Event())
    assert (await pipe.stats()).depth == 1
    assert writer.stats.received == 0


async def test_a_clock_that_is_a_little_off_is_good_enough(pipe: Pipe) -> None:
    """Clocks are never exactly equal."""
    await pipe.publish([a_follow(1)])
    writer = pipe.processor(clock=SkewedClock(pipe, 50))
    await pipe.run_until_empty(writer)
    assert writer.stats.applied == 1


async def test_two_writers_share_a_subscription(pipe: Pipe) -> None:
    """Workers are added by starting more of them."""
    changes = a_social_history()
    await pipe.publish(random.Random(7).sample(changes, len(changes)))
    writers = [
        pipe.processor(batch_max_events=9, receive_max_count=11, lane_count=2) for _ in range(2)
    ]
    await asyncio.gather(*(pipe.run_until_empty(writer) for writer in writers))
    await pipe.assert_mirrors(changes)
    assert sum(w.stats.settled for w in writers) == len(changes)
    assert (await pipe.stats()).depth == 0


async def test_latency_is_measured_by_category(pipe: Pipe) -> None:
    """The promise to users is about P95 of live events."""
    now_us = pipe.clock.now_us()
    await pipe.publish([a_chat_message(1, at_us=now_us), a_follow(1)])
    writer = pipe.processor()
    await pipe.run_until_empty(writer)
    assert {name: h.count for name, h in writer.stats.latency.items()} == {
        "dmSqlMirror": 1,
        "followSqlMirror": 1,
    }
    dm_us = writer.stats.latency["dmSqlMirror"].percentile_us(50)
    assert dm_us is not None
    assert dm_us < 60_000_000


def test_the_source_of_the_tests_is_the_mirrors_own() -> None:
    """Else every event here would be refused, and refusals would prove nothing."""
    assert SOURCE == "//firestore.googleapis.com/projects/demo/databases/(default)"
