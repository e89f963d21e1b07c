"""Schedules on PostgreSQL; see `tests.exhaustive.database`."""

from __future__ import annotations

from collections.abc import Sequence

from storemirror.sql.postgres.connection import MIRROR, Database
from storemirror.sql.postgres.mirror import PostgresMirror
from tests.contract.sql.postgres import PostgresInstalled
from tests.exhaustive.backend import NowUs
from tests.exhaustive.database import OnLoop
from tests.exhaustive.documents import built_in_model
from tests.exhaustive.store import PureMirror
from tests.support.gates import GATED, OTHER, PostgresGates, install_gates
from tests.support.mirrors import PROJECT, STORE


class PostgresSession(OnLoop):
    """See `Session`: one database."""

    def __init__(self, dsn: str, *, faults: Sequence[tuple[str, str]] = ()) -> None:
        """
        Install the schema.

        Args:
            dsn: an empty database.
            faults: what is replaced in the rendered procedures, and by what.
        """
        super().__init__()
        self.model = built_in_model()
        self.installed = PostgresInstalled(
            self.model, dsn, project=PROJECT, store=STORE, procedures={}
        )
        self._databases = [
            Database(dsn, MIRROR, max_size=1, application_name=name) for name in (GATED, OTHER)
        ]
        self.gated, self.other = (
            PostgresMirror(database, self.installed.rendering, project=PROJECT, store=STORE)
            for database in self._databases
        )
        self.gates = PostgresGates(self.installed.database)
        self.run(self._open(faults))

    async def _open(self, faults: Sequence[tuple[str, str]]) -> None:
        await self.installed.database.open()
        await self.installed.schema.apply()
        await install_gates(self.installed.database)
        if faults:
            await self.installed.plant(*faults)
        for database, mirror in zip(self._databases, (self.gated, self.other), strict=True):
            await database.open()
            await mirror.verify_schema()

    def expected(self, now_us: NowUs) -> PureMirror:
        """See `Session.expected`."""
        return PureMirror(self.model, now_us)

    def clear(self) -> None:
        """See `Session.clear`."""
        self.run(self.installed.clear())

    def close(self) -> None:
        """See `Session.close`."""
        for database in (*self._databases, self.installed.database):
            self.run(database.aclose())
        super().close()
