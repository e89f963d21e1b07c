"""A pipe a test, over each bus."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.apply.pipe import Pipe, open_pipe
from tests.support.databases import Databases


@pytest.fixture(params=["memory", "postgres", "servicebus"])
async def pipe(request: pytest.FixtureRequest, new_database: Databases) -> AsyncIterator[Pipe]:
    async with open_pipe(new_database, bus=request.param) as opened:
        yield opened
