"""Schedules on SQL Server; see `tests.exhaustive.database`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from storemirror.model.entity import Model
from storemirror.sql.sqlserver.connection import Database
from storemirror.sql.sqlserver.mirror import SqlServerMirror
from tests.contract.sql.sqlserver import BETWEEN
from tests.contract.sql.sqlserver_server import SqlServerServer, working_dsn
from tests.exhaustive.backend import NowUs
from tests.exhaustive.database import OnLoop
from tests.exhaustive.documents import built_in_model
from tests.exhaustive.gap_locking import GapLockingMirror
from tests.exhaustive.store import PureMirror
from tests.support.mirrors import PROJECT, STORE
from tests.support.planted import planted
from tests.support.sqlserver_gates import (
    GatedMirror,
    SqlServerGates,
    gate_batches,
    may_see_who_waits,
    with_gates,
)


class NobodyToHold(Exception):
    """On this server no writer can be held and seen to hold up another one."""


class SqlServerSession(OnLoop):
    """See `Session`: a schema of its own."""

    def __init__(self, dsn: str, *, faults: Sequence[tuple[str, str]] = ()) -> None:
        """
        Install the schema.

        Args:
            dsn: a T-SQL endpoint.
            faults: what is replaced in the rendered procedures, and by what.

        Raises:
            NobodyToHold: the server passes over lock hints, or shows nobody's waits.
        """
        super().__init__()
        self.model: Model = built_in_model()
        self._until_end = contextlib.AsyncExitStack()
        try:
            self.run(self._open(dsn, faults))
        except BaseException:
            self.close()
            raise

    async def _open(self, dsn: str, faults: Sequence[tuple[str, str]]) -> None:
        dsn = await working_dsn(dsn)
        self.installed = await SqlServerServer(dsn, self._until_end).installed(self.model)
        if not self.installed.honours_locks:
            raise NobodyToHold("this server passes over lock hints, so nobody waits")
        if not await may_see_who_waits(self.installed.database):
            raise NobodyToHold("it does not show who waits: grant this user VIEW SERVER STATE")
        databases = [Database(dsn, max_size=1) for _ in range(2)]
        for database in databases:
            self._until_end.push_async_callback(database.aclose)
        rendering = self.installed.rendering
        self.gated, self.other = (
            kind(database, rendering, project=PROJECT, store=STORE)
            for kind, database in zip((GatedMirror, SqlServerMirror), databases, strict=True)
        )
        for mirror in (self.gated, self.other):
            await mirror.verify_schema()
        # Each has one connection, which stays the same as long as nothing breaks it.
        gated, other = [(await one.fetch("SELECT @@SPID;"))[0][0] for one in databases]
        self.gates = SqlServerGates(self.installed.database, rendering, gated=gated, other=other)
        await self.installed.install(gate_batches(rendering))
        await self.gates.install()
        text = planted(BETWEEN.join(rendering.procedures_batches()), *faults)
        await self.installed.install(with_gates(text, rendering).split(BETWEEN))

    def expected(self, now_us: NowUs) -> PureMirror:
        """See `Session.expected`."""
        return GapLockingMirror(self.model, now_us)

    def clear(self) -> None:
        """See `Session.clear`."""
        self.run(self.installed.clear())

    def close(self) -> None:
        """See `Session.close`."""
        self.run(self._until_end.aclose())
        super().close()
