"""
Handlers that keep everything in memory: for tests of what lies between HTTP and a handler.

They know nothing of Firestore, SQL or versions, and are no adapter of anything.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field

from storemirror.clock import rfc3339_from_us
from storemirror.errors import CallRefused
from storemirror.gateway import wire
from storemirror.gateway.port import Caller, Served


@dataclass
class Talk:
    """One conversation."""

    title: str | None
    participants: set[str]
    created_at: str
    messages: dict[str, wire.Message] = field(default_factory=dict)
    read_at: dict[str, str] = field(default_factory=dict)


def _place(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 9):
        raise CallRefused("INVALID_ARGUMENT", "This is no cursor.")
    return int(cursor)


def _preview(message: wire.Message) -> wire.LastMessage:
    return wire.LastMessage(
        message_id=message.message_id,
        sent_at=message.sent_at,
        preview=(message.body or "")[:140],
    )


class MemoryHandlers:
    """Answer every callable; fail or wait where a test says so."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        #: Raised, one a call, before anything is done.
        self.faults: deque[Exception] = deque()
        #: One for each call that has come to its handler.
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self._talks: dict[str, Talk] = {}
        self._follows: set[tuple[str, str]] = set()
        self._blocks: set[tuple[str, str]] = set()
        self._times = map(rfc3339_from_us, itertools.count(1_700_000_000_000_000, 1_000_000))

    async def _begin(self, caller: Caller) -> None:
        self.callers.append(caller)
        self.arrived.put_nowait(caller.uid)
        await self.gate.wait()
        if self.faults:
            raise self.faults.popleft()

    def _talk(self, caller: Caller, conversation_id: str) -> Talk:
        talk = self._talks.get(conversation_id)
        if talk is None or caller.uid not in talk.participants:
            raise CallRefused("NOT_FOUND", "There is no such conversation.")
        return talk

    async def list_conversations(
        self, caller: Caller, request: wire.ListConversations
    ) -> wire.ConversationsResult:
        await self._begin(caller)
        lines = [
            self._line(caller.uid, conversation_id, talk)
            for conversation_id, talk in self._talks.items()
            if caller.uid in talk.participants
        ]
        lines.sort(key=lambda line: line.last_activity_at, reverse=True)
        start, size = _place(request.cursor), request.page_size or 30
        page = lines[start : start + size]
        older = str(start + size) if start + size < len(lines) else None
        return wire.ConversationsResult(items=page, older=older, source=Served.SQL, as_of=None)

    def _line(self, viewer: str, conversation_id: str, talk: Talk) -> wire.Conversation:
        last = max(talk.messages.values(), key=lambda m: m.sent_at, default=None)
        read_at = talk.read_at.get(viewer, "")
        unread = [
            m for m in talk.messages.values() if m.sender_id != viewer and m.sent_at > read_at
        ]
        return wire.Conversation(
            conversation_id=conversation_id,
            title=talk.title,
            created_at=talk.created_at,
            last_activity_at=last.sent_at if last else talk.created_at,
            last_message=None if last is None else _preview(last),
            unread_count=min(len(unread), wire.UNREAD_MAX_COUNT),
            unread_is_more=len(unread) > wire.UNREAD_MAX_COUNT,
            last_read_at=read_at or None,
            others=[
                wire.OtherParticipant(user_id=uid, last_read_at=talk.read_at.get(uid))
                for uid in sorted(talk.participants - {viewer})
            ],
        )

    async def list_messages(
        self, caller: Caller, request: wire.ListMessages
    ) -> wire.MessagesResult:
        await self._begin(caller)
        talk = self._talk(caller, request.conversation_id)
        messages = sorted(talk.messages.values(), key=lambda m: m.sent_at, reverse=True)
        start, size = _place(request.cursor), request.page_size or 30
        page = messages[start : start + size]
        return wire.MessagesResult(
            items=page,
            older=str(start + size) if start + size < len(messages) else None,
            newer=str(max(start - size, 0)) if page else None,
            has_newer=start > 0,
            source=Served.SQL,
            as_of=None,
        )

    async def open_conversation(
        self, caller: Caller, request: wire.OpenConversation
    ) -> wire.OpenedResult:
        await self._begin(caller)
        conversation_id = request.conversation_id or f"c{len(self._talks)}"
        was_created = conversation_id not in self._talks
        if was_created:
            self._talks[conversation_id] = Talk(
                title=request.title,
                participants={caller.uid, *request.participant_ids},
                created_at=next(self._times),
            )
        self._talk(caller, conversation_id)
        return wire.OpenedResult(
            conversation_id=conversation_id, was_created=was_created, mirrored=True, token="t"
        )

    async def send_message(self, caller: Caller, request: wire.SendMessage) -> wire.MessageResult:
        await self._begin(caller)
        talk = self._talk(caller, request.conversation_id)
        if any((other, caller.uid) in self._blocks for other in talk.participants):
            raise CallRefused("PERMISSION_DENIED", "You cannot write here.")
        message_id = request.message_id or f"m{len(talk.messages)}"
        if request.mode is wire.WriteMode.SEND and message_id not in talk.messages:
            talk.messages[message_id] = wire.Message(
                message_id=message_id,
                sender_id=caller.uid,
                body=request.body,
                sent_at=next(self._times),
                edited_at=None,
                attachments=request.attachments,
            )
        return self._written(request.conversation_id, message_id, talk.messages.get(message_id))

    def _written(
        self, conversation_id: str, message_id: str, message: wire.Message | None
    ) -> wire.MessageResult:
        return wire.MessageResult(
            conversation_id=conversation_id,
            message_id=message_id,
            message=message,
            mirrored=True,
            token="t",
        )

    async def edit_message(self, caller: Caller, request: wire.EditMessage) -> wire.MessageResult:
        await self._begin(caller)
        talk = self._talk(caller, request.conversation_id)
        had = talk.messages.get(request.message_id)
        if had is None or had.sender_id != caller.uid:
            raise CallRefused("NOT_FOUND", "There is no such message.")
        talk.messages[request.message_id] = wire.Message(
            message_id=had.message_id,
            sender_id=had.sender_id,
            body=had.body if request.body is None else request.body,
            sent_at=had.sent_at,
            edited_at=next(self._times),
            attachments=request.attachments or had.attachments,
        )
        message = talk.messages[request.message_id]
        return self._written(request.conversation_id, request.message_id, message)

    async def delete_message(
        self, caller: Caller, request: wire.DeleteMessage
    ) -> wire.MessageResult:
        await self._begin(caller)
        talk = self._talk(caller, request.conversation_id)
        had = talk.messages.get(request.message_id)
        if had is not None and had.sender_id != caller.uid:
            raise CallRefused("NOT_FOUND", "There is no such message.")
        talk.messages.pop(request.message_id, None)
        return self._written(request.conversation_id, request.message_id, None)

    async def mark_read(self, caller: Caller, request: wire.MarkRead) -> wire.MarkedReadResult:
        await self._begin(caller)
        talk = self._talk(caller, request.conversation_id)
        asked = request.read_us
        read_at = next(self._times) if asked is None else rfc3339_from_us(asked)
        talk.read_at[caller.uid] = max(read_at, talk.read_at.get(caller.uid, ""))
        return wire.MarkedReadResult(
            conversation_id=request.conversation_id,
            last_read_at=talk.read_at[caller.uid],
            mirrored=True,
            token="t",
        )

    async def get_relationship(
        self, caller: Caller, request: wire.GetRelationship
    ) -> wire.RelationshipResult:
        await self._begin(caller)
        viewer = request.viewer or caller.uid
        if viewer != caller.uid and not caller.is_service:
            raise CallRefused("PERMISSION_DENIED", "You are your own viewer.")
        there, back = (viewer, request.target), (request.target, viewer)
        return wire.RelationshipResult(
            outgoing=there in self._follows,
            incoming=back in self._follows,
            outgoing_block=there in self._blocks,
            incoming_block=back in self._blocks,
            source=Served.SQL,
            as_of=None,
        )

    async def follow(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        await self._begin(caller)
        self._follows.add((caller.uid, request.target))
        return self._edge(request.target, exists=True)

    async def unfollow(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        await self._begin(caller)
        self._follows.discard((caller.uid, request.target))
        return self._edge(request.target, exists=False)

    async def block(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        await self._begin(caller)
        self._blocks.add((caller.uid, request.target))
        return self._edge(request.target, exists=True)

    async def unblock(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        await self._begin(caller)
        self._blocks.discard((caller.uid, request.target))
        return self._edge(request.target, exists=False)

    def _edge(self, target: str, *, exists: bool) -> wire.EdgeResult:
        return wire.EdgeResult(target=target, exists=exists, mirrored=True, token="t")
