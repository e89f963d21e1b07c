"""
Who may do what, decided from documents that the same transaction reads.

"Not there" and "not yours" are one answer, so that nobody learns what exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from storemirror.errors import CallRefused
from storemirror.gateway.fields import elements_of
from storemirror.gateway.ids import is_document_id, is_key
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.gateway.together import together
from storemirror.gateway.wire import PARTICIPANTS_MAX_COUNT
from storemirror.source.port import Document

#: Blocks that one write looks at at a time.
_READS_AT_ONCE: Final = 16


class Reads(Protocol):
    """Reads documents: in a transaction, or as they are now."""

    async def get(self, path: str) -> Document | None:
        """Give a document; None when there is none."""
        ...


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
        if not is_key(conversation_id, self._conversation.keys[0]):
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
            CallRefused: PERMISSION_DENIED; it does not say who.  FAILED_PRECONDITION: there are
                more others than a conversation may be opened with here, each of whom would cost a
                read at every write; a client that writes Firestore itself can add any number.
        """
        others = list(others)
        if len(others) > PARTICIPANTS_MAX_COUNT:
            raise CallRefused(
                "FAILED_PRECONDITION",
                f"this conversation has more than {PARTICIPANTS_MAX_COUNT} other participants",
            )
        # What can be no id blocks nobody: there can be no such document.  One that is longer than
        # declared, and so in no row, stands in Firestore all the same.
        paths = [
            self._block.path_of((other, uid))
            for other in others
            if is_document_id(other) and is_document_id(uid)
        ]
        found = await together(reads.get, paths, most=_READS_AT_ONCE)
        if any(document is not None for document in found):
            raise CallRefused("PERMISSION_DENIED", "this user cannot be written to")
