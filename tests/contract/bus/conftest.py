"""A provisioned bus of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storemirror.bus.port import Consumer, Publisher
from storemirror.sql.postgres.connection import BUS, Database
from tests.contract.bus.under_test import (
    TOPIC_SPEC,
    BusUnderTest,
    MemoryUnderTest,
    PostgresUnderTest,
)


@pytest.fixture
async def postgres_bus(
    new_database: Callable[[], Awaitable[str]],
) -> AsyncIterator[PostgresUnderTest]:
    """Give a PostgreSQL bus in a database of its own."""
    dsn = await new_database()
    database = Database(dsn, BUS, max_size=12)
    bus = PostgresUnderTest(dsn, database)
    await bus.admin.provision(TOPIC_SPEC)
    yield bus
    await bus.aclose()
    await database.aclose()


@pytest.fixture
async def memory_bus() -> MemoryUnderTest:
    """Give a memory bus."""
    bus = MemoryUnderTest()
    await bus.admin.provision(TOPIC_SPEC)
    return bus


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def bus(request: pytest.FixtureRequest) -> BusUnderTest:
    """Give every kind of bus in turn."""
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
