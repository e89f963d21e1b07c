"""Who was removed reads no more, whatever somebody made of the conversation's document (#7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from storemirror.event.value import encode_fields
from storemirror.gateway.port import ReadMode
from storemirror.source.port import Write
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import UNHURRIED, CallFailed, GatewayWorld, running_gateway

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
OPEN, SEND = "sqlGatewayDmOpenConversation", "sqlGatewayDmSend"
INBOX, LIST = "sqlGatewayDmListConversations", "sqlGatewayDmListMessages"
ROOM, PATH = "c", "conversations/c"


@pytest.fixture(params=[ReadMode.SQL, ReadMode.SQL_ONLY], ids=str)
async def world(
    request: pytest.FixtureRequest, new_database: NewDatabase, issuer: JwkIssuer
) -> AsyncIterator[GatewayWorld]:
    """Ann shares a conversation with Ben and Eve, and another with Ben alone."""
    settings = {**UNHURRIED, "STOREMIRROR_GATEWAY_READ_MODE": request.param.value}
    async with running_gateway(new_database, issuer, settings) as opened:
        await opened.call("ann", OPEN, conversationId=ROOM, participantIds=["ben", "eve"])
        await opened.call("ann", OPEN, conversationId="d", participantIds=["ben"])
        await opened.settled()
        yield opened


async def change(world: GatewayWorld, **fields: object) -> Mapping[str, int]:
    """Change the conversation's document past the gateway, and let the writer see it."""
    store = await world.store()
    document = (await store.get(PATH)).document
    assert document is not None
    await store.commit([Write(path=PATH, fields={**document.fields, **encode_fields(fields)})])
    return await world.settled()


async def inbox(world: GatewayWorld, uid: str) -> tuple[list[str], str]:
    """Give the conversations that a user sees, and who served them."""
    found = await world.call(uid, INBOX)
    return [item["conversationId"] for item in found["items"]], found["source"]


def fallback_of(world: GatewayWorld) -> str:
    """Tell who serves where SQL is not to be trusted: Firestore, if it may."""
    mode = world.environment["STOREMIRROR_GATEWAY_READ_MODE"]
    return "firestore" if mode == ReadMode.SQL.value else "sql"


async def test_who_was_removed_from_an_unfit_conversation_reads_no_more(
    world: GatewayWorld,
) -> None:
    """A member made its title a number, so that her own removal could not be mirrored."""
    counted = await change(world, title=1)
    assert counted["dead_lettered"] == 1
    await change(world, participantIds=["ann", "ben"])
    await world.call("ann", SEND, conversationId=ROOM, messageId="m1", body="she is out")
    await world.settled()
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await world.call("eve", LIST, conversationId=ROOM)
    assert await inbox(world, "eve") == ([], fallback_of(world))
    # Neither source shows an unfit document; the others' inboxes have what is fit.
    assert await inbox(world, "ben") == (["d"], fallback_of(world))


async def test_a_conversation_that_is_mended_is_served_from_sql_again(
    world: GatewayWorld,
) -> None:
    """By the next event that fits, without anybody's doing."""
    await change(world, title=1)
    assert await inbox(world, "ben") == (["d"], fallback_of(world))
    await change(world, title="mended", participantIds=["ann", "ben"])
    assert await inbox(world, "ben") == (["d", "c"], "sql")
    found = await world.call("ben", LIST, conversationId=ROOM)
    assert found["source"] == "sql"
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await world.call("eve", LIST, conversationId=ROOM)
