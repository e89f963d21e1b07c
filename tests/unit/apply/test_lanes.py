"""Which lane an event goes into, and how a lane is cut into transactions."""

from __future__ import annotations

import asyncio

from storemirror.apply.lanes import Lane, lane_of
from tests.unit.apply.deliveries import a_conversation, a_deletion, a_follow, a_message, taken


def test_a_conversation_shares_its_messages_lane() -> None:
    """Else two lanes would wait for each other's lock on one parent row."""
    for number in range(50):
        name = f"c{number}"
        lanes = {
            lane_of(event, 16)
            for event in (a_conversation(name), a_message(name, "x"), a_deletion(name, "y"))
        }
        assert len(lanes) == 1


def test_events_of_many_parents_use_every_lane() -> None:
    """A lane that gets nothing is a connection that idles."""
    counts = [0] * 4
    for number in range(400):
        counts[lane_of(a_message(f"c{number}"), 4)] += 1
    assert min(counts) > 60


def test_an_entity_without_parent_goes_by_its_own_key() -> None:
    """One popular user's followers must not all queue in one lane."""
    assert len({lane_of(a_follow("u1", f"v{n}"), 4) for n in range(50)}) == 4


def test_the_lane_is_the_same_in_every_process() -> None:
    """A lane number in yesterday's log means the same today."""
    assert [lane_of(a_message(f"c{n}"), 8) for n in range(6)] == [5, 3, 1, 7, 4, 2]


def test_half_a_surrogate_pair_in_a_key_has_a_lane() -> None:
    """An id that is no text may come from a client; it must not stop the writer."""
    assert lane_of(a_conversation("\ud800"), 2) in (0, 1)


async def test_a_trickle_is_taken_at_once() -> None:
    """Waiting for a batch to fill would cost every single message its latency."""
    lane = Lane(0, max_events=100, max_bytes=1_000)
    one = taken(a_message())
    lane.put(one)
    assert await lane.take() == [one]


async def test_take_waits_for_an_event() -> None:
    """An empty transaction is work for nothing."""
    lane = Lane(0, max_events=100, max_bytes=1_000)
    waiting = asyncio.create_task(lane.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    one = taken(a_message())
    lane.put(one)
    assert await waiting == [one]


async def test_a_portion_ends_at_the_number_of_events() -> None:
    """The procedures take 2,000 events and no more."""
    lane = Lane(0, max_events=2, max_bytes=1_000)
    events = [taken(a_message(message=str(n))) for n in range(3)]
    for event in events:
        lane.put(event)
    assert await lane.take() == events[:2]
    assert await lane.take() == events[2:]


async def test_a_portion_ends_at_the_bytes() -> None:
    """A transaction of large documents stays one that the database can take."""
    lane = Lane(0, max_events=100, max_bytes=10)
    events = [taken(a_message(), body=b"x" * size) for size in (6, 4, 1)]
    for event in events:
        lane.put(event)
    assert await lane.take() == events[:2]
    assert await lane.take() == events[2:]


async def test_an_event_larger_than_a_portion_goes_alone() -> None:
    """It would wait for ever otherwise."""
    lane = Lane(0, max_events=100, max_bytes=10)
    large, small = taken(a_message(), body=b"x" * 50), taken(a_message(), body=b"x")
    lane.put(large)
    lane.put(small)
    assert await lane.take() == [large]
    assert await lane.take() == [small]


async def test_clear_gives_what_waits_and_leaves_nothing() -> None:
    """What no lane has begun is given back at shutdown, once."""
    lane = Lane(0, max_events=100, max_bytes=10)
    one = taken(a_message())
    lane.put(one)
    assert lane.clear() == [one]
    assert lane.clear() == []
    lane.close()
    assert await lane.take() == []


async def test_a_closed_lane_lets_nobody_wait() -> None:
    """An idle lane ends as soon as the writer does."""
    lane = Lane(0, max_events=100, max_bytes=10)
    waiting = asyncio.create_task(lane.take())
    await asyncio.sleep(0)
    lane.close()
    assert await waiting == []
    assert await lane.take() == []
