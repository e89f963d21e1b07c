"""A world for each test: three databases, empty."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.integration.check.world import World, running_world
from tests.support.databases import Databases
from tests.unit.check.samples import ORDER


@pytest.fixture
async def world(new_database: Databases) -> AsyncIterator[World]:
    """The built-in entities, and one that has every type of column."""
    model = Model((*load_model().entities, ORDER))
    async with running_world(model, new_database) as running:
        yield running
