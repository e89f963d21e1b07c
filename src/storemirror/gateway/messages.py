"""Direct messages: what their writers may do, and what that makes of the documents."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from storemirror.clock import Clock, datetime_from_us, rfc3339_from_us, us_from_rfc3339
from storemirror.errors import CallRefused
from storemirror.event.change import Fields, Value
from storemirror.event.value import ValueInvalid, encode_value
from storemirror.gateway.document_items import message_of
from storemirror.gateway.dual_write import DualWrite, Intent, Written
from storemirror.gateway.fields import elements_of, field_of, text_at, with_value
from storemirror.gateway.ids import checked_id, checked_new_id, is_key
from storemirror.gateway.port import Caller, Feature, MessageItem
from storemirror.gateway.rights import Rights, no_message
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.source.port import Document, DocumentQuery, DocumentStore, TransactionReads
from storemirror.source.queries import value_at

_FEATURE: Final = Feature.MESSAGING
#: Of an id that the gateway chooses: as many bits as Firestore's own clients draw.
_ID_BYTES: Final = 15


class DirectMessageService:
    """
    Writes conversations and messages into Firestore, and by the same envelope into SQL.

    Fields are set where the declarations say that a column comes from; all others stay as they
    are.
    """

    def __init__(
        self,
        store: DocumentStore,
        declared: DirectMessages,
        graph: FollowGraph,
        writes: DualWrite,
        clock: Clock,
    ) -> None:
        """
        Name the parts.

        Args:
            store: Firestore, for what is checked outside a transaction.
            declared: conversations and messages.
            graph: blocks, which stand against messages.
            writes: the way to both sides.
            clock: gives `sentAt`, `createdAt` and `editedAt`; a client's clock is not trusted.
        """
        self._store = store
        self._writes = writes
        self._clock = clock
        self._declared = declared
        self._conversation = declared.conversation
        self._message = declared.message
        self._participants = declared.participants
        self._rights = Rights(declared, graph)

    async def open_conversation(
        self,
        caller: Caller,
        *,
        conversation_id: str | None,
        participant_ids: Sequence[str],
        title: str | None,
    ) -> Written:
        """
        Begin a conversation with others; once more is the same one.

        Raises:
            CallRefused: INVALID_ARGUMENT; PERMISSION_DENIED, one of them blocked the caller;
                ALREADY_EXISTS, the id is another conversation's, or was: who deletes its document
                leaves its messages there, and they are not the new one's people's to read.
        """
        people = sorted({caller.uid, *participant_ids})
        for person in people:
            checked_new_id(person, self._participants.key, "a user's id")
        if len(people) < 2:
            raise CallRefused("INVALID_ARGUMENT", "a conversation has two participants at least")
        name = conversation_id or secrets.token_urlsafe(_ID_BYTES)
        checked_new_id(name, self._conversation.keys[0], "conversationId")
        path = self._conversation.path_of((name,))
        contents = self._opened(people, title)
        # Outside of the transaction, which looks at named documents alone.  The gateway writes no
        # message without its conversation, so that only a client's own write could come between.
        # An id that is drawn here was nobody's before.
        has_messages = conversation_id is not None and await self._has_messages(name)

        async def decide(reads: TransactionReads) -> Intent:
            there = await reads.get(path)
            if there is not None:
                # All of them, the caller too: else a stranger who guesses id and people learns
                # that the conversation is there, and when it changed.
                if elements_of(there.fields, self._participants) != set(people):
                    raise _id_taken()
                return Intent(path=path, before=there, fields=there.fields)
            if has_messages:
                raise _id_taken()
            others = [person for person in people if person != caller.uid]
            await self._rights.refuse_blocked(reads, caller.uid, others)
            created = with_value(contents, field_of(self._conversation, "createdAt"), self._now())
            return Intent(path=path, before=None, fields=created)

        return await self._writes.write(caller, _FEATURE, decide)

    async def send(
        self,
        caller: Caller,
        *,
        conversation_id: str,
        message_id: str | None,
        body: str | None,
        attachments: object,
    ) -> Written:
        """
        Send one message; the same call again sends no second one.

        Args:
            caller: the sender.
            conversation_id: in which the caller takes part.
            message_id: chosen by the client, so that it can call again; None: chosen here.
            body: the text; None for none.
            attachments: plain JSON; None for none.

        Raises:
            CallRefused: NOT_FOUND, no such conversation; PERMISSION_DENIED, somebody in it blocked
                the caller; ALREADY_EXISTS, another message has this id.
        """
        name = message_id or secrets.token_urlsafe(_ID_BYTES)
        checked_new_id(name, self._message.keys[-1], "messageId")
        contents = self._sent(caller.uid, body, attachments)

        async def decide(reads: TransactionReads) -> Intent:
            conversation = await self._rights.conversation(reads, caller.uid, conversation_id)
            path = self._message.path_of((conversation_id, name))
            there = await reads.get(path)
            if there is not None:
                self._refuse_another(there, contents)
                return Intent(path=path, before=there, fields=there.fields)
            others = self._rights.others(conversation, caller.uid)
            await self._rights.refuse_blocked(reads, caller.uid, others)
            # At each attempt anew: a message that got its time long before it could be seen would
            # stand behind what its readers have read, and be unread by nobody.
            sent = with_value(contents, field_of(self._message, "sentAt"), self._now())
            return Intent(path=path, before=None, fields=sent)

        return await self._writes.write(caller, _FEATURE, decide)

    async def edit(
        self,
        caller: Caller,
        *,
        conversation_id: str,
        message_id: str,
        body: str | None,
        attachments: object,
    ) -> Written:
        """
        Change a message of the caller's own; once more changes nothing.

        Args:
            caller: who sent it.
            conversation_id: in which the caller takes part.
            message_id: which one.
            body: None: stays as it is; likewise attachments.
            attachments: plain JSON.

        Raises:
            CallRefused: NOT_FOUND; PERMISSION_DENIED, somebody in the conversation blocked the
                caller.
        """

        async def decide(reads: TransactionReads) -> Intent:
            conversation, there = await self._own_message(
                reads, caller, conversation_id, message_id
            )
            fields = self._with_contents(there.fields, body, attachments)
            if fields != there.fields:
                # New words reach whoever reads the conversation, as a new message does.
                others = self._rights.others(conversation, caller.uid)
                await self._rights.refuse_blocked(reads, caller.uid, others)
                fields = with_value(fields, field_of(self._message, "editedAt"), self._now())
            return Intent(path=there.path, before=there, fields=fields)

        return await self._writes.write(caller, _FEATURE, decide)

    async def delete(self, caller: Caller, *, conversation_id: str, message_id: str) -> Written:
        """
        Take back a message of the caller's own.

        Raises:
            CallRefused: NOT_FOUND, also when it is gone already.
        """

        async def decide(reads: TransactionReads) -> Intent:
            _, there = await self._own_message(reads, caller, conversation_id, message_id)
            return Intent(path=there.path, before=there, fields=None)

        return await self._writes.write(caller, _FEATURE, decide)

    async def mark_read(
        self, caller: Caller, *, conversation_id: str, read_us: int | None
    ) -> Written:
        """
        Remember that the caller has read a conversation up to a moment; it only moves forward.

        Args:
            caller: who read it.
            conversation_id: in which the caller takes part.
            read_us: None: now; a moment to come is now too.

        Raises:
            CallRefused: NOT_FOUND; FAILED_PRECONDITION, the declaration keeps no such mark.
        """
        now_us = self._clock.now_us()
        up_to_us = now_us if read_us is None else min(read_us, now_us)
        mark = self.read_mark(caller.uid)

        async def decide(reads: TransactionReads) -> Intent:
            there = await self._rights.conversation(reads, caller.uid, conversation_id)
            before_us = _moment(value_at(there.fields, mark))
            if before_us is not None and before_us >= up_to_us:
                return Intent(path=there.path, before=there, fields=there.fields)
            moment: Value = {"timestampValue": rfc3339_from_us(up_to_us)}
            fields = with_value(there.fields, mark, moment)
            return Intent(path=there.path, before=there, fields=fields)

        return await self._writes.write(caller, _FEATURE, decide)

    async def mirror_message(
        self, caller: Caller, *, conversation_id: str, message_id: str
    ) -> Written:
        """
        Mirror a message that the client wrote, changed or deleted itself.

        What is mirrored is what Firestore has, whoever wrote it.

        Raises:
            CallRefused: NOT_FOUND, no such conversation of the caller's.
        """
        checked_id(message_id, self._message.keys[-1], "messageId")
        await self._rights.conversation(_Now(self._store), caller.uid, conversation_id)
        path = self._message.path_of((conversation_id, message_id))
        return await self._writes.observe(caller, _FEATURE, path)

    def item_of(self, written: Written) -> MessageItem | None:
        """Give a message that was written as readers give it; None: it is gone, or unfit."""
        if written.fields is None or written.token is None:
            return None
        commit_us = written.token.version // 2
        document = Document(
            path=written.path,
            fields=written.fields,
            create_time_us=commit_us,
            update_time_us=commit_us,
        )
        found = message_of(self._declared, document)
        return None if found is None else found.item

    async def _own_message(
        self, reads: TransactionReads, caller: Caller, conversation_id: str, message_id: str
    ) -> tuple[Document, Document]:
        """Give the conversation and a message in it that the caller has sent."""
        conversation = await self._rights.conversation(reads, caller.uid, conversation_id)
        if not is_key(message_id, self._message.keys[-1]):
            raise no_message()
        there = await reads.get(self._message.path_of((conversation_id, message_id)))
        sender = field_of(self._message, "senderId")
        if there is None or text_at(there.fields, sender) != caller.uid:
            raise no_message()
        return conversation, there

    def _opened(self, people: Sequence[str], title: str | None) -> Fields:
        fields = with_value({}, self._participants.field, encode_value(list(people)))
        if title is not None:
            fields = with_value(fields, field_of(self._conversation, "title"), _encoded(title))
        return fields

    def _sent(self, sender: str, body: str | None, attachments: object) -> Fields:
        fields = with_value({}, field_of(self._message, "senderId"), encode_value(sender))
        return self._with_contents(fields, body, attachments)

    def _with_contents(self, fields: Fields, body: str | None, attachments: object) -> Fields:
        for column, value in (("body", body), ("attachments", attachments)):
            if value is not None:
                fields = with_value(fields, field_of(self._message, column), _encoded(value))
        return fields

    def _refuse_another(self, there: Document, sent: Fields) -> None:
        """
        See that a message that is there is the one that is being sent once more.

        One that was edited has other contents by now: its sender and its id say enough.
        """
        compared = ["senderId"]
        if value_at(there.fields, field_of(self._message, "editedAt")) is None:
            compared += ["body", "attachments"]
        for column in compared:
            path = field_of(self._message, column)
            if value_at(there.fields, path) != value_at(sent, path):
                raise CallRefused("ALREADY_EXISTS", "another message has this messageId")

    async def _has_messages(self, conversation_id: str) -> bool:
        """Tell whether there are messages below a conversation's id, whatever they hold."""
        query = DocumentQuery(collection=self._declared.messages_of(conversation_id), limit=1)
        return bool((await self._store.query(query)).documents)

    def read_mark(self, uid: str) -> tuple[str, ...]:
        """
        Give where a conversation's document keeps up to when somebody has read it.

        Raises:
            CallRefused: FAILED_PRECONDITION, the declaration keeps no such mark.
        """
        checked_id(uid, self._participants.key, "a user's id")
        for column in self._participants.columns:
            if column.name == "lastReadAt":
                return (*column.from_map, uid)
        raise CallRefused("FAILED_PRECONDITION", "this app keeps no mark of what was read")

    def _now(self) -> Value:
        return encode_value(datetime_from_us(self._clock.now_us()))


class _Now:
    """Reads documents as they are now, outside a transaction."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    async def get(self, path: str) -> Document | None:
        return (await self._store.get(path)).document


def _id_taken() -> CallRefused:
    return CallRefused("ALREADY_EXISTS", "this id is taken; choose another one")


def _encoded(value: object) -> Value:
    """Give what a client sent as Firestore has it."""
    try:
        return encode_value(value)
    except ValueInvalid as exc:
        raise CallRefused("INVALID_ARGUMENT", f"Firestore does not keep this: {exc}") from exc


def _moment(value: Value | None) -> int | None:
    """Give a time in microseconds since the Unix epoch; None when the value is no time."""
    text = None if value is None else value.get("timestampValue")
    return us_from_rfc3339(text) if isinstance(text, str) else None
