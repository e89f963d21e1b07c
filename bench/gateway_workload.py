"""
What the gateway's benchmark reads: a social app's documents, and what its users ask for.

Pure values, drawn from a seed, but for the loader at the end.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.workload import Document, new_message
from storemirror.clock import datetime_from_us
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.event.value import encode_fields
from storemirror.model.entity import Model
from storemirror.model.mapping import map_document
from storemirror.source.port import DocumentStore, Write
from storemirror.sql.port import RowEvent, SqlMirror

#: 2026-01-01: commit times count up from here.
_START_US: Final = 1_767_225_600_000_000
_TICK_US: Final = 1_000
#: Of the conversations, how many have more than two participants.
_GROUP_SHARE: Final = 0.1
#: Of the participants, how many have read something.
_READ_SHARE: Final = 0.8
_BATCH: Final = 2_000
#: Most writes of a commit.
_COMMIT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SocialShape:
    """How much there is of what."""

    message_count: int = 100_000
    conversation_count: int = 2_000
    seed: int = 1

    @property
    def user_count(self) -> int:
        """Give how many users there are: each takes part in some twenty conversations."""
        return max(3, self.conversation_count // 10)


@dataclass(frozen=True, slots=True)
class Ask:
    """One user, one of the user's conversations, and somebody else."""

    user: str
    conversation: str
    target: str


@dataclass(frozen=True, slots=True)
class SocialWorkload:
    """Documents by path, in the order of their commits."""

    documents: Mapping[str, Document]
    #: User -> the conversations that the user takes part in.
    conversations: Mapping[str, Sequence[str]]
    #: Conversation -> how many messages it has.
    message_counts: Mapping[str, int]

    def asks(self, count: int, seed: int) -> list[Ask]:
        """Draw what is asked for."""
        draw = random.Random(seed)  # noqa: S311 - a workload, no secret
        users = sorted(self.conversations)
        pairs = (draw.sample(users, 2) for _ in range(count))
        return [Ask(user, draw.choice(self.conversations[user]), target) for user, target in pairs]


def make_social_workload(shape: SocialShape) -> SocialWorkload:
    """
    Draw conversations, messages, follow edges and blocks.

    >>> made = make_social_workload(SocialShape(message_count=100, conversation_count=10))
    >>> len(made.documents), sum(made.message_counts.values())
    (116, 100)
    """
    draw = random.Random(shape.seed)  # noqa: S311 - a workload, no secret
    times = itertools.count(_START_US, _TICK_US)
    users = [f"user-{number:05}" for number in range(shape.user_count)]
    names = [f"{draw.getrandbits(80):020x}" for _ in range(shape.conversation_count)]
    members = {name: _members(draw, users) for name in names}
    documents: dict[str, Document] = {}
    last_us = _START_US + (shape.message_count + shape.conversation_count) * _TICK_US
    for name in names:
        documents[f"conversations/{name}"] = {
            "title": f"talk {name[:4]}",
            "createdAt": datetime_from_us(next(times)),
            "participantIds": members[name],
            "lastReadAt": {
                user: datetime_from_us(draw.randrange(_START_US, last_us))
                for user in members[name]
                if draw.random() < _READ_SHARE
            },
        }
    counts = dict.fromkeys(names, 0)
    for number in range(shape.message_count):
        # Every conversation has one at least, so that every page shows something.
        name = names[number] if number < len(names) else draw.choice(names)
        counts[name] += 1
        message = new_message(draw, next(times))
        message["senderId"] = draw.choice(members[name])
        documents[f"conversations/{name}/messages/{draw.getrandbits(80):020x}"] = message
    documents |= _edges(draw, users, times)
    taken: dict[str, list[str]] = {}
    for name in names:
        for user in members[name]:
            taken.setdefault(user, []).append(name)
    return SocialWorkload(documents, taken, counts)


def _members(draw: random.Random, users: Sequence[str]) -> list[str]:
    count = draw.randrange(3, 9) if draw.random() < _GROUP_SHARE else 2
    return draw.sample(users, min(count, len(users)))


def _edges(draw: random.Random, users: Sequence[str], times: Iterator[int]) -> dict[str, Document]:
    """Let every user follow some others, and block few."""
    edges: dict[str, Document] = {}
    for user in users:
        others = [other for other in draw.sample(users, min(8, len(users))) if other != user]
        for place, other in enumerate(others):
            collection = "following" if place else "blocks"
            moment = datetime_from_us(next(times))
            edges[f"users/{user}/{collection}/{other}"] = {"createdAt": moment}
    return edges


async def load_into_sql(workload: SocialWorkload, mirror: SqlMirror, model: Model) -> None:
    """Apply every document, as if its event had come."""
    events = _events(workload, mirror, model)
    while batch := list(itertools.islice(events, _BATCH)):
        await mirror.apply(batch)


async def load_into_store(workload: SocialWorkload, store: DocumentStore) -> None:
    """Write every document, as an app does."""
    writes = (
        Write(path=path, fields=encode_fields(document))
        for path, document in workload.documents.items()
    )
    while batch := list(itertools.islice(writes, _COMMIT)):
        await store.commit(batch)


def _events(workload: SocialWorkload, mirror: SqlMirror, model: Model) -> Iterator[RowEvent]:
    for commit_us, (path, document) in enumerate(workload.documents.items(), start=_START_US):
        entity, key = model.match(path)
        fields = encode_fields(document)
        change = Change(
            path=path,
            version=version_of(commit_us, is_deleted=False),
            origin=Origin.BACKFILL,
            observed_at_us=commit_us,
            fields=fields,
            digest=digest_of(fields),
        )
        row = map_document(entity, fields, mirror.limits, path=path)
        yield RowEvent(entity=entity, change=change, key=key, row=row)
