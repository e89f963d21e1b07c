"""
What the callables take and give, as JSON: one struct a request and an answer.

Names are camelCase on the wire.  Times are RFC 3339 with six decimals and `Z`.  What a request has
too much is refused, so that a slip of the pen is not taken for a wish; an answer always has all of
its fields, those without a value as null.  The schema, the reference page and the golden files of
the client team are made from these.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from storemirror.clock import us_from_rfc3339
from storemirror.gateway.port import Served
from storemirror.sql.reads import UNREAD_LIMIT

#: Code points of a message's body.
BODY_MAX_LENGTH: Final = 32_768
ATTACHMENTS_MAX_COUNT: Final = 32
PARTICIPANTS_MAX_COUNT: Final = 100
PAGE_MAX_SIZE: Final = 1_000
#: Values in all attachments of a message together: whoever reads the message pays for each, and
#: two bytes of a request make one.
ATTACHMENT_VALUES_MAX_COUNT: Final = 500
#: How deep Firestore nests maps and arrays within a document.
ATTACHMENT_DEPTH_MAX: Final = 16
#: Longest name of a field that Firestore keeps, in UTF-8.
NAME_MAX_BYTES: Final = 1_500
#: Up to here an unread count is exact; one more says "99+".
UNREAD_MAX_COUNT: Final = UNREAD_LIMIT - 1

# Firestore refuses as a document's id: "/" inside, "." and "..", and two underscores at both ends.
_ID: Final = r"^(?!\.{1,2}$)(?!__.*__$)[^/\x00-\x1f\x7f]+$"
_RESERVED_NAME: Final = re.compile(r"__.*__")

NewId = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=1_500,
        pattern=_ID,
        description="Can be the id of a document; at most as long as the app declares ids.",
    ),
]
UserId = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=128, pattern=_ID, description="Firebase uid of a user."),
]
#: Ids of what may be there already: one that cannot be is simply not there.
KnownId = Annotated[str, msgspec.Meta(max_length=1_500, description="Id of a document.")]
Opaque = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=4_096,
        description="Text of an earlier answer, to be handed back as it is.",
    ),
]
PageSize = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=PAGE_MAX_SIZE,
        description="Most items wanted; the gateway may give fewer, by its own settings and where "
        "messages are large: whether there are more is told by the cursors alone.",
    ),
]
Body = Annotated[str, msgspec.Meta(max_length=BODY_MAX_LENGTH)]
Attachments = Annotated[list[dict[str, Any]], msgspec.Meta(max_length=ATTACHMENTS_MAX_COUNT)]
Title = Annotated[str, msgspec.Meta(max_length=256)]
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class WriteMode(enum.StrEnum):
    """Who writes Firestore."""

    #: The gateway does, and mirrors what it wrote.
    SEND = "send"
    #: The client has done so; the gateway reads the document and mirrors what it finds.
    MIRROR = "mirror"


class Request(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """What every request has in common."""


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every answer has in common."""


class ListConversations(Request, frozen=True, kw_only=True):
    """A page of the caller's inbox."""

    page_size: PageSize | None = None
    #: `older` of an earlier answer: what lies behind that page; null: from the newest on.
    cursor: Opaque | None = None
    #: `token` of a write that the answer must show.
    after: Opaque | None = None


class ListMessages(Request, frozen=True, kw_only=True):
    """A page of a conversation in which the caller takes part."""

    conversation_id: KnownId
    page_size: PageSize | None = None
    #: `older` or `newer` of an earlier answer; null: the newest messages.
    cursor: Opaque | None = None
    #: `token` of a write that the answer must show.
    after: Opaque | None = None


class OpenConversation(Request, frozen=True, kw_only=True):
    """Begin a conversation; repeated with the same id and participants it changes nothing."""

    #: Null: the gateway chooses one; then a repeated call opens a second conversation.  At most as
    #: long as declared, 128 characters by default.
    conversation_id: NewId | None = None
    #: Who takes part; the caller does anyway.
    participant_ids: Annotated[
        list[UserId], msgspec.Meta(min_length=1, max_length=PARTICIPANTS_MAX_COUNT)
    ]
    title: Title | None = None


class SendMessage(Request, frozen=True, kw_only=True):
    """Send a message as the caller, or mirror one that the client has written itself."""

    mode: WriteMode = WriteMode.SEND
    conversation_id: KnownId
    #: With mode "send": repeated with the same id it sends one message.  With "mirror": required.
    #: At most as long as declared, 128 characters by default.
    message_id: NewId | None = None
    body: Body | None = None
    #: At most 500 values in all, those within others too.
    attachments: Attachments | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts the mode."""
        has_contents = self.body is not None or self.attachments is not None
        if self.mode is WriteMode.MIRROR and (self.message_id is None or has_contents):
            raise ValueError('mode "mirror" takes a messageId, and neither body nor attachments')
        if self.mode is WriteMode.SEND and not has_contents:
            raise ValueError('mode "send" takes a body, attachments, or both')
        refuse_unstorable(self.attachments)


class EditMessage(Request, frozen=True, kw_only=True):
    """Change a message that the caller has sent; what is null stays as it is."""

    conversation_id: KnownId
    message_id: KnownId
    body: Body | None = None
    attachments: Attachments | None = None

    def __post_init__(self) -> None:
        """Refuse an edit that changes nothing."""
        if self.body is None and self.attachments is None:
            raise ValueError("an edit takes a body, attachments, or both")
        refuse_unstorable(self.attachments)


class DeleteMessage(Request, frozen=True, kw_only=True):
    """Delete a message that the caller has sent; one that is gone already is NOT_FOUND."""

    conversation_id: KnownId
    message_id: KnownId


class MarkRead(Request, frozen=True, kw_only=True):
    """Say up to when the caller has read a conversation; it never goes back."""

    conversation_id: KnownId
    #: Null: now, by the server's clock.
    read_at: Time | None = None

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        if self.read_at is not None and us_from_rfc3339(self.read_at) < 0:
            raise ValueError("nobody has read anything before 1970")

    @property
    def read_us(self) -> int | None:
        """Give `read_at` in microseconds since the Unix epoch."""
        return None if self.read_at is None else us_from_rfc3339(self.read_at)


class GetRelationship(Request, frozen=True, kw_only=True):
    """How the caller and another user stand to each other."""

    #: Services only: whose view; users are always their own viewer.
    viewer: UserId | None = None
    target: UserId
    #: `token` of a write that the answer must show.
    after: Opaque | None = None


class ChangeEdge(Request, frozen=True, kw_only=True):
    """Follow, unfollow, block or unblock; repeated it changes nothing."""

    #: With "mirror" the gateway reads the edge as it is, there or gone, and mirrors that.
    mode: WriteMode = WriteMode.SEND
    target: UserId


class ReadResult(Result, frozen=True, kw_only=True):
    """What the answers of all reads have in common."""

    #: Which side answered.
    source: Served
    #: The answer shows every commit up to here, as far as the source knows; null: it does not.
    as_of: Time | None


class LastMessage(Result, frozen=True, kw_only=True):
    """The newest message of a conversation."""

    message_id: str
    sent_at: Time
    #: The first code points of its body, 140 unless the declaration says otherwise.
    preview: str | None


class OtherParticipant(Result, frozen=True, kw_only=True):
    """Somebody else in a conversation."""

    user_id: str
    #: Null: never marked anything as read.
    last_read_at: Time | None


class Conversation(Result, frozen=True, kw_only=True):
    """One line of an inbox."""

    conversation_id: str
    title: str | None
    created_at: Time
    #: Time of the last message, else of the creation: the inbox is ordered by it.
    last_activity_at: Time
    last_message: LastMessage | None
    #: Messages of others since the caller's `lastReadAt`; 99 and `unreadIsMore` means "99+".
    unread_count: Annotated[int, msgspec.Meta(ge=0, le=UNREAD_MAX_COUNT)]
    unread_is_more: bool
    #: When the caller last marked it as read; null: never.
    last_read_at: Time | None
    #: Everybody but the caller, by rising user id.
    others: Sequence[OtherParticipant]


class ConversationsResult(ReadResult, frozen=True, kw_only=True):
    """A page of an inbox, newest activity first."""

    items: Sequence[Conversation]
    #: Cursor for what lies behind the last item; null: nothing does.
    older: str | None


class Message(Result, frozen=True, kw_only=True):
    """One message."""

    message_id: str
    sender_id: str
    body: str | None
    sent_at: Time
    #: Null: never edited.
    edited_at: Time | None
    #: As they were sent; null: there are none.
    attachments: Any


class MessagesResult(ReadResult, frozen=True, kw_only=True):
    """A page of a conversation, newest message first, whichever way it was asked for."""

    items: Sequence[Message]
    #: Cursor for what lies behind the last item; null: nothing does.
    older: str | None
    #: Cursor for what lies before the first item, to be asked for later too; null: no items.
    newer: str | None
    #: Whether there is something before the first item at this moment.
    has_newer: bool


class RelationshipResult(ReadResult, frozen=True, kw_only=True):
    """How two users stand to each other."""

    #: The viewer follows the target.
    outgoing: bool
    #: The target follows the viewer.
    incoming: bool
    #: The viewer blocked the target.
    outgoing_block: bool
    #: The target blocked the viewer.
    incoming_block: bool


class WriteResult(Result, frozen=True, kw_only=True):
    """What the answers of all writes have in common."""

    #: Whether SQL shows the write; if not, the event path brings it.
    mirrored: bool
    #: To be handed to a read as `after`; null: there was nothing to write.
    token: str | None


class OpenedResult(WriteResult, frozen=True, kw_only=True):
    """A conversation that is open."""

    conversation_id: str
    #: False: it was there already, with these participants.
    was_created: bool


class MessageResult(WriteResult, frozen=True, kw_only=True):
    """A message as it is after the write."""

    conversation_id: str
    message_id: str
    #: Null: it is gone.
    message: Message | None


class MarkedReadResult(WriteResult, frozen=True, kw_only=True):
    """Up to when a conversation is read."""

    conversation_id: str
    last_read_at: Time


class EdgeResult(WriteResult, frozen=True, kw_only=True):
    """A follow or a block as it is after the write."""

    target: str
    exists: bool


def refuse_unstorable(attachments: object) -> None:
    """
    Refuse what Firestore would not keep, before anything is written.

    Raises:
        ValueError: an array directly in an array, an integer of more than 64 bits, a name that is
            empty or reserved, nesting that is too deep, or more values than are taken.

    >>> refuse_unstorable([{"sizes": [[1]]}])
    Traceback (most recent call last):
    ValueError: Firestore keeps no array directly in an array
    """
    if attachments is not None:
        _refuse_in(attachments, in_array=False, depth=0)
        if _value_count(attachments) > ATTACHMENT_VALUES_MAX_COUNT:
            raise ValueError(f"attachments have more than {ATTACHMENT_VALUES_MAX_COUNT} values")


def _value_count(value: object) -> int:
    """Count the values below one."""
    match value:
        case list():
            return len(value) + sum(map(_value_count, value))
        case dict():
            return len(value) + sum(map(_value_count, value.values()))
    return 0


def _refuse_in(value: object, *, in_array: bool, depth: int) -> None:
    if depth > ATTACHMENT_DEPTH_MAX:
        raise ValueError(f"attachments are nested more than {ATTACHMENT_DEPTH_MAX} deep")
    match value:
        case list():
            if in_array:
                raise ValueError("Firestore keeps no array directly in an array")
            for element in value:
                _refuse_in(element, in_array=True, depth=depth + 1)
        case dict():
            for name, element in value.items():
                if not 0 < len(name.encode()) <= NAME_MAX_BYTES or _RESERVED_NAME.fullmatch(name):
                    raise ValueError("Firestore keeps no empty name, and none as in __name__")
                _refuse_in(element, in_array=False, depth=depth + 1)
        case bool():
            return
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError("Firestore keeps integers of 64 bits")
