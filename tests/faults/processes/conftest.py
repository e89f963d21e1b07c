"""A world a test, its mirror in each dialect on the servers that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from tests.contract.sql.side_door import Installed
from tests.faults.processes.world import Mirrored, World, running_world


@pytest.fixture
async def world(
    sql: Installed, new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[World]:
    """An app and a bus in two databases, and the mirror."""
    documents, bus = [await new_database() for _ in range(2)]
    mirrored = cast("Mirrored", sql)
    async with running_world(
        documents=documents, bus=bus, mirror=mirrored, folder=tmp_path
    ) as opened:
        yield opened
