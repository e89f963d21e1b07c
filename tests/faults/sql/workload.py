"""A random life of a few documents, for tests in which several writers apply it at once."""

from __future__ import annotations

import random
from collections.abc import Iterator

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents

CONVERSATIONS = 6
MESSAGES = 12
USERS = 5


def history(model: Model, *, change_count: int, seed: int) -> list[RowEvent]:
    """
    Give the changes of a small app, each of its documents with rising versions.

    A write differs from the one before it; a deletion carries the time of the write it removed.
    """
    randomness = random.Random(seed)
    docs = Documents(model, SystemClock().now_us() - 3_600_000_000)
    last_write: dict[tuple[str, tuple[str, ...]], int] = {}
    events = []
    for at in range(1, change_count + 1):
        entity, key = document(randomness)
        if (entity, key) in last_write and randomness.random() < 0.25:
            events.append(docs.gone(entity, key, last_write.pop((entity, key))))
            continue
        last_write[entity, key] = at
        events.append(write(docs, entity, key, at, randomness))
    return events


def document(randomness: random.Random) -> tuple[str, tuple[str, ...]]:
    """Choose a document: mostly messages, as in life."""
    a, b = randomness.randrange(CONVERSATIONS), randomness.randrange(MESSAGES)
    users = (f"u{randomness.randrange(USERS)}", f"u{randomness.randrange(USERS)}")
    return randomness.choices(
        [
            ("DmMessage", (f"c{a}", f"m{b}")),
            ("DmConversation", (f"c{a}",)),
            ("FollowEdge", users),
            ("UserBlock", users),
        ],
        weights=[5, 1, 3, 1],
    )[0]


def write(
    docs: Documents, entity: str, key: tuple[str, ...], at: int, randomness: random.Random
) -> RowEvent:
    """A write of a document at a moment."""
    first, last = key[0], key[-1]
    match entity:
        case "DmMessage":
            sent = randomness.randrange(1_000)
            return docs.message(first, last, at, sent=sent, body=f"text {at}")
        case "DmConversation":
            people = {f"u{n}": at for n in range(USERS) if randomness.random() < 0.5}
            return docs.conversation(first, at, title=f"title {at}", participants=dict(people))
        case "FollowEdge":
            return docs.follow(first, last, at)
        case _:
            return docs.block(first, last, at)


def batches(
    events: list[RowEvent], randomness: random.Random, *, max_size: int
) -> Iterator[list[RowEvent]]:
    """Cut events into batches of random sizes."""
    start = 0
    while start < len(events):
        size = randomness.randint(1, max_size)
        yield events[start : start + size]
        start += size
