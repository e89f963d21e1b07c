"""
Writers beside each other with read-committed snapshot on, and off.

The suites' own bodies, on a database in which it is the one or the other: with it a reader has
what was committed before, without it it waits for the writer.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.contract.sql.side_door import Server
from tests.faults.sql import test_concurrency, test_given_up, test_purge_killed
from tests.faults.sql.test_lock_order import (
    test_a_batch_locks_rows_in_key_order as _in_key_order,
)
from tests.support.servers import sqlserver_dsn

pytestmark = pytest.mark.sqlserver

test_a_batch_locks_rows_in_key_order = _in_key_order
for _suite in (test_concurrency, test_given_up, test_purge_killed):
    for _name, _test in vars(_suite).items():
        if _name.startswith("test_") and callable(_test):
            globals()[_name] = _test


@pytest.fixture(params=[True, False], ids=["snapshots", "no snapshots"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """A server whose readers have snapshots, or wait."""
    dsn = sqlserver_dsn()
    # The driver is an extra, and loaded only where a server is.
    from tests.contract.sql.sqlserver_server import (  # noqa: PLC0415
        SqlServerServer,
        working_dsn,
    )
    from tests.support.sqlserver_snapshots import with_snapshots  # noqa: PLC0415

    async with contextlib.AsyncExitStack() as until_end:
        found = await working_dsn(dsn)
        lent = await until_end.enter_async_context(with_snapshots(found, is_on=request.param))
        yield SqlServerServer(lent, until_end)
