"""The folder that would be deployed, once a test process; databases of its own for each test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from storemirror.sql.postgres.server import EmbeddedServer
from tests.integration.functions.deployment import Deployment
from tests.integration.functions.framework import built_folder


@pytest.fixture(scope="session")
def functions_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_folder(tmp_path_factory.mktemp("functions") / "deployed")


@pytest.fixture
async def deployment(
    functions_folder: Path,
    postgres: EmbeddedServer,
    new_database: Callable[[], Awaitable[str]],
) -> Deployment:
    """Databases that are ready; asks for the folder first, so that a skip costs nothing."""
    made = Deployment(
        bus_dsn=await new_database(),
        sql_dsn=await new_database(),
        admin_dsn=postgres.dsn("postgres"),
    )
    await made.provision()
    return made
