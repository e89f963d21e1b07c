"""Who opens a conversation reads nothing that was written before it was opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storemirror.clock import datetime_from_us
from storemirror.event.value import encode_fields
from storemirror.gateway.port import ReadMode
from storemirror.source.port import Write
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import CallFailed, GatewayWorld, running_gateway

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
OPEN = "sqlGatewayDmOpenConversation"
ROOM = "ann_ben"
PATH = f"conversations/{ROOM}"


@pytest.fixture(params=[ReadMode.FIRESTORE, ReadMode.SQL_ONLY])
async def world(
    request: pytest.FixtureRequest, new_database: NewDatabase, issuer: JwkIssuer
) -> AsyncIterator[GatewayWorld]:
    """A gateway whose reads one side serves."""
    settings = {"STOREMIRROR_GATEWAY_READ_MODE": request.param.value}
    async with running_gateway(new_database, issuer, settings) as opened:
        yield opened


async def refused_to_eve(world: GatewayWorld) -> bool:
    """Tell whether neither may Eve open the conversation, nor read what is in it."""
    statuses = []
    for name, data in (
        (OPEN, {"conversationId": ROOM, "participantIds": ["max"]}),
        ("sqlGatewayDmListMessages", {"conversationId": ROOM}),
    ):
        with pytest.raises(CallFailed) as refused:
            await world.call("eve", name, **data)
        statuses.append(refused.value.status)
    return statuses == ["ALREADY_EXISTS", "NOT_FOUND"]


async def test_the_id_of_a_deleted_conversation_is_not_given_to_others(
    world: GatewayWorld,
) -> None:
    """Firestore leaves the messages of a deleted document where they are."""
    await world.call("ann", OPEN, conversationId=ROOM, participantIds=["ben"])
    secret = {"conversationId": ROOM, "messageId": "m1", "body": "ours"}
    await world.call("ann", "sqlGatewayDmSend", **secret)
    await (await world.store()).commit([Write(path=PATH, fields=None)])
    await world.settled()
    assert await refused_to_eve(world)


@pytest.mark.parametrize("fields", [{"senderId": "ann", "sentAt": 1_000_000}, {"sentAt": None}])
async def test_nor_is_one_under_which_there_are_messages_alone(
    world: GatewayWorld, fields: dict[str, object]
) -> None:
    """An app may keep no documents for its conversations; and what is unfit today may be mended."""
    if fields["sentAt"] is not None:
        fields = fields | {"sentAt": datetime_from_us(1_000_000)}
    message = Write(path=f"{PATH}/messages/m1", fields=encode_fields(fields))
    await (await world.store()).commit([message])
    await world.settled()
    assert await refused_to_eve(world)


async def test_once_its_messages_are_gone_an_id_is_free(world: GatewayWorld) -> None:
    """Who deletes all of a conversation can have its people begin anew."""
    await world.call("ann", OPEN, conversationId=ROOM, participantIds=["ben"])
    await world.call("ann", "sqlGatewayDmSend", conversationId=ROOM, messageId="m1", body="hi")
    gone = [Write(path=path, fields=None) for path in (PATH, f"{PATH}/messages/m1")]
    await (await world.store()).commit(gone)
    await world.settled()
    again = await world.call("ann", OPEN, conversationId=ROOM, participantIds=["ben"])
    assert again["wasCreated"] is True
    page = await world.call("ben", "sqlGatewayDmListMessages", conversationId=ROOM)
    assert page["items"] == []
