"""A world a test, its mirror in each dialect on the servers that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from storemirror.model.load import load_model
from tests.contract.sql.side_door import Installed, Server
from tests.faults.processes.world import Mirrored, World, running_world


@pytest.fixture
async def installed(server: Server) -> Installed:
    """A mirror in which nothing has happened yet."""
    return await server.installed(load_model())


@pytest.fixture
async def world(
    installed: Installed, new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[World]:
    """An app and a bus in two databases, and the mirror."""
    documents, bus = [await new_database() for _ in range(2)]
    mirrored = cast("Mirrored", installed)
    async with running_world(
        documents=documents, bus=bus, mirror=mirrored, folder=tmp_path
    ) as opened:
        yield opened
