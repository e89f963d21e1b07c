"""What SQL Server's adapters ask of a session, and what they make of its refusals."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from storemirror.clock import SystemClock
from storemirror.model.load import load_model
from storemirror.sql.sqlserver.batch import BatchEncoder
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.errors import ServerError
from storemirror.sql.sqlserver.mirror import APPLY_TIMEOUT_S, SqlServerMirror
from storemirror.sql.sqlserver.reads import SqlServerReads
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.rows import RowReader
from tests.support.events import written

MODEL = load_model()
FOLLOW = MODEL["FollowEdge"]
Read = Callable[[], Awaitable[object]]
#: A word of the batch that asks what the database can do.
FACTS = "compatibility_level"
RENDERING = Rendering(MODEL, schema_name="dbo", procedures={})


class OneSession:
    """A pool of one connection: it applies one event, and has nothing to read."""

    def __init__(self) -> None:
        self.is_broken = False
        self.has_snapshots = True
        #: Each batch, and how long it may take.
        self.asked: list[tuple[str, float]] = []

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[OneSession]:
        yield self

    async def run(
        self, batch: str, parameters: Sequence[object], timeout_s: float
    ) -> list[list[tuple[Any, ...]]]:
        if FACTS in batch:
            return [[(1, 150, "db", int(self.has_snapshots))]]
        self.asked.append((batch, timeout_s))
        if "LEVEL SNAPSHOT" in batch and not self.has_snapshots:
            raise ServerError(3952, "snapshot isolation is not allowed in this database")
        if "ISOLATION LEVEL" in batch:
            return [[]]
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


def reads_of_users(database: Database) -> Read:
    reads = SqlServerReads(database, RENDERING)
    return lambda: reads.version_of(FOLLOW, ("a", "b"))


def reads_of_rows(database: Database) -> Read:
    reader = RowReader(database, RENDERING)
    return lambda: reader.row(FOLLOW, ("a", "b"))


@pytest.mark.parametrize("reader", [reads_of_users, reads_of_rows])
async def test_snapshots_that_are_switched_off_cost_one_read(
    reader: Callable[[Database], Read],
) -> None:
    """Every read failed until the process was started anew (issue 6)."""
    pool = OneSession()
    read = reader(cast("Database", pool))
    assert await read() is None
    pool.has_snapshots = False
    with pytest.raises(ServerError):
        await read()
    assert await read() is None
    assert ["LEVEL SNAPSHOT" in batch for batch, _ in pool.asked] == [True, True, False]
