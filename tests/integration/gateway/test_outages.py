"""SQL down, slow and back; Firestore down; both down: what callers are told, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storemirror.errors import TransientError
from storemirror.gateway.port import ReadMode
from storemirror.sql.postgres.server import EmbeddedServer
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import CallFailed, GatewayWorld, running_gateway
from tests.support.proxy import Proxy, proxy_to

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
LIST = "sqlGatewayDmListConversations"
MESSAGES = "sqlGatewayDmListMessages"
SEND = "sqlGatewayDmSend"
ROOM = "c1"
#: What a call may take at most, as the worlds below are set up, with room for a busy machine.
DEADLINE_S = 30.0
#: What says that a read was answered.
SERVED = ("sql", "firestore")
#: What a client is told to call again after.
TOLD = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


class Sides:
    """A gateway with a proxy before each database."""

    def __init__(self, world: GatewayWorld, documents: Proxy, sql: Proxy) -> None:
        self.world = world
        self.documents = documents
        self.sql = sql

    async def are_back(self) -> None:
        """Let both databases answer again, until the gateway has found that out."""
        for proxy in (self.documents, self.sql):
            proxy.refuse(refuses=False)
            proxy.silence(is_silent=False)
        store, mirror = await self.world.store(), await self.world.parts.mirror()
        async with asyncio.timeout(DEADLINE_S):
            # Each connection that was cut is found out by whoever draws it from the pool.
            for call in (lambda: store.get(f"conversations/{ROOM}"), mirror.probe):
                while not await _works(call):
                    pass
            while await _status(self.world, MESSAGES, conversationId=ROOM) not in SERVED:
                pass

    async def is_lost_nowhere(self) -> bool:
        """Tell whether both sides are equal once the writer has applied what waits."""
        await self.world.settled()
        return await self.world.is_clean()


@pytest.fixture
async def proxies(postgres: EmbeddedServer) -> AsyncIterator[tuple[Proxy, Proxy]]:
    """One before the documents, one before the mirror."""
    dsn = postgres.dsn("postgres")
    async with proxy_to(dsn) as documents, proxy_to(dsn) as sql:
        yield documents, sql


@pytest.fixture(params=[ReadMode.SQL, ReadMode.SQL_ONLY], ids=str)
def mode(request: pytest.FixtureRequest) -> ReadMode:
    """Both ways in which SQL serves."""
    found: ReadMode = request.param
    return found


@pytest.fixture
async def sides(
    new_database: NewDatabase, issuer: JwkIssuer, proxies: tuple[Proxy, Proxy], mode: ReadMode
) -> AsyncIterator[Sides]:
    """Two users and three messages on both sides."""
    documents, sql = proxies
    settings = {
        "STOREMIRROR_GATEWAY_READ_MODE": mode.value,
        "STOREMIRROR_GATEWAY_SQL_TIMEOUT_S": "0.5",
        "STOREMIRROR_GATEWAY_MIRROR_TIMEOUT_S": "0.5",
        "STOREMIRROR_GATEWAY_FIRESTORE_TIMEOUT_S": "1",
        "STOREMIRROR_GATEWAY_READ_DEADLINE_S": "10",
        "STOREMIRROR_GATEWAY_WRITE_DEADLINE_S": "5",
    }
    async with running_gateway(
        new_database, issuer, settings, documents_proxy=documents, sql_proxy=sql
    ) as world:
        opening = {"conversationId": ROOM, "participantIds": ["ben"]}
        await world.call("ann", "sqlGatewayDmOpenConversation", **opening)
        for number in range(3):
            await world.call("ann", SEND, conversationId=ROOM, messageId=f"m{number}", body="hi")
        # A machine that is busy may have mirrored none of it in time.
        await world.settled()
        yield Sides(world, documents, sql)


async def _status(world: GatewayWorld, name: str, **data: object) -> str:
    """Call as Ben, who is told within the deadline; gives the status, or which side served."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            found = await world.call("ben", name, **data)
    except CallFailed as failed:
        return failed.status
    return str(found.get("source", found.get("mirrored")))


async def _works(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except TransientError:
        return False
    return True


async def test_sql_down_costs_reads_nothing_where_firestore_stands_behind(
    sides: Sides, mode: ReadMode
) -> None:
    """And where nobody does, an error is an error; back again, it serves again."""
    sides.sql.refuse(refuses=True)
    sides.sql.cut()
    expected = ("firestore",) if mode is ReadMode.SQL else TOLD
    assert await _status(sides.world, LIST) in expected
    assert await _status(sides.world, MESSAGES, conversationId=ROOM) in expected
    await sides.are_back()
    assert await _status(sides.world, MESSAGES, conversationId=ROOM) == "sql"


@pytest.mark.parametrize("mode", [ReadMode.SQL], ids=str)
async def test_a_write_while_sql_is_down_succeeds_and_comes_later(sides: Sides) -> None:
    """`mirrored` is false, the caller's next page shows it all the same, and nothing is lost."""
    sides.sql.refuse(refuses=True)
    sides.sql.cut()
    sent = await sides.world.call("ann", SEND, conversationId=ROOM, messageId="m9", body="later")
    assert sent["mirrored"] is False
    page = await sides.world.call("ann", MESSAGES, conversationId=ROOM, after=sent["token"])
    assert page["items"][0]["messageId"] == "m9"
    await sides.are_back()
    assert await sides.is_lost_nowhere()
    page = await sides.world.call("ann", MESSAGES, conversationId=ROOM, after=sent["token"])
    assert (page["source"], page["items"][0]["messageId"]) == ("sql", "m9")


async def test_sql_that_is_slow_is_not_waited_for(sides: Sides, mode: ReadMode) -> None:
    """A silent connection says nothing: the deadline does."""
    sides.sql.silence(is_silent=True)
    expected = "firestore" if mode is ReadMode.SQL else "DEADLINE_EXCEEDED"
    assert await _status(sides.world, MESSAGES, conversationId=ROOM) == expected
    sent = await sides.world.call("ann", SEND, conversationId=ROOM, messageId="m9", body="slow")
    assert sent["mirrored"] is False
    await sides.are_back()
    assert await sides.is_lost_nowhere()


async def test_sql_serves_reads_while_firestore_is_down_and_writes_touch_neither(
    sides: Sides,
) -> None:
    """A message that Firestore did not take must be in no inbox."""
    sides.documents.refuse(refuses=True)
    sides.documents.cut()
    assert await _status(sides.world, MESSAGES, conversationId=ROOM) == "sql"
    assert await _status(sides.world, SEND, conversationId=ROOM, body="never") in TOLD
    page = await sides.world.call("ben", MESSAGES, conversationId=ROOM)
    assert [item["messageId"] for item in page["items"]] == ["m2", "m1", "m0"]
    await sides.are_back()
    assert await sides.is_lost_nowhere()


async def test_with_both_down_the_caller_is_told_within_the_deadline(sides: Sides) -> None:
    """An app shows what it has, and calls again."""
    for proxy in (sides.documents, sides.sql):
        proxy.refuse(refuses=True)
        proxy.cut()
    found = await _status(sides.world, MESSAGES, conversationId=ROOM)
    assert found in TOLD
    await sides.are_back()
    assert await sides.is_lost_nowhere()
