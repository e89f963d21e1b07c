"""A receiver a test, on the PostgreSQL bus."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.apply.pipe import Pipe, open_pipe
from tests.integration.receiver.hosted import Hosted, hosted
from tests.support.databases import Databases


@pytest.fixture
async def pipe(new_database: Databases) -> AsyncIterator[Pipe]:
    async with open_pipe(new_database, bus="postgres") as opened:
        yield opened


@pytest.fixture
async def receiver(pipe: Pipe) -> AsyncIterator[Hosted]:
    async with hosted(pipe) as opened:
        yield opened
