"""
What the gateway reads, by its declarations: direct messages, the follow graph, blocks.

An app may declare these entities with other paths and fields; their names, and those of their
columns, are the same everywhere.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from storemirror.errors import ConfigError
from storemirror.model.entity import ChildTable, Column, Entity, LatestColumn, Model
from storemirror.model.types import ColumnType, DialectLimits

#: Of a database that holds every value as it is.
LOSSLESS: Final = DialectLimits(
    holds_nul=True, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectMessages:
    """The declarations of conversations and messages."""

    #: Columns `title`, `createdAt`.
    conversation: Entity
    #: Who takes part: key `userId`, column `lastReadAt`.
    participants: ChildTable
    #: Columns `senderId`, `body`, `sentAt`, `editedAt`, `attachments`.
    message: Entity
    sender: Column
    sent_at: Column
    #: The conversation's `lastMessagePreview`; None: it has none.
    preview: LatestColumn | None

    @classmethod
    def of(cls, model: Model) -> Self:
        """
        Find the declarations.

        Raises:
            ConfigError: they are not there, or lack what the gateway needs; lists all of it.
        """
        entities = {entity.name: entity for entity in model}
        _refuse(list(_faults_of_messages(entities)), "direct messages")
        conversation, message = entities["DmConversation"], entities["DmMessage"]
        assert message.rollup is not None  # seen to above
        return cls(
            conversation=conversation,
            participants=_participants_of(conversation)[0],
            message=message,
            sender=_column(message, "senderId"),
            sent_at=_column(message, "sentAt"),
            preview=next(
                (c for c in message.rollup.latest if c.target == "lastMessagePreview"), None
            ),
        )

    @property
    def conversations(self) -> str:
        """Give the path of the collection of conversations."""
        return "/".join(self.conversation.path[:-1])

    def messages_of(self, conversation_id: str) -> str:
        """Give the path of the collection of a conversation's messages."""
        return self.message.path_of((conversation_id, "")).rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowGraph:
    """The declarations of follow edges and blocks: keys are who does it, then to whom."""

    follow: Entity
    block: Entity

    @classmethod
    def of(cls, model: Model) -> Self:
        """
        Find the declarations.

        Raises:
            ConfigError: they are not there, or have not two key parts.
        """
        entities = {entity.name: entity for entity in model}
        names = ("FollowEdge", "UserBlock")
        _refuse(
            [
                f"{name} is not declared with two key parts"
                for name in names
                if name not in entities or len(entities[name].keys) != 2
            ],
            "the follow graph",
        )
        return cls(follow=entities["FollowEdge"], block=entities["UserBlock"])


def _refuse(faults: list[str], what: str) -> None:
    if faults:
        raise ConfigError(f"the gateway cannot serve {what}: {'; '.join(faults)}")


def _faults_of_messages(entities: dict[str, Entity]) -> Iterator[str]:
    for name, key_count, columns in (
        ("DmConversation", 1, {"createdAt": ColumnType.TIMESTAMP}),
        ("DmMessage", 2, {"senderId": ColumnType.STRING, "sentAt": ColumnType.TIMESTAMP}),
    ):
        entity = entities.get(name)
        if entity is None:
            yield f"{name} is not declared"
            continue
        if len(entity.keys) != key_count or not entity.path[-1].startswith("{"):
            yield f"{name}'s path must have {key_count} parameters, the last at its end"
        for column, kind in columns.items():
            if not any(
                c.name == column and c.type is kind and c.is_required for c in entity.columns
            ):
                yield f"{name} needs the required column {column} of type {kind}"
    if "DmConversation" in entities and not _participants_of(entities["DmConversation"]):
        yield "DmConversation needs the child table DmParticipant with the key userId"
    rollup = entities["DmMessage"].rollup if "DmMessage" in entities else None
    if rollup is None or (rollup.into, rollup.latest_by) != ("DmConversation", "sentAt"):
        yield "DmMessage needs a roll-up into DmConversation, latest by sentAt"


def _participants_of(conversation: Entity) -> list[ChildTable]:
    return [
        table
        for table in conversation.children
        if (table.name, table.key.name) == ("DmParticipant", "userId")
    ]


def _column(entity: Entity, name: str) -> Column:
    return next(column for column in entity.columns if column.name == name)
