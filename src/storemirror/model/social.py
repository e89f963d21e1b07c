"""
What the gateway reads of the built-in entities, as an app has declared them.

An app may replace their declarations: other paths, other fields, columns of its own.  Table and
column names stay, for readers go by them.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from storemirror.errors import ConfigError
from storemirror.model.entity import ChildTable, Entity, Model, Rollup
from storemirror.model.types import ColumnType

_TEXTS: Final = (ColumnType.STRING, ColumnType.TEXT)
_MOMENT: Final = (ColumnType.TIMESTAMP,)
#: Columns that every live row has.
_CONVERSATION_REQUIRED: Final = {"createdAt": _MOMENT}
_MESSAGE_REQUIRED: Final = {"senderId": (ColumnType.STRING,), "sentAt": _MOMENT}
#: Columns that a declaration may leave out: then nobody has a value.
_CONVERSATION_OPTIONAL: Final = {"title": _TEXTS}
_MESSAGE_OPTIONAL: Final = {
    "body": _TEXTS,
    "editedAt": _MOMENT,
    "attachments": (ColumnType.JSON,),
}
#: What the roll-up keeps in the conversation: column -> its source in the message; the id's is the
#: last key part, however it is called.
_PREVIEW: Final = "lastMessagePreview"
_LATEST: Final = {"lastMessageId": None, "lastMessageAt": "sentAt", _PREVIEW: "body"}
_LAST_ACTIVITY: Final = ("lastActivityAt", ("lastMessageAt", "createdAt"))

_Wanted = Mapping[str, Sequence[ColumnType]]

#: What the unread count asks of a message besides its place, so that it fetches no row.
_COUNTED_BY: Final = {"DmMessage": "senderId"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Messaging:
    """Direct messages, as they are declared."""

    #: `DmConversation`: one key part.
    conversation: Entity
    #: `DmMessage`: the conversation's key part, and its own.
    message: Entity
    #: `DmParticipant`: one row a participant.
    participant: ChildTable

    #: Which columns are declared that may be left out: "title", "lastMessagePreview".
    optional: frozenset[str]


def messaging_of(model: Model) -> Messaging:
    """
    Find direct messages in a model.

    Raises:
        ConfigError: they are not declared as the gateway reads them; lists all that is missing.
    """
    entities = {entity.name: entity for entity in model}
    conversation, message = entities.get("DmConversation"), entities.get("DmMessage")
    if conversation is None or message is None:
        raise ConfigError(
            "the gateway reads DmConversation and DmMessage, and the declarations lack them"
        )
    participant = next((c for c in conversation.children if c.name == "DmParticipant"), None)
    wrong = [
        *_wrong_keys(conversation, message),
        *_wrong_columns(conversation, _CONVERSATION_REQUIRED, _CONVERSATION_OPTIONAL),
        *_wrong_columns(message, _MESSAGE_REQUIRED, _MESSAGE_OPTIONAL),
        *_wrong_rollup(conversation, message),
        *_wrong_participant(participant),
    ]
    if wrong or participant is None:
        raise ConfigError(
            f"the gateway cannot read direct messages as they are declared: {'; '.join(wrong)}"
        )
    return Messaging(
        conversation=conversation,
        message=message,
        participant=participant,
        optional=frozenset(
            column.name
            for entity, optional in (
                (conversation, {*_CONVERSATION_OPTIONAL, _PREVIEW}),
                (message, _MESSAGE_OPTIONAL),
            )
            for column in (*entity.columns, *entity.rollup_columns)
            if column.name in optional
        ),
    )


def covered_by_latest(entity: Entity) -> tuple[str, ...]:
    """
    Name what the index over an entity's latest rows holds besides what it is ordered by.

    Nothing, where no roll-up looks for the latest, or where the entity is no direct message.
    """
    name = _COUNTED_BY.get(entity.name)
    latest_by = None if entity.rollup is None else entity.rollup.latest_by
    if latest_by in (None, name):
        return ()
    return tuple(c.name for c in entity.columns if c.name == name and c.type is ColumnType.STRING)


def _wrong_keys(conversation: Entity, message: Entity) -> Iterator[str]:
    if len(conversation.keys) != 1:
        yield f"DmConversation has {len(conversation.keys)} key parts, and one is wanted"
    if len(message.keys) != 2:
        yield f"DmMessage has {len(message.keys)} key parts, and two are wanted"


def _wrong_columns(entity: Entity, required: _Wanted, optional: _Wanted) -> Iterator[str]:
    declared = {column.name: column for column in entity.columns}
    for name in required:
        if name not in declared or not declared[name].is_required:
            yield f"{entity.name}.{name} must be declared, and required"
    for name, types in {**required, **optional}.items():
        column = declared.get(name)
        if column is not None and column.type not in types:
            yield f"{entity.name}.{name} is {column.type}, and {' or '.join(types)} is wanted"


def _wrong_rollup(conversation: Entity, message: Entity) -> Iterator[str]:
    rollup = message.rollup
    if rollup is None or rollup.into != conversation.name or rollup.latest_by != "sentAt":
        yield "DmMessage has no roll-up into DmConversation with the latest by sentAt"
        return
    yield from _wrong_latest(rollup, message)
    name, sources = _LAST_ACTIVITY
    if not any(d.name == name and d.sources == sources for d in conversation.derived):
        yield f"DmConversation.{name} must be derived: first_of = {list(sources)}"


def _wrong_latest(rollup: Rollup, message: Entity) -> Iterator[str]:
    found = {column.target: column for column in rollup.latest}
    for target, named in _LATEST.items():
        source = message.keys[-1].name if named is None else named
        column = found.get(target)
        if (column is None and target != _PREVIEW) or (column and column.source != source):
            yield f"the roll-up of DmMessage must set {target} to {source}"


def _wrong_participant(participant: ChildTable | None) -> Iterator[str]:
    if participant is None:
        yield "DmConversation has no child table DmParticipant"
        return
    types = {column.name: column.type for column in participant.columns}
    if types.get("lastReadAt") not in _MOMENT:
        yield "DmParticipant.lastReadAt must be declared, a timestamp"
