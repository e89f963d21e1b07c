"""
What the gateway reads, by its declarations: direct messages, the follow graph, blocks.

An app may declare these entities with other paths and fields; their names, and those of their
columns, are the same everywhere.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from storemirror.errors import ConfigError
from storemirror.model.entity import ChildTable, Column, Entity, LatestColumn, Model
from storemirror.model.social import messaging_of
from storemirror.model.types import DialectLimits

#: Of a database that holds every value as it is.
LOSSLESS: Final = DialectLimits(
    holds_nul=True, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectMessages:
    """The declarations of conversations and messages."""

    #: Of the mirror's database: what it cannot hold is answered as the value it holds instead.
    limits: DialectLimits
    #: Columns `title`, `createdAt`.
    conversation: Entity
    #: Who takes part: its key, and the column `lastReadAt`.
    participants: ChildTable
    #: Columns `senderId`, `body`, `sentAt`, `editedAt`, `attachments`.
    message: Entity
    sender: Column
    sent_at: Column
    #: The conversation's `lastMessagePreview`; None: it has none.
    preview: LatestColumn | None

    @classmethod
    def of(cls, model: Model, limits: DialectLimits = LOSSLESS) -> Self:
        """
        Find the declarations.

        Args:
            model: all declarations.
            limits: `SqlMirror.limits`; those of no database where no document is read.

        Raises:
            ConfigError: they are not declared as the gateway reads them; lists all that is wrong.
        """
        declared = messaging_of(model)
        message = declared.message
        assert message.rollup is not None  # seen to above
        return cls(
            limits=limits,
            conversation=declared.conversation,
            participants=declared.participant,
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

    #: See `DirectMessages.limits`.
    limits: DialectLimits
    follow: Entity
    block: Entity

    @classmethod
    def of(cls, model: Model, limits: DialectLimits = LOSSLESS) -> Self:
        """
        Find the declarations; for `limits` see `DirectMessages.of`.

        Raises:
            ConfigError: they are not there, or have not two key parts.
        """
        entities = {entity.name: entity for entity in model}
        missing = [
            f"{name} is not declared with two key parts"
            for name in ("FollowEdge", "UserBlock")
            if name not in entities or len(entities[name].keys) != 2
        ]
        if missing:
            raise ConfigError(f"the gateway cannot serve the follow graph: {'; '.join(missing)}")
        return cls(limits=limits, follow=entities["FollowEdge"], block=entities["UserBlock"])


def _column(entity: Entity, name: str) -> Column:
    return next(column for column in entity.columns if column.name == name)
