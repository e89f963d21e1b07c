"""
The documents that schedules are about, and the events that tell of them.

Few documents and few contents, so that events meet.  Contents go through the writer's mapping once;
what a schedule costs afterwards is its events alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import Change, Fields, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.model.entity import Entity, Model
from storemirror.model.load import load_model
from storemirror.model.mapping import MappedRow, map_document
from storemirror.sql.port import RowEvent
from storemirror.sql.postgres.types import LIMITS

#: Entity, and the key's parts after the schedule's own prefix.
DOCUMENTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("DmConversation", ("c0",)),
    ("DmMessage", ("c0", "m0")),
    ("DmMessage", ("c0", "m1")),
    ("FollowEdge", ("a", "b")),
    ("DmConversation", ("c1",)),
    ("DmMessage", ("c1", "m0")),
    ("DmMessage", ("c1", "m1")),
    ("UserBlock", ("a", "b")),
    ("FollowEdge", ("b", "a")),
)
#: How many different contents a document of an entity can have.
CONTENTS_COUNT = 4
#: Moments in documents' fields; they have nothing to do with commit times.
_SENT_AT_US = 1_700_000_000_000_000


@functools.cache
def built_in_model() -> Model:
    """Give the built-in entities, loaded once a process."""
    return load_model()


def fields_of(entity: str, contents: int) -> Fields:
    """Give the canonical fields of one of an entity's possible contents."""
    # Two contents share a time, so that the latest message is a tie now and then.
    at = {"timestampValue": rfc3339_from_us(_SENT_AT_US + contents // 2)}
    match entity:
        case "DmMessage":
            body = ("hi", "", "\U0001f600" * 141, "late")[contents]
            return {
                "body": {"stringValue": body},
                "senderId": {"stringValue": f"u{contents}"},
                "sentAt": at,
            }
        case "DmConversation":
            users = [f"u{number}" for number in range(contents)]
            return {
                "createdAt": at,
                "lastReadAt": {"mapValue": {"fields": dict.fromkeys(users[:1], at)}},
                "participantIds": {
                    "arrayValue": {"values": [{"stringValue": user} for user in users]}
                },
                "title": {"stringValue": f"title {contents}"},
            }
        case _:
            return {"createdAt": at} if contents else {}


@dataclass(frozen=True, slots=True)
class Contents:
    """One of the contents a document can have: as fields, as a row, and its digest."""

    fields: Fields
    row: MappedRow
    digest: str


@functools.cache
def contents_of(entity: str, contents: int) -> Contents:
    """Map one of an entity's possible contents."""
    fields = fields_of(entity, contents)
    row = map_document(built_in_model()[entity], fields, LIMITS)
    return Contents(fields, row, digest_of(fields))


@dataclass(frozen=True, slots=True)
class Document:
    """One document of one schedule."""

    number: int
    entity: Entity
    key: tuple[str, ...]
    path: str

    def __str__(self) -> str:
        """Give the path."""
        return self.path


@functools.lru_cache(maxsize=8)
def documents(prefix: str = "") -> tuple[Document, ...]:
    """Give every document, with keys that begin with `prefix`."""
    made = []
    for number, (name, parts) in enumerate(DOCUMENTS):
        entity = built_in_model()[name]
        key = (prefix + parts[0], *parts[1:])
        made.append(Document(number, entity, key, entity.path_of(key)))
    return tuple(made)


@functools.lru_cache(maxsize=1 << 16)
def event_of(
    document: Document,
    contents: int | None,
    *,
    commit_time_us: int,
    origin: Origin = Origin.TRIGGER,
    observed_at_us: int | None = None,
    expected_version: int | None = None,
) -> RowEvent:
    """
    Give the event of one change.  Remembered: schedules have many in common.

    Args:
        document: what was changed.
        contents: number of its contents; None when it was deleted.
        commit_time_us: of a write its own; of a delete as `version_of` says.
        origin: who saw it.
        observed_at_us: when; by default when it was committed.
        expected_version: repairs only.
    """
    found = None if contents is None else contents_of(document.entity.name, contents)
    change = Change(
        path=document.path,
        version=version_of(commit_time_us, is_deleted=found is None),
        origin=origin,
        observed_at_us=commit_time_us if observed_at_us is None else observed_at_us,
        fields=None if found is None else found.fields,
        digest="" if found is None else found.digest,
        expected_version=expected_version,
    )
    row = None if found is None else found.row
    return RowEvent(entity=document.entity, change=change, key=document.key, row=row)
