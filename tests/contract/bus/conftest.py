"""A provisioned bus of every kind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from storemirror.bus.port import Consumer, Publisher
from storemirror.sql.postgres.connection import BUS, Database
from tests.contract.bus.servicebus_under_test import ServiceBusUnderTest
from tests.contract.bus.under_test import (
    TOPIC_SPEC,
    BusUnderTest,
    MemoryUnderTest,
    PostgresUnderTest,
)
from tests.standins.servicebus import running_standin
from tests.support.databases import Databases
from tests.support.templates import new_bus_dsn


@pytest.fixture
async def postgres_bus(
    new_database: Databases,
) -> AsyncIterator[PostgresUnderTest]:
    """Give a PostgreSQL bus in a database of its own."""
    dsn = await new_bus_dsn(new_database, TOPIC_SPEC)
    database = Database(dsn, BUS, max_size=12)
    await database.open()
    bus = PostgresUnderTest(dsn, database)
    yield bus
    await bus.aclose()
    await database.aclose()


@pytest.fixture
async def memory_bus() -> MemoryUnderTest:
    """Give a memory bus."""
    bus = MemoryUnderTest()
    await bus.admin.provision(TOPIC_SPEC)
    return bus


@pytest.fixture
async def servicebus_bus() -> AsyncIterator[ServiceBusUnderTest]:
    """Give a Service Bus that is a stand-in on the wire."""
    with running_standin() as standin:
        bus = ServiceBusUnderTest(
            standin.connection_string(), standin=standin, management=standin.management_endpoint
        )
        await bus.admin.provision(TOPIC_SPEC)
        yield bus
        await bus.aclose()


@pytest.fixture
async def azure_bus() -> AsyncIterator[ServiceBusUnderTest]:
    """Give a real Service Bus, with a topic of its own for the test."""
    connection_string = os.environ.get("STOREMIRROR_TEST_SERVICEBUS")
    if connection_string is None:
        pytest.skip("needs real Azure: set STOREMIRROR_TEST_SERVICEBUS to a connection string")
    bus = ServiceBusUnderTest(connection_string)
    await bus.admin.provision(bus.topic_spec)
    yield bus
    await bus.delete_topic()
    await bus.aclose()


TELLING = ("memory", pytest.param("postgres", marks=pytest.mark.postgres))
EVERY = (*TELLING, "servicebus", pytest.param("azure", marks=pytest.mark.azure))


@pytest.fixture(params=EVERY)
def bus(request: pytest.FixtureRequest) -> BusUnderTest:
    """Give every kind of bus in turn."""
    made: BusUnderTest = request.getfixturevalue(f"{request.param}_bus")
    return made


@pytest.fixture(params=TELLING)
def telling_bus(request: pytest.FixtureRequest) -> BusUnderTest:
    """Give the buses that tell all there is to tell: duplicates, locks, completions."""
    made: BusUnderTest = request.getfixturevalue(f"{request.param}_bus")
    return made


@pytest.fixture
def publisher(bus: BusUnderTest) -> Publisher:
    """Give a publisher on the bus."""
    return bus.publisher()


@pytest.fixture
def consumer(bus: BusUnderTest) -> Consumer:
    """Give a consumer of the writer's subscription."""
    return bus.consumer()
