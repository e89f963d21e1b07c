"""A world to backfill for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storemirror.model.load import load_model
from tests.integration.backfill.world import BackfillWorld
from tests.integration.check.world import running_world
from tests.support.databases import Databases


@pytest.fixture
async def filled(new_database: Databases, tmp_path: Path) -> AsyncIterator[BackfillWorld]:
    """Three databases with the built-in entities, empty."""
    async with running_world(load_model(), new_database) as world:
        yield BackfillWorld(world, tmp_path)
