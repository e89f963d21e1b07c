"""A pipe a test, over each bus."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.apply.pipe import Pipe, open_pipe
from tests.support.databases import Databases

#: Over Service Bus each test takes a second or two more: a module says so where it is worth it.
BUSES = ("memory", "postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over every bus that its module names."""
    if "pipe" in metafunc.fixturenames:
        buses = getattr(metafunc.module, "BUSES", BUSES)
        metafunc.parametrize("pipe", buses, indirect=True)


@pytest.fixture
async def pipe(request: pytest.FixtureRequest, new_database: Databases) -> AsyncIterator[Pipe]:
    async with open_pipe(new_database, bus=request.param) as opened:
        yield opened
