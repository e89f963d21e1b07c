"""
What the benchmarks apply: messages of a social app, with the disorder of a real bus.

Pure values, drawn from a seed.  Next to the events it says what the tables must hold afterwards,
computed from the documents themselves and not by the writer's mapping.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from storemirror.bus.port import Message
from storemirror.clock import datetime_from_us
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.event.envelope import CONTENT_TYPE, encode_change, source_of
from storemirror.event.value import encode_fields

PROJECT: Final = "bench"
STORE: Final = "(default)"
SOURCE: Final = source_of(PROJECT, STORE)

#: 2026-01-01: commit times count up from here, so that a run is the same at any time.
_START_US: Final = 1_767_225_600_000_000
#: Between two commits of the workload, microseconds.
_TICK_US: Final = 1_000
#: How far back an edit or a delete reaches, in commits.
_REACH: Final = 2_000
#: How far a late or repeated delivery falls behind, in deliveries.
_DELAY: Final = 5_000
#: Of the writes, how many change a message that is there.
_EDIT_SHARE: Final = 0.10
_ATTACHMENT_SHARE: Final = 0.05
_WORDS: Final = ("lake", "train", "late", "blue", "tent", "with", "weather", "hut", "bring", "see")

Key = tuple[str, str]
Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadShape:
    """How much of what; shares are of all deliveries."""

    #: Deliveries in all, repeated ones among them.
    event_count: int = 100_000
    conversation_count: int = 2_000
    duplicate_share: float = 0.20
    late_share: float = 0.20
    delete_share: float = 0.05
    seed: int = 1


@dataclass(frozen=True, slots=True)
class WorkloadEvent:
    """One change of one message, with the document as Python has it; None: deleted."""

    key: Key
    change: Change
    document: Document | None


@dataclass(frozen=True, slots=True)
class Workload:
    """Events in the order of their arrival; a repeated one is there twice."""

    events: Sequence[WorkloadEvent]

    def messages(self) -> list[Message]:
        """Give what is published.

        A repeated delivery has an id of its own, as one that is published again has: under the
        event's id the bus's duplicate detection would take it out.
        """
        seen: Counter[str] = Counter()
        messages = []
        for event in self.events:
            event_id = event.change.event_id
            repeats = seen[event_id]
            seen[event_id] += 1
            messages.append(
                Message(
                    message_id=f"{event_id}.repeat-{repeats}" if repeats else event_id,
                    body=encode_change(event.change, source=SOURCE),
                    content_type=CONTENT_TYPE,
                )
            )
        return messages

    def newest(self) -> dict[Key, WorkloadEvent]:
        """Give what every message must be in the end: its event of the highest version."""
        newest: dict[Key, WorkloadEvent] = {}
        for event in self.events:
            known = newest.get(event.key)
            if known is None or known.change.version < event.change.version:
                newest[event.key] = event
        return newest

    def distinct_ids(self) -> set[str]:
        """Give the ids of all events: the audit holds each once."""
        return {event.change.event_id for event in self.events}


def make_workload(shape: WorkloadShape) -> Workload:
    """
    Draw a workload.

    >>> made = make_workload(WorkloadShape(event_count=1_000, conversation_count=10))
    >>> len(made.events), len(made.distinct_ids())
    (1000, 800)
    """
    draw = random.Random(shape.seed)  # noqa: S311 - a workload, no secret
    repeat_count = round(shape.event_count * shape.duplicate_share)
    delete_count = round(shape.event_count * shape.delete_share)
    changes = _committed(shape, draw, shape.event_count - repeat_count, delete_count)
    late = set(draw.sample(range(len(changes)), round(shape.event_count * shape.late_share)))
    places = [
        (index + (draw.uniform(1, _DELAY) if index in late else 0.0), index)
        for index in range(len(changes))
    ]
    repeated = draw.sample(range(len(changes)), repeat_count)
    places += [(index + draw.uniform(0, _DELAY), index) for index in repeated]
    places.sort()
    return Workload([changes[index] for _, index in places])


def _committed(
    shape: WorkloadShape, draw: random.Random, count: int, delete_count: int
) -> list[WorkloadEvent]:
    """Give distinct events in the order of their commits."""
    deleted_places = set(draw.sample(range(count // 10, count), delete_count))
    conversations = [_document_id(draw) for _ in range(shape.conversation_count)]
    #: Live messages that an edit or a delete may choose, and when they were last committed.
    live: list[Key] = []
    committed_us: dict[Key, int] = {}
    documents: dict[Key, Document] = {}
    events = []
    for place in range(count):
        now_us = _START_US + place * _TICK_US
        is_delete = place in deleted_places
        if live and (is_delete or draw.random() < _EDIT_SHARE):
            index = draw.randrange(max(0, len(live) - _REACH), len(live))
            key = live[index]
            if is_delete:
                live[index] = live[-1]
                live.pop()
                # A trigger tells the before-image's time.
                events.append(_event(key, committed_us[key], None))
                continue
            document = {
                **documents[key],
                "body": _text(draw),
                "editedAt": datetime_from_us(now_us),
            }
        else:
            key = (draw.choice(conversations), _document_id(draw))
            document = new_message(draw, now_us)
            live.append(key)
        committed_us[key] = now_us
        documents[key] = document
        events.append(_event(key, now_us, document))
    return events


def new_message(draw: random.Random, now_us: int) -> Document:
    """Draw a message that is sent at about `now_us`."""
    document: Document = {
        "senderId": f"user-{draw.randrange(5_000):05}",
        "body": _text(draw),
        "sentAt": datetime_from_us(now_us - draw.randrange(200_000)),
    }
    if draw.random() < _ATTACHMENT_SHARE:
        document["attachments"] = [{"name": "photo.jpg", "size": draw.randrange(9_000_000)}]
    return document


def _document_id(draw: random.Random) -> str:
    """Give 20 characters without order, as Firestore's own ids are."""
    return f"{draw.getrandbits(100):025x}"[:20]


def _text(draw: random.Random) -> str:
    return " ".join(draw.choices(_WORDS, k=draw.randrange(4, 24)))


def _event(key: Key, commit_us: int, document: Document | None) -> WorkloadEvent:
    fields = None if document is None else encode_fields(document)
    change = Change(
        path=f"conversations/{key[0]}/messages/{key[1]}",
        version=version_of(commit_us, is_deleted=fields is None),
        origin=Origin.TRIGGER,
        observed_at_us=commit_us,
        fields=fields,
        digest=digest_of(fields),
    )
    return WorkloadEvent(key, change, document)


def sent_at_of(event: WorkloadEvent) -> datetime:
    """Give when a live message was sent."""
    sent_at = None if event.document is None else event.document["sentAt"]
    assert isinstance(sent_at, datetime)
    return sent_at.astimezone(UTC)
