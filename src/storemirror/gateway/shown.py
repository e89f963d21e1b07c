"""
Read your writes: whether SQL shows a write whose token a client hands back.

A token is the client's word.  It is held to what the answer is about, so that nobody learns from
it of documents that are not theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from storemirror.clock import SECOND_US, Clock
from storemirror.errors import CallRefused, EntityUnknown
from storemirror.gateway.port import MessagesReader, WriteToken
from storemirror.model.entity import Entity, Model

#: How far Firestore's clock may be before this machine's: later versions SQL refuses as well.
CLOCKS_APART_US: Final = 300 * SECOND_US
#: Gives the version that SQL shows of a document, live or deleted; None: it shows none.
ShownVersion = Callable[[Entity, tuple[str, ...]], Awaitable[int | None]]
HasReached = Callable[[], Awaitable[bool]]


class ShownWrites:
    """Tells what SQL shows."""

    def __init__(
        self, shown_version: ShownVersion, messages: MessagesReader, model: Model, clock: Clock
    ) -> None:
        """
        Name the mirror.

        Args:
            shown_version: reads one row.
            messages: SQL's reader, for who takes part.
            model: the declared entities.
            clock: tells what cannot have been written yet.
        """
        self._shown_version = shown_version
        self._messages = messages
        self._model = model
        self._clock = clock

    def in_inbox(self, write: WriteToken, viewer: str) -> HasReached:
        """Ask for a write in any conversation of the viewer's."""
        entity, key = self._document(write, "DmConversation", "DmMessage")

        async def has_reached() -> bool:
            # First, so that of another's conversation the answer is the same as of none, and takes
            # as long: else whoever guesses ids and versions would learn which there are.
            if await self._messages.messages(viewer, key[0], limit=1) is None:
                return False
            return await self._shows(entity, key, write)

        return has_reached

    def in_conversation(self, write: WriteToken, viewer: str, conversation_id: str) -> HasReached:
        """Ask for a write in this conversation."""
        _, key = self._document(write, "DmConversation", "DmMessage")
        if key[0] != conversation_id:
            raise _of_something_else()
        return self.in_inbox(write, viewer)

    def of_user(self, write: WriteToken, user: str) -> HasReached:
        """Ask for a follow or a block that is this user's own."""
        entity, key = self._document(write, "FollowEdge", "UserBlock")
        if key[0] != user:
            raise _of_something_else()
        return lambda: self._shows(entity, key, write)

    async def _shows(self, entity: Entity, key: tuple[str, ...], write: WriteToken) -> bool:
        shown = await self._shown_version(entity, key)
        return shown is not None and shown >= write.version

    def _document(self, write: WriteToken, *names: str) -> tuple[Entity, tuple[str, ...]]:
        # SQL would never show it, and each such read would wait in vain, and cost Firestore's.
        if write.version // 2 > self._clock.now_us() + CLOCKS_APART_US:
            raise CallRefused("INVALID_ARGUMENT", "this token is of a write that is still to come")
        try:
            entity, key = self._model.match(write.path)
        except EntityUnknown:
            raise _of_something_else() from None
        if entity.name not in names:
            raise _of_something_else()
        return entity, key


def _of_something_else() -> CallRefused:
    return CallRefused("INVALID_ARGUMENT", "this token is of a write that the answer cannot show")
