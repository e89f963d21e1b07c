"""
How a conversation is marked whose newest event was set aside, and how readers find the mark.

Who takes part is in the conversation's own document.  While its newest event is a dead letter the
row says who took part before, so users' reads leave the conversation out.  The mark is found by
the conversation's key, in the one index that the table of marks has.  Pure.
"""

from __future__ import annotations

from typing import Final

from storemirror.model.entity import Entity
from storemirror.sql.port import UnverifiedDocument

#: The entity whose documents say who may read others.
CONVERSATION: Final = "DmConversation"
#: Begins the id of a mark; the conversation's key follows, where it is sure to fit.
MARK_PREFIX: Final = "unfit:"
#: UTF-16 units that the id of a mark has at most.
_ID_MAX_UNITS: Final = 400
#: Of one code point.
_MOST_UNITS: Final = 2


def is_named_by_key(conversation: Entity) -> bool:
    """
    Tell whether each conversation has a mark of its own.

    Where ids are declared so long that not each would fit, one mark stands for all: none of them
    is served from SQL until a check of everything has cleared it.
    """
    key_units = _MOST_UNITS * sum(part.max_length for part in conversation.keys)
    return len(MARK_PREFIX) + key_units <= _ID_MAX_UNITS


def unfit_mark(
    conversation: Entity, key: tuple[str, ...], *, path: str, version: int | None, reason: str
) -> UnverifiedDocument:
    """
    Give the mark of a conversation whose event is set aside.

    Args:
        conversation: its entity.
        key: one that a row can have.
        path: of its document.
        version: of the event; None: its message does not tell.
        reason: why it is set aside.
    """
    if not is_named_by_key(conversation):
        return UnverifiedDocument(
            message_id=MARK_PREFIX, reason=reason, path=None, entity=None, key=None, version=None
        )
    return UnverifiedDocument(
        message_id=f"{MARK_PREFIX}{key[0]}",
        reason=reason,
        path=path,
        entity=conversation.name,
        key=key,
        version=version,
    )


def newest_of(first: UnverifiedDocument, second: UnverifiedDocument) -> UnverifiedDocument:
    """Give the mark that stands for two of the same id: what no version is known of stays longest.

    The databases keep the same one when a mark is set again.
    """
    if first.version is None or second.version is None:
        return first if first.version is None else second
    return second if second.version >= first.version else first
