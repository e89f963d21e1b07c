"""What every test of the SQL stage's contract suite begins with."""

from __future__ import annotations

import pytest

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed, Server

HOUR_US = 3_600_000_000


@pytest.fixture(scope="session")
def model() -> Model:
    """The built-in entities."""
    return load_model()


@pytest.fixture
def base_us() -> int:
    """An hour ago: events may lie after it, and not in the future."""
    return SystemClock().now_us() - HOUR_US


@pytest.fixture
async def sql(server: Server, model: Model) -> Installed:
    """The built-in entities, installed in a new database."""
    return await server.installed(model)


@pytest.fixture
def docs(model: Model, base_us: int) -> Documents:
    """Events of the built-in entities, an hour ago."""
    return Documents(model, base_us)
