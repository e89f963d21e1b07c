"""Writes at the same moment, and callers that go away: one outcome, the same on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import (
    UNHURRIED,
    CallFailed,
    GatewayWorld,
    running_gateway,
)

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
OPEN = "sqlGatewayDmOpenConversation"
SEND = "sqlGatewayDmSend"
MESSAGES = "sqlGatewayDmListMessages"
RELATIONSHIP = "sqlGatewayFollowGetRelationship"
ROOM = "c1"
#: How often each race is run.
ROUNDS = 8


@pytest.fixture
async def world(new_database: NewDatabase, issuer: JwkIssuer) -> AsyncIterator[GatewayWorld]:
    """Ann and Ben share a conversation; SQL alone serves."""
    settings = {**UNHURRIED, "STOREMIRROR_GATEWAY_READ_MODE": "sql-only"}
    async with running_gateway(new_database, issuer, settings) as opened:
        await opened.call("ann", OPEN, conversationId=ROOM, participantIds=["ben"])
        yield opened


async def race(
    world: GatewayWorld, *calls: tuple[str, str, Mapping[str, object]]
) -> list[dict[str, Any] | str]:
    """Call at the same moment; gives each one's answer, or its status."""

    async def told(uid: str, name: str, data: Mapping[str, object]) -> dict[str, Any] | str:
        try:
            answer: dict[str, Any] = await world.call(uid, name, **data)
        except CallFailed as failed:
            return failed.status
        return answer

    return await asyncio.gather(*(told(*call) for call in calls))


async def test_one_id_is_one_message_whoever_sends_first(world: GatewayWorld) -> None:
    """The same call twice is one message for both; another sender's is refused."""
    for number in range(ROUNDS):
        sent = {"conversationId": ROOM, "messageId": f"m{number}", "body": "hi"}
        told = await race(world, ("ann", SEND, sent), ("ben", SEND, sent), ("ann", SEND, sent))
        answers = [found for found in told if isinstance(found, dict)]
        assert len({answer["token"] for answer in answers}) == 1
        assert len({answer["message"]["senderId"] for answer in answers}) == 1
        refused = [found for found in told if isinstance(found, str)]
        assert refused in (["ALREADY_EXISTS"], ["ALREADY_EXISTS"] * 2)
    page = await world.call("ben", MESSAGES, conversationId=ROOM)
    assert len(page["items"]) == ROUNDS
    await world.settled()
    assert await world.is_clean()


async def test_one_id_is_one_conversation_whoever_opens_first(world: GatewayWorld) -> None:
    """With the same people both have opened it, one of them anew; with others one is refused."""
    for number in range(ROUNDS):
        name = f"same{number}"
        told = await race(
            world,
            ("ann", OPEN, {"conversationId": name, "participantIds": ["ben"]}),
            ("ben", OPEN, {"conversationId": name, "participantIds": ["ann"]}),
        )
        made = [found["wasCreated"] for found in told if isinstance(found, dict)]
        assert sorted(made) == [False, True]
        name = f"other{number}"
        told = await race(
            world,
            ("ann", OPEN, {"conversationId": name, "participantIds": ["ben"]}),
            ("cid", OPEN, {"conversationId": name, "participantIds": ["ben"]}),
        )
        assert sorted(found if isinstance(found, str) else "" for found in told) == [
            "",
            "ALREADY_EXISTS",
        ]
    await world.settled()
    assert await world.is_clean()


async def test_an_edit_does_not_bring_back_what_is_deleted(world: GatewayWorld) -> None:
    """Whichever comes first, the message is gone at the end, in SQL too."""
    for number in range(ROUNDS):
        place = {"conversationId": ROOM, "messageId": f"m{number}"}
        await world.call("ann", SEND, **place, body="hi")
        edited, deleted = await race(
            world,
            ("ann", "sqlGatewayDmEdit", {**place, "body": "new"}),
            ("ann", "sqlGatewayDmDelete", place),
        )
        assert edited == "NOT_FOUND" or isinstance(edited, dict)
        assert isinstance(deleted, dict)
        assert deleted["message"] is None
    assert (await world.call("ben", MESSAGES, conversationId=ROOM))["items"] == []
    await world.settled()
    assert await world.is_clean()


async def test_edges_that_come_and_go_at_once_end_alike(world: GatewayWorld) -> None:
    """Follows and blocks by a client that shows a switch, and a thumb that is quick."""
    names = ("FollowEdgeUpsert", "FollowEdgeDelete", "BlockUpsert", "BlockDelete")
    for _ in range(ROUNDS):
        told = await race(
            world, *(("ann", f"sqlGateway{name}", {"target": "ben"}) for name in names * 2)
        )
        assert all(isinstance(found, dict) for found in told), told
    await world.settled()
    assert await world.is_clean()


async def test_what_a_caller_that_is_gone_has_begun_is_done_or_not(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called off while SQL is asked: the document is written, and the event path brings it."""
    mirror = await world.parts.mirror()
    arrived = asyncio.Event()

    async def silent(*_: object, **__: object) -> None:
        arrived.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(type(mirror), "apply", silent)
        sent = {"conversationId": ROOM, "messageId": "m1", "body": "hi"}
        calling = asyncio.create_task(world.call("ann", SEND, **sent))
        await arrived.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert world.gateway.calls.counts.under_way_count == 0
    await world.settled()
    again = await world.call("ann", SEND, **sent)
    assert again["mirrored"] is True
    page = await world.call("ben", MESSAGES, conversationId=ROOM, after=again["token"])
    assert [item["messageId"] for item in page["items"]] == ["m1"]
    assert await world.is_clean()
