"""A world to restore and to rebase for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storemirror.model.load import load_model
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import running_world
from tests.integration.rebase.world import RebaseWorld


@pytest.fixture
async def restored(
    new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[RebaseWorld]:
    """A mirror whose documents went back to an earlier state, as a restore lets them."""
    dsns: list[str] = []

    async def noted() -> str:
        dsns.append(await new_database())
        return dsns[-1]

    async with running_world(load_model(), noted) as world:
        filled = BackfillWorld(world, tmp_path, documents_dsn=dsns[0], bus_dsn=dsns[1])
        restored = RebaseWorld(filled)
        await restored.live_and_restore()
        yield restored
