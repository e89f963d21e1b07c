"""The gateway's reads while the bus is Service Bus, with no more rights there than it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from storemirror.bus.port import Message
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.gateway.world import another_gateway, running_gateway
from tests.standins.servicebus import running_standin

pytestmark = pytest.mark.postgres

WAIT_S = 60.0
LIST = "sqlGatewayDmListConversations"


async def test_reads_are_served_from_sql_with_listen_alone(
    new_database: Callable[[], Awaitable[str]], issuer: JwkIssuer
) -> None:
    """How far SQL is behind takes no owner of the namespace (issue 7); the age is as on any bus."""
    with running_standin() as standin:
        settings = {
            "STOREMIRROR_BUS_KIND": "servicebus",
            "SERVICEBUS_CONNECTION_STRING": standin.connection_string(),
            "SERVICEBUS_EMULATOR_MANAGEMENT": standin.management_endpoint,
            "STOREMIRROR_GATEWAY_READ_MODE": "sql",
            "STOREMIRROR_GATEWAY_SQL_TIMEOUT_S": "30",
        }
        listener = {"SERVICEBUS_CONNECTION_STRING": standin.connection_string("Listener")}
        async with (
            running_gateway(new_database, issuer, settings) as owner,
            another_gateway(owner, listener) as gateway,
        ):
            found = await gateway.call("ann", LIST)
            async with asyncio.timeout(WAIT_S):
                # The way to the bus is opened by the first look, which takes its time.
                while found["source"] != "sql":
                    found = await gateway.call("ann", LIST)
            assert found["asOf"] is not None
            await (await owner.parts.publisher()).publish(
                [Message(message_id="e1", body=b"{}", content_type="application/json")]
            )
            admin = await gateway.parts.bus_admin()
            assert await admin.oldest_age_s(gateway.parts.subscription) is not None
