"""A gateway whose SQL mirrors another Firestore: a copied setting must show nobody's messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import (
    CallFailed,
    GatewayWorld,
    another_gateway,
    running_gateway,
)

pytestmark = pytest.mark.postgres

NewDatabase = Callable[[], Awaitable[str]]
LIST = "sqlGatewayDmListConversations"
SEND = "sqlGatewayDmSend"
OPEN = "sqlGatewayDmOpenConversation"
ROOM = "c1"


@pytest.fixture
async def production(new_database: NewDatabase, issuer: JwkIssuer) -> AsyncIterator[GatewayWorld]:
    """A gateway with its own mirror, where Ann has a message."""
    settings = {"STOREMIRROR_GATEWAY_READ_MODE": "sql-only"}
    async with running_gateway(new_database, issuer, settings) as world:
        await world.call("ann", OPEN, conversationId=ROOM, participantIds=["ben"])
        sent = await world.call("ann", SEND, conversationId=ROOM, messageId="m1", body="secret")
        assert sent["mirrored"]
        assert (await world.call("ann", LIST))["source"] == "sql"
        yield world


async def staging(new_database: NewDatabase, read_mode: str) -> dict[str, str]:
    """Another project's settings, but for the address of SQL."""
    return {
        "STOREMIRROR_FIRESTORE_PROJECT": "demo-staging",
        "STOREMIRROR_DOCUMENTS_DSN": await new_database(),
        "STOREMIRROR_GATEWAY_READ_MODE": read_mode,
    }


async def test_a_read_of_another_projects_mirror_is_firestores(
    production: GatewayWorld, new_database: NewDatabase
) -> None:
    """Whoever makes staging's tokens may be any user of production."""
    settings = await staging(new_database, "sql")
    async with another_gateway(production, settings) as world:
        page = await world.call("ann", LIST)
        assert (page["source"], page["items"]) == ("firestore", [])
        assert world.gateway.status()["fallbacks"] == {"schema-unverified": 1}


async def test_nothing_is_read_where_sql_alone_may_serve(
    production: GatewayWorld, new_database: NewDatabase
) -> None:
    """An error, and no other project's inbox."""
    settings = await staging(new_database, "sql-only")
    async with another_gateway(production, settings) as world:
        with pytest.raises(CallFailed) as refused:
            await world.call("ann", LIST)
        assert refused.value.status == "UNAVAILABLE"


async def test_a_write_does_not_reach_another_projects_mirror(
    production: GatewayWorld, new_database: NewDatabase
) -> None:
    """It is written to its own Firestore, and to nothing else."""
    settings = await staging(new_database, "firestore")
    async with another_gateway(production, settings) as world:
        opened = await world.call("ann", OPEN, conversationId="c2", participantIds=["ben"])
        assert not opened["mirrored"]
    page = await production.call("ann", LIST)
    assert [item["conversationId"] for item in page["items"]] == [ROOM]
