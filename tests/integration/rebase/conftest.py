"""A world to restore and to rebase for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storemirror.model.load import load_model
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import running_world
from tests.integration.rebase.world import RebaseWorld
from tests.support.databases import Databases


@pytest.fixture
async def restored(new_database: Databases, tmp_path: Path) -> AsyncIterator[RebaseWorld]:
    """A mirror whose documents went back to an earlier state, as a restore lets them."""
    async with running_world(load_model(), new_database) as world:
        filled = BackfillWorld(world, tmp_path)
        restored = RebaseWorld(filled)
        await restored.live_and_restore()
        yield restored
