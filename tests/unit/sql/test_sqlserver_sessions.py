"""What SQL Server's adapters ask of a session, and what they make of its refusals."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from storemirror.clock import SystemClock
from storemirror.model.load import load_model
from storemirror.sql.sqlserver.batch import BatchEncoder
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.mirror import APPLY_TIMEOUT_S, SqlServerMirror
from storemirror.sql.sqlserver.rendering import Rendering
from tests.support.events import written

MODEL = load_model()
RENDERING = Rendering(MODEL, schema_name="dbo", procedures={})


class OneSession:
    """A pool of one connection: it applies one event."""

    def __init__(self) -> None:
        self.is_broken = False
        #: Each batch, and how long it may take.
        self.asked: list[tuple[str, float]] = []

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[OneSession]:
        yield self

    async def run(
        self, batch: str, parameters: Sequence[object], timeout_s: float
    ) -> list[list[tuple[Any, ...]]]:
        self.asked.append((batch, timeout_s))
        return [[('[{"o":"applied"}]',)]]


@pytest.mark.parametrize(
    ("given_s", "told_s"), [(None, APPLY_TIMEOUT_S), (1.5, 1.5), (600.0, APPLY_TIMEOUT_S)]
)
async def test_the_server_is_told_the_nearer_of_both_times(
    given_s: float | None, told_s: float
) -> None:
    """A write's batch that nobody waits for would hold its locks for a minute (issue 7)."""
    pool = OneSession()
    mirror = SqlServerMirror(cast("Database", pool), RENDERING, project="p", store="s")
    mirror._encoder = BatchEncoder(MODEL, {entity.name: 1 for entity in MODEL})
    event = written(MODEL, "FollowEdge", ("a", "b"), SystemClock().now_us())
    await mirror.apply([event], timeout_s=given_s)
    assert [timeout_s for _, timeout_s in pool.asked] == [told_s]
