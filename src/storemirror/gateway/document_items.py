"""
Documents as what callables answer: the same, value for value, as from the mirror's rows.

So they go through the writer's own mapping, with the limits of the mirror's database.  A document
that does not fit its declaration is left out: its event is a dead letter, and the mirror has not
got it either; of one that did fit before, it has the earlier contents until the dead letter is
seen to.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storemirror.clock import us_from_rfc3339
from storemirror.errors import KeyRefused, MappingFailed
from storemirror.event.change import version_of
from storemirror.gateway.plain_json import plain_json
from storemirror.gateway.port import MessageItem, Participant
from storemirror.gateway.social import DirectMessages
from storemirror.model.entity import Entity
from storemirror.model.mapping import JsonScalar, MappedRow, check_key, map_document
from storemirror.model.types import DialectLimits
from storemirror.source.port import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation's own document."""

    conversation_id: str
    version: int
    title: str | None
    created_us: int
    #: User id -> when that user last marked it as read; None: never.
    participants: Mapping[str, int | None]

    def others(self, viewer: str) -> tuple[Participant, ...]:
        """Give everybody but the viewer, by rising user id."""
        return tuple(
            Participant(user_id=user_id, last_read_us=self.participants[user_id])
            for user_id in sorted(self.participants)
            if user_id != viewer
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message, and what an inbox shows of it."""

    item: MessageItem
    preview: str | None


def conversation_of(declared: DirectMessages, document: Document) -> Conversation | None:
    """Read a conversation; None: the document does not fit its declaration."""
    row = row_of(declared.conversation, document, declared.limits)
    if row is None:
        return None
    return Conversation(
        conversation_id=_id_of(document),
        version=live_version_of(document),
        title=_text(row, "title"),
        created_us=_required_us(row, "createdAt"),
        participants={
            str(child[declared.participants.key.name]): _us(child.get("lastReadAt"))
            for child in row.children[declared.participants.name]
        },
    )


def message_of(declared: DirectMessages, document: Document) -> Message | None:
    """Read a message; None: the document does not fit its declaration."""
    row = row_of(declared.message, document, declared.limits)
    if row is None:
        return None
    attachments = row.columns.get("attachments")
    item = MessageItem(
        message_id=_id_of(document),
        version=live_version_of(document),
        sender_id=str(row.columns["senderId"]),
        body=_text(row, "body"),
        sent_us=_required_us(row, "sentAt"),
        edited_us=_us(row.columns.get("editedAt")),
        attachments=None if attachments is None else plain_json(str(attachments)),
    )
    shown = None if declared.preview is None else _text(row, declared.preview.source)
    if shown is not None and declared.preview is not None:
        # Of the database as well, a character is a code point.
        shown = shown[: declared.preview.max_code_points]
    return Message(item=item, preview=shown)


def row_of(entity: Entity, document: Document, limits: DialectLimits) -> MappedRow | None:
    """Give the row that stands for a document; None: it does not fit its declaration."""
    key = entity.match(document.path.split("/"))
    try:
        if key is None:
            return None
        check_key(entity, key, limits, path=document.path)
        return map_document(entity, document.fields, limits, path=document.path)
    except (KeyRefused, MappingFailed):
        return None


def live_version_of(document: Document) -> int:
    """Give the version of a document that is there."""
    return version_of(document.update_time_us, is_deleted=False)


def _id_of(document: Document) -> str:
    return document.path.rpartition("/")[2]


def _text(row: MappedRow, column: str) -> str | None:
    text = row.columns.get(column)
    return None if text is None else str(text)


def _us(time: JsonScalar) -> int | None:
    return None if time is None else us_from_rfc3339(str(time))


def _required_us(row: MappedRow, column: str) -> int:
    return us_from_rfc3339(str(row.columns[column]))
