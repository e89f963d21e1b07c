"""
What answers the callables: requests in, readers and services between, answers out.

See `storemirror.gateway.callables.Handlers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from storemirror.errors import CallRefused
from storemirror.gateway import wire
from storemirror.gateway.answers import (
    conversation_answer,
    cursor_at,
    edge_answer,
    last_id,
    message_answer,
    outcome_answer,
    relationship_answer,
    time_answer,
)
from storemirror.gateway.cursor import cursor_of, position_of, write_of
from storemirror.gateway.dual_write import Written
from storemirror.gateway.follow import FollowService
from storemirror.gateway.messages import DirectMessageService
from storemirror.gateway.port import (
    Caller,
    CohortFlags,
    Feature,
    FollowReader,
    MessageItem,
    MessagesReader,
    Position,
    WriteToken,
)
from storemirror.gateway.rights import no_conversation
from storemirror.gateway.routing import ReadRouter, Routed, Sources
from storemirror.gateway.shadow import (
    Comparison,
    ShadowReads,
    compare_conversations,
    compare_messages,
    compare_relationships,
)
from storemirror.gateway.shown import ShownWrites
from storemirror.source.queries import value_at

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """One side's readers."""

    messages: MessagesReader
    follow: FollowReader


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSizes:
    """How many items a page has."""

    default: int
    most: int

    def limit_of(self, wanted: int | None) -> int:
        """
        Give how many items to read.

        >>> [PageSizes(default=20, most=50).limit_of(n) for n in (None, 5, 500)]
        [20, 5, 50]
        """
        return min(self.default if wanted is None else wanted, self.most)


class GatewayHandlers:
    """Answers every callable."""

    def __init__(
        self,
        *,
        sql: Readers,
        firestore: Readers,
        shown: ShownWrites,
        item_of: Callable[[Written], MessageItem | None],
        router: ReadRouter,
        shadow: ShadowReads,
        flags: CohortFlags,
        direct_messages: DirectMessageService,
        follows: FollowService,
        page_sizes: PageSizes,
    ) -> None:
        """
        Name the parts.

        Args:
            sql: reads the mirror.
            firestore: reads the documents.
            shown: tells whether SQL shows a write.
            item_of: reads a message's document as readers give it; None: it does not fit its
                declaration.
            router: picks the side.
            shadow: takes what comparisons found.
            flags: whose reads are served from where.
            direct_messages: writes conversations and messages.
            follows: writes follows and blocks.
            page_sizes: of every list.
        """
        self._sql = sql
        self._firestore = firestore
        self._shown = shown
        self._item_of = item_of
        self._router = router
        self._shadow = shadow
        self._flags = flags
        self._direct_messages = direct_messages
        self._follows = follows
        self._page_sizes = page_sizes

    # Reads

    async def list_conversations(
        self, caller: Caller, request: wire.ListConversations
    ) -> wire.ConversationsResult:
        """See `Handlers.list_conversations`."""
        older_than, newer_than = _places(request.cursor)
        if newer_than is not None:
            raise CallRefused("INVALID_ARGUMENT", "an inbox is read from the newest on")
        limit = self._page_sizes.limit_of(request.page_size)
        after = _token(request.after)
        routed = await self._read(
            caller,
            Feature.MESSAGING,
            lambda side: side.messages.conversations(
                caller.uid, older_than=older_than, limit=limit
            ),
            compare=compare_conversations,
            has_reached=None if after is None else self._shown.in_inbox(after, caller.uid),
            is_conclusive=lambda page: page.is_whole,
        )
        page = routed.value
        return wire.ConversationsResult(
            source=routed.served,
            as_of=time_answer(routed.as_of_us or page.as_of_us),
            items=[conversation_answer(item) for item in page.items],
            older=cursor_at(page.items[-1:], "older") if page.has_older else None,
        )

    async def list_messages(
        self, caller: Caller, request: wire.ListMessages
    ) -> wire.MessagesResult:
        """See `Handlers.list_messages`."""
        conversation_id = request.conversation_id
        older_than, newer_than = _places(request.cursor)
        limit = self._page_sizes.limit_of(request.page_size)
        after = _token(request.after)
        routed = await self._read(
            caller,
            Feature.MESSAGING,
            lambda side: side.messages.messages(
                caller.uid,
                conversation_id,
                older_than=older_than,
                newer_than=newer_than,
                limit=limit,
            ),
            compare=lambda served, sql: compare_messages(conversation_id, served, sql),
            has_reached=(
                None
                if after is None
                else self._shown.in_conversation(after, caller.uid, conversation_id)
            ),
            # A conversation that was begun a moment ago may be on its way.
            is_conclusive=lambda page: page is not None,
        )
        page = routed.value
        if page is None:
            raise no_conversation()
        return wire.MessagesResult(
            source=routed.served,
            as_of=time_answer(routed.as_of_us or page.as_of_us),
            items=[message_answer(item) for item in page.items],
            older=cursor_at(page.items[-1:], "older") if page.has_older else None,
            newer=cursor_at(page.items[:1], "newer") or _newer(older_than or newer_than),
            has_newer=page.has_newer,
        )

    async def get_relationship(
        self, caller: Caller, request: wire.GetRelationship
    ) -> wire.RelationshipResult:
        """See `Handlers.get_relationship`."""
        viewer = _viewer(caller, request.viewer)
        after = _token(request.after)
        routed = await self._read(
            caller,
            Feature.FOLLOW,
            lambda side: side.follow.relationship(viewer, request.target),
            compare=compare_relationships,
            has_reached=None if after is None else self._shown.of_user(after, viewer),
        )
        return relationship_answer(routed)

    # Writes

    async def open_conversation(
        self, caller: Caller, request: wire.OpenConversation
    ) -> wire.OpenedResult:
        """See `Handlers.open_conversation`."""
        written = await self._direct_messages.open_conversation(
            caller,
            conversation_id=request.conversation_id,
            participant_ids=request.participant_ids,
            title=request.title,
        )
        return wire.OpenedResult(
            **outcome_answer(written), conversation_id=last_id(written), was_created=written.is_new
        )

    async def send_message(self, caller: Caller, request: wire.SendMessage) -> wire.MessageResult:
        """See `Handlers.send_message`."""
        if request.mode is wire.WriteMode.MIRROR:
            assert request.message_id is not None
            written = await self._direct_messages.mirror_message(
                caller, conversation_id=request.conversation_id, message_id=request.message_id
            )
        else:
            written = await self._direct_messages.send(
                caller,
                conversation_id=request.conversation_id,
                message_id=request.message_id,
                body=request.body,
                attachments=request.attachments,
            )
        return self._message_result(request.conversation_id, written)

    async def edit_message(self, caller: Caller, request: wire.EditMessage) -> wire.MessageResult:
        """See `Handlers.edit_message`."""
        written = await self._direct_messages.edit(
            caller,
            conversation_id=request.conversation_id,
            message_id=request.message_id,
            body=request.body,
            attachments=request.attachments,
        )
        return self._message_result(request.conversation_id, written)

    async def delete_message(
        self, caller: Caller, request: wire.DeleteMessage
    ) -> wire.MessageResult:
        """See `Handlers.delete_message`."""
        written = await self._direct_messages.delete(
            caller, conversation_id=request.conversation_id, message_id=request.message_id
        )
        return self._message_result(request.conversation_id, written)

    async def mark_read(self, caller: Caller, request: wire.MarkRead) -> wire.MarkedReadResult:
        """See `Handlers.mark_read`."""
        written = await self._direct_messages.mark_read(
            caller, conversation_id=request.conversation_id, read_us=request.read_us
        )
        mark = value_at(written.fields or {}, self._direct_messages.read_mark(caller.uid)) or {}
        return wire.MarkedReadResult(
            **outcome_answer(written),
            conversation_id=request.conversation_id,
            last_read_at=str(mark["timestampValue"]),
        )

    async def follow(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """See `Handlers.follow`."""
        if request.mode is wire.WriteMode.MIRROR:
            return edge_answer(await self._follows.mirror_follow(caller, request.target))
        return edge_answer(await self._follows.follow(caller, request.target))

    async def unfollow(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """See `Handlers.unfollow`."""
        if request.mode is wire.WriteMode.MIRROR:
            return edge_answer(await self._follows.mirror_follow(caller, request.target))
        return edge_answer(await self._follows.unfollow(caller, request.target))

    async def block(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """See `Handlers.block`."""
        if request.mode is wire.WriteMode.MIRROR:
            return edge_answer(await self._follows.mirror_block(caller, request.target))
        return edge_answer(await self._follows.block(caller, request.target))

    async def unblock(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """See `Handlers.unblock`."""
        if request.mode is wire.WriteMode.MIRROR:
            return edge_answer(await self._follows.mirror_block(caller, request.target))
        return edge_answer(await self._follows.unblock(caller, request.target))

    # Both

    async def _read(
        self,
        caller: Caller,
        feature: Feature,
        ask: Callable[[Readers], Awaitable[T]],
        *,
        compare: Callable[[T, T], Comparison],
        has_reached: Callable[[], Awaitable[bool]] | None,
        is_conclusive: Callable[[T], bool] = lambda _: True,
    ) -> Routed[T]:
        """Ask the side that the caller's cohort has."""
        cohort = await self._flags.cohort_of(caller, feature)
        return await self._router.read(
            cohort.read_mode,
            Sources(
                sql=lambda: ask(self._sql),
                firestore=lambda: ask(self._firestore),
                compare=lambda served, sql: self._shadow.note(compare(served, sql)),
                has_reached=has_reached,
                is_conclusive=is_conclusive,
            ),
        )

    def _message_result(self, conversation_id: str, written: Written) -> wire.MessageResult:
        item = self._item_of(written)
        return wire.MessageResult(
            **outcome_answer(written),
            conversation_id=conversation_id,
            message_id=last_id(written),
            message=None if item is None else message_answer(item),
        )


def _viewer(caller: Caller, named: str | None) -> str:
    """Tell whose view is asked for: users' own; services name one."""
    if caller.is_service:
        if named is None:
            raise CallRefused("INVALID_ARGUMENT", "a service names the viewer")
        return named
    if named not in (None, caller.uid):
        raise CallRefused("PERMISSION_DENIED", "users are their own viewer")
    return caller.uid


def _newer(place: Position | None) -> str | None:
    """Give a cursor for what lies before a place where nothing lies behind it."""
    return None if place is None else cursor_of(place, direction="newer")


def _token(text: str | None) -> WriteToken | None:
    """Give the write that the answer must show."""
    return None if text is None else write_of(text)


def _places(cursor: str | None) -> tuple[Position | None, Position | None]:
    """Give the place behind which, or before which, the cursor asks for items."""
    if cursor is None:
        return None, None
    direction, place = position_of(cursor)
    return (place, None) if direction == "older" else (None, place)
