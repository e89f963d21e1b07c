"""
Reads for callables from the documents themselves.

Firestore has no roll-ups and no joins: an inbox is put together here.  It costs one read for each
conversation of the viewer and one for its last message, whatever the page's size, for their order
is known only then; two at least; and one for each conversation on the page, for unread messages.
What the parts of an answer show may lie moments apart; `as_of_us` is the earliest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from storemirror.errors import CallRefused
from storemirror.event.change import Value
from storemirror.gateway.document_items import (
    Conversation,
    Message,
    conversation_of,
    live_version_of,
    message_of,
    row_of,
)
from storemirror.gateway.document_queries import (
    PAGE_SIZE,
    conversations_queries,
    messages_query,
    unread_query,
)
from storemirror.gateway.page_budget import FIRST_COUNT, GROWTH, PageBudget
from storemirror.gateway.port import (
    ConversationItem,
    ConversationPage,
    Edge,
    MessagePage,
    Position,
    Relationship,
)
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.gateway.together import together
from storemirror.model.entity import Entity, KeyPart
from storemirror.model.mapping import key_fault
from storemirror.model.types import DialectLimits
from storemirror.source.port import Document, DocumentStore
from storemirror.source.queries import value_at

#: Most conversations of an inbox that is put together from documents.
INBOX_MAX_COUNT: Final = 2_000
#: Most reads of one call that are under way at the same time.
_CONCURRENT_COUNT: Final = 8
#: Longest id, in UTF-8 bytes.
_ID_MAX_BYTES: Final = 1_500


class DocumentMessagesReader:
    """See `MessagesReader`."""

    def __init__(self, store: DocumentStore, declared: DirectMessages) -> None:
        """Read from a store, which stays the caller's to close."""
        self._store = store
        self._declared = declared

    async def conversations(
        self, viewer: str, *, older_than: Position | None, limit: int
    ) -> ConversationPage:
        """See `MessagesReader.conversations`."""
        seen = _Seen()
        found = await self._conversations_of(viewer, seen)

        async def entry_of(conversation: Conversation) -> _Entry:
            messages = await self._messages(
                conversation.conversation_id, seen, behind=None, is_falling=True
            )
            return _Entry(conversation, messages[0] if messages else None)

        entries = await together(entry_of, found, most=_CONCURRENT_COUNT)
        if older_than is not None:
            entries = [entry for entry in entries if entry.position < older_than]
        entries.sort(key=lambda entry: entry.position, reverse=True)

        async def item_of(entry: _Entry) -> ConversationItem:
            last_read_us = entry.conversation.participants[viewer]
            query = unread_query(
                self._declared,
                entry.conversation.conversation_id,
                viewer,
                last_read_us=last_read_us,
            )
            return _item_of(entry, viewer, unread_count=await self._store.count_of(query))

        return ConversationPage(
            items=tuple(await together(item_of, entries[:limit], most=_CONCURRENT_COUNT)),
            has_older=len(entries) > limit,
            as_of_us=seen.as_of_us,
        )

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Position | None = None,
        newer_than: Position | None = None,
        limit: int,
    ) -> MessagePage | None:
        """See `MessagesReader.messages`."""
        if older_than is not None and newer_than is not None:
            raise ValueError("a page lies behind a place or before one, not both")
        if not _is_id(self._declared.conversation.keys[0], conversation_id, self._declared.limits):
            return None
        seen = _Seen()
        read = await self._store.get(self._declared.conversation.path_of((conversation_id,)))
        seen.note(read.read_time_us)
        if read.document is None:
            return None
        conversation = conversation_of(self._declared, read.document)
        if conversation is None or viewer not in conversation.participants:
            return None
        is_falling = newer_than is None
        asked = older_than if is_falling else newer_than
        budget = PageBudget(limit)
        found = await self._messages(
            conversation_id, seen, behind=asked, is_falling=is_falling, budget=budget
        )
        has_further, found = len(found) > budget.count, found[: budget.count]
        has_back = False
        if asked is not None:
            # The other way, from the end of the page that lies nearer to the asked place.
            turn = found[0].item.position if found else asked
            back = await self._messages(
                conversation_id, seen, behind=turn, is_falling=not is_falling
            )
            has_back = bool(back)
        items = tuple(message.item for message in (found if is_falling else reversed(found)))
        return MessagePage(
            items=items,
            has_older=has_further if is_falling else has_back,
            has_newer=has_back if is_falling else has_further,
            as_of_us=seen.as_of_us,
        )

    async def _conversations_of(self, viewer: str, seen: _Seen) -> Sequence[Conversation]:
        """Read all conversations in which the viewer takes part; CallRefused: too many."""
        if not _fits(self._declared.participants.key, viewer, self._declared.limits):
            return []
        found: dict[str, Conversation] = {}
        for first in conversations_queries(self._declared, viewer):
            query = first
            while True:
                page = await self._store.query(query)
                seen.note(page.read_time_us)
                read = (conversation_of(self._declared, d) for d in page.documents)
                found.update((c.conversation_id, c) for c in read if c is not None)
                if len(found) > INBOX_MAX_COUNT:
                    # Strangers open conversations too: nobody's inbox may cost whatever they like.
                    raise CallRefused(
                        "FAILED_PRECONDITION",
                        f"this inbox has over {INBOX_MAX_COUNT} conversations: SQL alone serves it",
                    )
                if len(page.documents) < query.limit:
                    break
                query = replace(query, after=_place_of(page.documents[-1], query.order_by))
        return list(found.values())

    async def _messages(
        self,
        conversation_id: str,
        seen: _Seen,
        *,
        behind: Position | None,
        is_falling: bool,
        budget: PageBudget | None = None,
    ) -> list[Message]:
        """
        Read messages behind a place until there are so many that fit, or no more at all.

        Args:
            conversation_id: whose.
            seen: is told when they were read.
            behind: the place; None: from the end.
            is_falling: newest first.
            budget: takes those of the page; the one after them is given as well.  None: one message
                is enough.
        """
        query = messages_query(
            self._declared,
            conversation_id,
            behind=behind,
            is_falling=is_falling,
            limit=1 if budget is None else budget.next_count + 1,
        )
        found: list[Message] = []
        read_count = 0
        while True:
            page = await self._store.query(query)
            seen.note(page.read_time_us)
            is_fit = True
            for document in page.documents:
                message = message_of(self._declared, document)
                if message is None:
                    is_fit = False
                    continue
                found.append(message)
                if budget is None or not budget.takes(message.item):
                    return found
            if len(page.documents) < query.limit:
                return found
            read_count += len(page.documents)
            if budget is not None and is_fit:
                count = budget.next_count + 1
            else:
                # Some did not fit.  There may be many, and each may be large.
                count = min(PAGE_SIZE, max(FIRST_COUNT, read_count * GROWTH))
            after = _place_of(page.documents[-1], query.order_by)
            query = replace(query, after=after, limit=count)


class DocumentFollowReader:
    """See `FollowReader`.  Four reads a call."""

    def __init__(self, store: DocumentStore, declared: FollowGraph) -> None:
        """Read from a store, which stays the caller's to close."""
        self._store = store
        self._declared = declared

    async def relationship(self, viewer: str, target: str) -> Relationship:
        """See `FollowReader.relationship`."""
        seen = _Seen()

        async def edge_of(asked: tuple[Entity, str, str]) -> Edge:
            entity, from_id, to_id = asked
            is_from_id = _is_id(entity.keys[0], from_id, self._declared.limits)
            if not (is_from_id and _is_id(entity.keys[1], to_id, self._declared.limits)):
                return _NO_EDGE
            read = await self._store.get(entity.path_of((from_id, to_id)))
            seen.note(read.read_time_us)
            return _edge_of(entity, read.document, self._declared.limits)

        follow, block = self._declared.follow, self._declared.block
        outgoing, incoming, outgoing_block, incoming_block = await together(
            edge_of,
            [
                (follow, viewer, target),
                (follow, target, viewer),
                (block, viewer, target),
                (block, target, viewer),
            ],
        )
        return Relationship(
            outgoing=outgoing,
            incoming=incoming,
            outgoing_block=outgoing_block,
            incoming_block=incoming_block,
            as_of_us=seen.as_of_us,
        )


_NO_EDGE: Final = Edge(exists=False, version=None)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A conversation and where it stands in an inbox."""

    conversation: Conversation
    #: The last message; None: there is none.
    last: Message | None

    @property
    def position(self) -> Position:
        last_activity_us = self.conversation.created_us
        if self.last is not None:
            last_activity_us = self.last.item.sent_us
        return Position(time_us=last_activity_us, id=self.conversation.conversation_id)


class _Seen:
    """The read times that went into one answer."""

    def __init__(self) -> None:
        #: The earliest; None: nothing was read.
        self.as_of_us: int | None = None

    def note(self, read_time_us: int) -> None:
        """Take note of one more."""
        if self.as_of_us is None or read_time_us < self.as_of_us:
            self.as_of_us = read_time_us


def _item_of(entry: _Entry, viewer: str, *, unread_count: int) -> ConversationItem:
    conversation, last = entry.conversation, entry.last
    return ConversationItem(
        conversation_id=conversation.conversation_id,
        version=conversation.version,
        title=conversation.title,
        created_us=conversation.created_us,
        last_activity_us=entry.position.time_us,
        last_message_id=None if last is None else last.item.message_id,
        last_message_us=None if last is None else last.item.sent_us,
        last_message_preview=None if last is None else last.preview,
        last_message_version=None if last is None else last.item.version,
        unread_count=unread_count,
        last_read_us=conversation.participants[viewer],
        others=conversation.others(viewer),
    )


def _edge_of(entity: Entity, document: Document | None, limits: DialectLimits) -> Edge:
    if document is None or row_of(entity, document, limits) is None:
        return _NO_EDGE
    return Edge(exists=True, version=live_version_of(document))


def _place_of(document: Document, order_by: tuple[str, ...] | None) -> tuple[Value | None, str]:
    """Give the place of a document in its query's order."""
    value = None if order_by is None else value_at(document.fields, order_by)
    return value, document.path.rpartition("/")[2]


def _fits(part: KeyPart, value: str, limits: DialectLimits) -> bool:
    """Tell whether a value can be this part of a row's key, and be in a document at all."""
    is_text = not any("\ud800" <= c <= "\udfff" for c in value)
    return is_text and key_fault(part, value, limits) is None


def _is_id(part: KeyPart, value: str, limits: DialectLimits) -> bool:
    """Tell whether a value can be a document's id, and this part of a row's key."""
    return _fits(part, value, limits) and "/" not in value and len(value.encode()) <= _ID_MAX_BYTES
