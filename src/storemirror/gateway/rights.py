"""
Who may do what, decided from documents that the same transaction reads.

"Not there" and "not yours" are one answer, so that nobody learns what exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from storemirror.errors import CallRefused
from storemirror.gateway.fields import elements_of
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.source.port import Document

#: Longest id that a key takes, in characters; Firestore's own limit is in bytes, and larger.
_ID_MAX_LENGTH: Final = 128


class Reads(Protocol):
    """Reads documents: in a transaction, or as they are now."""

    async def get(self, path: str) -> Document | None:
        """Give a document; None when there is none."""
        ...


def is_document_id(text: str) -> bool:
    """
    Tell whether a text can be one segment of a document's path.

    >>> [is_document_id(t) for t in ("m1", "", "a/b", ".", "__x__")]
    [True, False, False, False, False]
    """
    return (
        0 < len(text) <= _ID_MAX_LENGTH
        and "/" not in text
        and text not in (".", "..")
        and not (text.startswith("__") and text.endswith("__"))
        and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)
    )


def checked_id(text: str, what: str) -> str:
    """
    Give an id that a client chose.

    Raises:
        CallRefused: it can be none; INVALID_ARGUMENT.
    """
    if not is_document_id(text):
        raise CallRefused(
            "INVALID_ARGUMENT", f"{what} has 1 to {_ID_MAX_LENGTH} characters, and no slash"
        )
    return text


def no_conversation() -> CallRefused:
    """Make the one answer for a conversation that is not there, or not the caller's."""
    return CallRefused("NOT_FOUND", "there is no such conversation")


def no_message() -> CallRefused:
    """Make the one answer for a message that is not there, or not the caller's."""
    return CallRefused("NOT_FOUND", "there is no such message")


class Rights:
    """Asks the documents."""

    def __init__(self, declared: DirectMessages, graph: FollowGraph) -> None:
        """Name the declarations that rights rest on."""
        self._conversation = declared.conversation
        self._participants = declared.participants
        self._block = graph.block

    async def conversation(self, reads: Reads, uid: str, conversation_id: str) -> Document:
        """
        Give a conversation that the user takes part in.

        Raises:
            CallRefused: NOT_FOUND.
        """
        if not is_document_id(conversation_id):
            raise no_conversation()
        found = await reads.get(self._conversation.path_of((conversation_id,)))
        if found is None or uid not in elements_of(found.fields, self._participants):
            raise no_conversation()
        return found

    def others(self, conversation: Document, uid: str) -> list[str]:
        """Give everybody else in a conversation."""
        return sorted(elements_of(conversation.fields, self._participants) - {uid})

    async def refuse_blocked(self, reads: Reads, uid: str, others: Iterable[str]) -> None:
        """
        See that none of the others blocked the user.

        Raises:
            CallRefused: PERMISSION_DENIED; it does not say who.
        """
        # What can be no id blocks nobody: there can be no such document.
        paths = [
            self._block.path_of((other, uid))
            for other in others
            if is_document_id(other) and is_document_id(uid)
        ]
        found = await asyncio.gather(*(reads.get(path) for path in paths))
        if any(document is not None for document in found):
            raise CallRefused("PERMISSION_DENIED", "this user cannot be written to")
