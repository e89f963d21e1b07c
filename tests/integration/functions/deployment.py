"""Databases of a deployment, and the settings that its functions are given."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from storemirror.bus.port import DeadLetter
from storemirror.check.result import CheckResult, CheckSettings
from storemirror.check.run import run_check
from storemirror.config import load_settings
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.wiring import Parts
from tests.support.mirrors import PROJECT, all_rows


@dataclass
class Deployment:
    """What a test looks at, past the functions, with the same parts."""

    bus_dsn: str
    sql_dsn: str
    #: A database of the same server that is always there.
    admin_dsn: str
    #: More variables for the functions, and for these parts.
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        """As Firebase gives it: the project by its own name for it, secrets as variables."""
        return {
            "GCLOUD_PROJECT": PROJECT,
            "STOREMIRROR_BUS_DSN": self.bus_dsn,
            "STOREMIRROR_SQL_DSN": self.sql_dsn,
            "USE_SQL_DM_WRITE_MIRROR": "true",
            # Nobody listens there: without an emulator nothing may be read from Firestore.
            "FIRESTORE_EMULATOR_HOST": "127.0.0.1:9",
            **self.variables,
        }

    def parts(self) -> Parts:
        own = {"STOREMIRROR_FIRESTORE_PROJECT": PROJECT, "STOREMIRROR_DOCUMENTS_KIND": "firestore"}
        return Parts(load_settings(None, {**self.environment, **own}))

    async def provision(self) -> None:
        """Make topic, tables and procedures."""
        async with self.parts() as parts:
            await (await parts.schema()).apply()
            await (await parts.bus_admin()).provision(parts.topic())

    @contextlib.asynccontextmanager
    async def bus_gone(self) -> AsyncIterator[None]:
        """Take the bus's database away, with every connection to it; it is back afterwards."""
        name = sql.Identifier(urlsplit(self.bus_dsn).path.strip("/"))
        away = sql.Identifier(f"{name.as_string()[1:-1]}_away")
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        admin = Database(self.admin_dsn, MIRROR, max_size=1)
        await admin.open()
        try:
            async with admin.connection() as conn:
                # No new connection comes between the cut and the renaming.
                await conn.execute(
                    sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name)
                )
                await conn.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                    " WHERE datname = %s",
                    (name.as_string()[1:-1],),
                )
                await conn.execute(rename.format(name, away))
            yield
            async with admin.connection() as conn:
                await conn.execute(rename.format(away, name))
                await conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        finally:
            await admin.aclose()

    async def depth(self) -> int:
        async with self.parts() as parts:
            return (await (await parts.bus_admin()).stats(parts.subscription)).depth

    async def dead_letters(self) -> list[DeadLetter]:
        async with self.parts() as parts:
            admin = await parts.bus_admin()
            return await admin.peek_dead_letters(parts.subscription, limit=1_000)

    async def rows(self, entity: str) -> list[dict[str, Any]]:
        """Give the columns of every row of one entity's table."""
        async with self.parts() as parts:
            mirror = await parts.mirror()
            assert isinstance(mirror, PostgresMirror)
            stored = await all_rows(mirror, parts.model[entity])
            return [dict(row.columns) for row in stored.values()]

    async def checked(self) -> CheckResult:
        """Compare both sides."""
        async with self.parts() as parts:
            return await run_check(
                store=await parts.store(),
                mirror=await parts.mirror(),
                model=parts.model,
                bus_admin=await parts.bus_admin(),
                subscription=parts.subscription,
                pending=await parts.pending(),
                clock=parts.clock,
                settings=CheckSettings(drain_timeout_s=60.0),
            )
