"""An app on Google's emulator, and the mirror of its documents."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.apply.pipe import open_pipe
from tests.integration.firestore.app import App, opened_app
from tests.support.databases import Databases


@pytest.fixture(params=["memory", "postgres"])
async def app(
    request: pytest.FixtureRequest,
    emulator_host: str,
    firestore_project: str,
    new_database: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[App]:
    """An app with nothing written yet, over each bus."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
    async with (
        open_pipe(new_database, bus=request.param) as pipe,
        opened_app(emulator_host, firestore_project, pipe) as opened,
    ):
        yield opened
