"""A world to backfill for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storemirror.model.load import load_model
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import running_world


@pytest.fixture
async def filled(
    new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[BackfillWorld]:
    """Three databases with the built-in entities, empty."""
    dsns: list[str] = []

    async def noted() -> str:
        dsns.append(await new_database())
        return dsns[-1]

    async with running_world(load_model(), noted) as world:
        yield BackfillWorld(world, tmp_path, documents_dsn=dsns[0], bus_dsn=dsns[1])
