"""
What readers and services give, as the callables' answers have it.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from storemirror.clock import rfc3339_from_us
from storemirror.gateway import wire
from storemirror.gateway.cursor import cursor_of, token_of
from storemirror.gateway.dual_write import Written
from storemirror.gateway.port import ConversationItem, MessageItem, Relationship
from storemirror.gateway.routing import Routed


class Outcome(TypedDict):
    """What every write's answer says."""

    mirrored: bool
    token: str | None


def outcome_answer(written: Written) -> Outcome:
    """Give whether SQL shows a write, and the token with which a read asks for it."""
    token = written.token
    return {
        "mirrored": written.mirrored.is_mirrored,
        "token": None if token is None else token_of(token),
    }


def last_id(written: Written) -> str:
    """Give the id of the document that was written."""
    return written.path.rpartition("/")[2]


def time_answer(time_us: int | None) -> str | None:
    """Write a moment down; None stays None."""
    return None if time_us is None else rfc3339_from_us(time_us)


def cursor_at(items: Sequence[ConversationItem | MessageItem], direction: str) -> str | None:
    """Give a cursor at the only one of `items`; None when there is none."""
    return cursor_of(items[0].position, direction=direction) if items else None


def conversation_answer(item: ConversationItem) -> wire.Conversation:
    """Write one line of an inbox."""
    last = None
    if item.last_message_id is not None and item.last_message_us is not None:
        last = wire.LastMessage(
            message_id=item.last_message_id,
            sent_at=rfc3339_from_us(item.last_message_us),
            preview=item.last_message_preview,
        )
    return wire.Conversation(
        conversation_id=item.conversation_id,
        title=item.title,
        created_at=rfc3339_from_us(item.created_us),
        last_activity_at=rfc3339_from_us(item.last_activity_us),
        last_message=last,
        unread_count=min(item.unread_count, wire.UNREAD_MAX_COUNT),
        unread_is_more=item.unread_count > wire.UNREAD_MAX_COUNT,
        last_read_at=time_answer(item.last_read_us),
        others=[
            wire.OtherParticipant(
                user_id=other.user_id, last_read_at=time_answer(other.last_read_us)
            )
            for other in item.others
        ],
    )


def message_answer(item: MessageItem) -> wire.Message:
    """Write one message."""
    return wire.Message(
        message_id=item.message_id,
        sender_id=item.sender_id,
        body=item.body,
        sent_at=rfc3339_from_us(item.sent_us),
        edited_at=time_answer(item.edited_us),
        attachments=item.attachments,
    )


def relationship_answer(routed: Routed[Relationship]) -> wire.RelationshipResult:
    """Write how two users stand to each other."""
    found = routed.value
    return wire.RelationshipResult(
        source=routed.served,
        as_of=time_answer(routed.as_of_us or found.as_of_us),
        outgoing=found.outgoing.exists,
        incoming=found.incoming.exists,
        outgoing_block=found.outgoing_block.exists,
        incoming_block=found.incoming_block.exists,
    )


def edge_answer(written: Written) -> wire.EdgeResult:
    """Write what became of a follow or a block."""
    return wire.EdgeResult(
        **outcome_answer(written), target=last_id(written), exists=written.fields is not None
    )
