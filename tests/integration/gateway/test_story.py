"""The whole story of two users, in every read mode, on real databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from storemirror.gateway.port import ReadMode
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import CallFailed, GatewayWorld, running_gateway

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
LIST = "sqlGatewayDmListConversations"
MESSAGES = "sqlGatewayDmListMessages"
SEND = "sqlGatewayDmSend"
RELATIONSHIP = "sqlGatewayFollowGetRelationship"
SERVED = {
    ReadMode.FIRESTORE: "firestore",
    ReadMode.SHADOW: "firestore",
    ReadMode.SQL: "sql",
    ReadMode.SQL_ONLY: "sql",
}


@pytest.fixture(params=list(ReadMode), ids=str)
def mode(request: pytest.FixtureRequest) -> ReadMode:
    """Every way to serve reads."""
    found: ReadMode = request.param
    return found


@pytest.fixture
async def world(
    new_database: NewDatabase, issuer: JwkIssuer, mode: ReadMode
) -> AsyncIterator[GatewayWorld]:
    """A gateway whose reads are all of one mode."""
    settings = {"STOREMIRROR_GATEWAY_READ_MODE": mode.value}
    async with running_gateway(new_database, issuer, settings) as opened:
        yield opened


async def test_two_users_live_their_story(world: GatewayWorld, mode: ReadMode) -> None:
    """Open, send, list, page, edit, delete, follow, block; the answers say who served (issue 7)."""
    opened = await world.call(
        "ann", "sqlGatewayDmOpenConversation", participantIds=["ben"], title="Us"
    )
    room = opened["conversationId"]
    assert (opened["mirrored"], opened["wasCreated"]) == (True, True)
    sent = [
        await world.call(who, SEND, conversationId=room, messageId=f"m{n}", body=f"text {n}")
        for n, who in enumerate(["ann", "ben", "ann", "ben"])
    ]
    assert all(one["mirrored"] for one in sent)

    inbox = await world.call("ann", LIST, after=sent[-1]["token"])
    assert inbox["source"] == SERVED[mode]
    [line] = inbox["items"]
    assert (line["conversationId"], line["title"], line["unreadCount"]) == (room, "Us", 2)
    assert line["lastMessage"]["preview"] == "text 3"
    assert [other["userId"] for other in line["others"]] == ["ben"]

    newest = await world.call("ann", MESSAGES, conversationId=room, pageSize=3)
    assert [item["messageId"] for item in newest["items"]] == ["m3", "m2", "m1"]
    assert newest["source"] == SERVED[mode]
    oldest = await world.call("ann", MESSAGES, conversationId=room, cursor=newest["older"])
    assert [item["messageId"] for item in oldest["items"]] == ["m0"]
    assert oldest["older"] is None
    back = await world.call("ann", MESSAGES, conversationId=room, cursor=oldest["newer"])
    assert [item["messageId"] for item in back["items"]] == ["m3", "m2", "m1"]

    await world.call("ben", "sqlGatewayDmEdit", conversationId=room, messageId="m3", body="new")
    gone = await world.call("ann", "sqlGatewayDmDelete", conversationId=room, messageId="m2")
    assert gone["message"] is None
    read = await world.call("ann", "sqlGatewayDmMarkRead", conversationId=room)
    [line] = (await world.call("ann", LIST, after=read["token"]))["items"]
    assert (line["unreadCount"], line["lastMessage"]["preview"]) == (0, "new")
    assert line["lastReadAt"] == read["lastReadAt"]

    await _follow_and_block(world)
    # What the calls mirrored is what the triggers' events say.
    counters = await world.settled()
    assert (counters["applied"], counters["repaired"]) == (0, 0)
    assert counters["duplicate"] > 0
    assert await world.is_clean()


async def _follow_and_block(world: GatewayWorld) -> None:
    edge = await world.call("ann", "sqlGatewayFollowEdgeUpsert", target="ben")
    assert (edge["exists"], edge["mirrored"]) == (True, True)
    blocked = await world.call("ben", "sqlGatewayBlockUpsert", target="ann")
    seen = await world.call("ben", RELATIONSHIP, target="ann", after=blocked["token"])
    assert _edges(seen) == (False, True, True, False)
    for name, data in (
        (SEND, {"conversationId": "any", "body": "hi"}),
        ("sqlGatewayDmOpenConversation", {"participantIds": ["ben"]}),
    ):
        with pytest.raises(CallFailed) as refused:
            await world.call("ann", name, **data)
        assert refused.value.status in ("NOT_FOUND", "PERMISSION_DENIED")
    gone = await world.call("ann", "sqlGatewayFollowEdgeDelete", target="ben")
    assert _edges(await world.call("ann", RELATIONSHIP, target="ben", after=gone["token"])) == (
        (False, False, False, True)
    )
    await world.call("ben", "sqlGatewayBlockDelete", target="ann")


def _edges(found: Any) -> tuple[bool, ...]:
    return tuple(found[name] for name in ("outgoing", "incoming", "outgoingBlock", "incomingBlock"))
