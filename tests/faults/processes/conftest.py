"""A world a test, on the server that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.processes.world import World, running_world


@pytest.fixture
async def world(new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> AsyncIterator[World]:
    """An app, a bus and a mirror in three databases."""
    documents, bus, mirror = [await new_database() for _ in range(3)]
    async with running_world(
        documents=documents, bus=bus, mirror=mirror, folder=tmp_path
    ) as opened:
        yield opened
