"""
The table of callables: by what names clients know them, what they take and give, who answers.

The names are a contract with every app that is installed.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from storemirror.gateway import wire
from storemirror.gateway.port import Caller, Feature
from storemirror.gateway.protocol import request_of

Req = TypeVar("Req", bound=wire.Request)
Res = TypeVar("Res", bound=wire.Result)


class Handlers(Protocol):
    """
    What answers the callables, one method each.

    Every method may raise `CallRefused`, which the client is told word for word, and a
    `TransientError`, which becomes UNAVAILABLE.  A call may be cancelled at its deadline.
    """

    async def list_conversations(
        self, caller: Caller, request: wire.ListConversations
    ) -> wire.ConversationsResult:
        """Answer `sqlGatewayDmListConversations`."""
        ...

    async def list_messages(
        self, caller: Caller, request: wire.ListMessages
    ) -> wire.MessagesResult:
        """Answer `sqlGatewayDmListMessages`."""
        ...

    async def open_conversation(
        self, caller: Caller, request: wire.OpenConversation
    ) -> wire.OpenedResult:
        """Answer `sqlGatewayDmOpenConversation`."""
        ...

    async def send_message(self, caller: Caller, request: wire.SendMessage) -> wire.MessageResult:
        """Answer `sqlGatewayDmSend`."""
        ...

    async def edit_message(self, caller: Caller, request: wire.EditMessage) -> wire.MessageResult:
        """Answer `sqlGatewayDmEdit`."""
        ...

    async def delete_message(
        self, caller: Caller, request: wire.DeleteMessage
    ) -> wire.MessageResult:
        """Answer `sqlGatewayDmDelete`."""
        ...

    async def mark_read(self, caller: Caller, request: wire.MarkRead) -> wire.MarkedReadResult:
        """Answer `sqlGatewayDmMarkRead`."""
        ...

    async def get_relationship(
        self, caller: Caller, request: wire.GetRelationship
    ) -> wire.RelationshipResult:
        """Answer `sqlGatewayFollowGetRelationship`."""
        ...

    async def follow(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """Answer `sqlGatewayFollowEdgeUpsert`."""
        ...

    async def unfollow(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """Answer `sqlGatewayFollowEdgeDelete`."""
        ...

    async def block(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """Answer `sqlGatewayBlockUpsert`."""
        ...

    async def unblock(self, caller: Caller, request: wire.ChangeEdge) -> wire.EdgeResult:
        """Answer `sqlGatewayBlockDelete`."""
        ...


class CallKind(enum.StrEnum):
    """What a callable does: of another kind is its deadline."""

    READ = "read"
    WRITE = "write"


Answering = Callable[[Caller, Req], Awaitable[Res]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallableSpec(Generic[Req, Res]):
    """One callable."""

    #: By which clients call it.
    name: str
    #: What it does, as one line.
    what: str
    #: The part of the app it belongs to.
    feature: Feature
    kind: CallKind
    #: Label of its latency beside `sqlMirror`, which stands for all.
    category: str
    request: type[Req]
    result: type[Res]
    #: Finds the method that answers it.
    answering: Callable[[Handlers], Answering[Req, Res]]
    #: Whether allow-listed service accounts may call it too; users may call each.
    takes_services: bool = False

    async def answer(self, handlers: Handlers, caller: Caller, data: object) -> Res:
        """
        Read the request, and let its handler answer.

        Args:
            handlers: who answers.
            caller: who asks.
            data: plain JSON, see `storemirror.gateway.protocol.data_of`.

        Raises:
            CallRefused: INVALID_ARGUMENT when the data is no such request; what handlers raise.
        """
        return await self.answering(handlers)(caller, request_of(data, self.request))


_DM: Final = "dmSqlMirror"
_FOLLOW: Final = "followSqlMirror"
#: Those with a rate of their own.
OPEN_CONVERSATION: Final = "sqlGatewayDmOpenConversation"
SEND_MESSAGE: Final = "sqlGatewayDmSend"

_SPECS: Final[tuple[CallableSpec[Any, Any], ...]] = (
    CallableSpec(
        name="sqlGatewayDmListConversations",
        what="Read a page of the caller's inbox, newest activity first.",
        feature=Feature.MESSAGING,
        kind=CallKind.READ,
        category=_DM,
        request=wire.ListConversations,
        result=wire.ConversationsResult,
        answering=lambda handlers: handlers.list_conversations,
    ),
    CallableSpec(
        name="sqlGatewayDmListMessages",
        what="Read a page of a conversation, newest message first.",
        feature=Feature.MESSAGING,
        kind=CallKind.READ,
        category=_DM,
        request=wire.ListMessages,
        result=wire.MessagesResult,
        answering=lambda handlers: handlers.list_messages,
    ),
    CallableSpec(
        name=OPEN_CONVERSATION,
        what="Begin a conversation.",
        feature=Feature.MESSAGING,
        kind=CallKind.WRITE,
        category=_DM,
        request=wire.OpenConversation,
        result=wire.OpenedResult,
        answering=lambda handlers: handlers.open_conversation,
    ),
    CallableSpec(
        name=SEND_MESSAGE,
        what="Send a message, or mirror one that the client has written itself.",
        feature=Feature.MESSAGING,
        kind=CallKind.WRITE,
        category=_DM,
        request=wire.SendMessage,
        result=wire.MessageResult,
        answering=lambda handlers: handlers.send_message,
    ),
    CallableSpec(
        name="sqlGatewayDmEdit",
        what="Change a message that the caller has sent.",
        feature=Feature.MESSAGING,
        kind=CallKind.WRITE,
        category=_DM,
        request=wire.EditMessage,
        result=wire.MessageResult,
        answering=lambda handlers: handlers.edit_message,
    ),
    CallableSpec(
        name="sqlGatewayDmDelete",
        what="Delete a message that the caller has sent.",
        feature=Feature.MESSAGING,
        kind=CallKind.WRITE,
        category=_DM,
        request=wire.DeleteMessage,
        result=wire.MessageResult,
        answering=lambda handlers: handlers.delete_message,
    ),
    CallableSpec(
        name="sqlGatewayDmMarkRead",
        what="Say up to when the caller has read a conversation.",
        feature=Feature.MESSAGING,
        kind=CallKind.WRITE,
        category=_DM,
        request=wire.MarkRead,
        result=wire.MarkedReadResult,
        answering=lambda handlers: handlers.mark_read,
    ),
    CallableSpec(
        name="sqlGatewayFollowGetRelationship",
        what="Read how two users stand to each other: follows and blocks, both ways.",
        feature=Feature.FOLLOW,
        kind=CallKind.READ,
        category=_FOLLOW,
        request=wire.GetRelationship,
        result=wire.RelationshipResult,
        answering=lambda handlers: handlers.get_relationship,
        takes_services=True,
    ),
    CallableSpec(
        name="sqlGatewayFollowEdgeUpsert",
        what="Follow a user.",
        feature=Feature.FOLLOW,
        kind=CallKind.WRITE,
        category=_FOLLOW,
        request=wire.ChangeEdge,
        result=wire.EdgeResult,
        answering=lambda handlers: handlers.follow,
    ),
    CallableSpec(
        name="sqlGatewayFollowEdgeDelete",
        what="Unfollow a user.",
        feature=Feature.FOLLOW,
        kind=CallKind.WRITE,
        category=_FOLLOW,
        request=wire.ChangeEdge,
        result=wire.EdgeResult,
        answering=lambda handlers: handlers.unfollow,
    ),
    CallableSpec(
        name="sqlGatewayBlockUpsert",
        what="Block a user.",
        feature=Feature.FOLLOW,
        kind=CallKind.WRITE,
        category=_FOLLOW,
        request=wire.ChangeEdge,
        result=wire.EdgeResult,
        answering=lambda handlers: handlers.block,
    ),
    CallableSpec(
        name="sqlGatewayBlockDelete",
        what="Unblock a user.",
        feature=Feature.FOLLOW,
        kind=CallKind.WRITE,
        category=_FOLLOW,
        request=wire.ChangeEdge,
        result=wire.EdgeResult,
        answering=lambda handlers: handlers.unblock,
    ),
)
#: Every callable, by its name.
CALLABLES: Final[Mapping[str, CallableSpec[Any, Any]]] = {spec.name: spec for spec in _SPECS}
