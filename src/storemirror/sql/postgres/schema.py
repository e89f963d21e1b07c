"""Installs tables and procedures in PostgreSQL, and tells what is installed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from storemirror.clock import Clock, SystemClock
from storemirror.errors import (
    SchemaBoundElsewhere,
    SchemaChangeRefused,
    SchemaMismatch,
    SqlUnavailable,
)
from storemirror.model.entity import Entity
from storemirror.sql.catalogue import FoundSchema, WantedSchema
from storemirror.sql.names import snake_case
from storemirror.sql.patience import Deployment, LockHolder, LockPatience, patiently
from storemirror.sql.plan import SchemaPlan
from storemirror.sql.planning import decide_differences, decide_plan, other_firestore
from storemirror.sql.port import SchemaStatus
from storemirror.sql.postgres.catalogue import read_catalogue
from storemirror.sql.postgres.connection import (
    Connection,
    Database,
    described,
    psycopg,
    sql,
)
from storemirror.sql.postgres.next_indexes import (
    NOT_GIVEN,
    build_next_indexes,
    builds_under_way,
)
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.wanted import wanted_schema
from storemirror.sql.render import SCHEMA_VERSION
from storemirror.sql.shape import Alteration, Refusal
from storemirror.sql.under_way import decide_under_way

_BOUND_ELSEWHERE: Final = ("SM010", "SM011")
#: How long a deployment waits for another one to end, which may be building an index; and how
#: often it asks.
_DEPLOY_WAIT_S: Final = 3_600.0
_DEPLOY_PAUSE_S: Final = 0.2
#: What a column is given for `Alteration.TYPE`: the types of the catalogue, as they are written.
_WRITTEN_TYPES: Final[Mapping[str, sql.SQL]] = {
    "text": sql.SQL("text"),
    "bigint": sql.SQL("bigint"),
    "double precision": sql.SQL("double precision"),
}


class PostgresSchema:
    """See `storemirror.sql.port.SchemaAdmin`."""

    def __init__(
        self,
        database: Database,
        rendering: Rendering,
        *,
        project: str,
        store: str,
        patience: LockPatience | None = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: opened with kind MIRROR.
            rendering: what is to be installed.
            project: Firestore project that this mirror is of.
            store: Firestore database in it.
            patience: for how long a change may stand in the way of others.
            clock: for the pauses between two tries; by default the machine's.
        """
        self._database = database
        self._patience = patience or LockPatience()
        self._clock = clock or SystemClock()
        self._rendering = rendering
        self._project = project
        self._store = store
        self._wanted: WantedSchema | None = None

    async def plan(self, *, may_alter_columns: bool = False) -> SchemaPlan:
        """See `SchemaAdmin.plan`."""
        async with self._database.connection() as conn:
            return await self._plan(conn, may_alter_columns=may_alter_columns)

    async def apply(
        self,
        *,
        may_alter_columns: bool = False,
        on_planned: Callable[[SchemaPlan], None] | None = None,
    ) -> SchemaStatus:
        """See `SchemaAdmin.apply`."""
        deployment = Deployment(on_planned)
        await self._build(deployment, may_alter_columns=may_alter_columns)
        await patiently(
            lambda: self._deploy(deployment, may_alter_columns=may_alter_columns),
            self._patience,
            self._clock,
        )
        return await self.status()

    async def _build(self, deployment: Deployment, *, may_alter_columns: bool) -> None:
        """Build, once and not at every try, what is to take the place of an index."""
        async with self._database.connection() as conn, self._deploying(conn):
            plan = await self._told_plan(conn, deployment, may_alter_columns=may_alter_columns)
            if plan.is_empty:
                return
            await build_next_indexes(conn, self._rendering, self._patience, deployment)

    async def _deploy(self, deployment: Deployment, *, may_alter_columns: bool) -> None:
        async with self._database.connection() as conn, self._deploying(conn):
            plan = await self._told_plan(conn, deployment, may_alter_columns=may_alter_columns)
            # Even where nothing is added, the statements lock every table.  What the plan cannot
            # see is installed with another `SCHEMA_VERSION`.
            if plan.is_empty:
                return
            try:
                await self._change(conn, plan, deployment)
            except NOT_GIVEN as exc:
                raise deployment.locked(await self._holders(conn), self._patience) from exc

    async def _told_plan(
        self, conn: Connection, deployment: Deployment, *, may_alter_columns: bool
    ) -> SchemaPlan:
        plan = await self._plan(conn, may_alter_columns=may_alter_columns)
        if plan.is_refused:
            listed = _listed([str(refusal) for refusal in plan.refusals])
            raise SchemaChangeRefused(f"{listed}; nothing was changed")
        deployment.tell(plan)
        return plan

    async def _change(self, conn: Connection, plan: SchemaPlan, deployment: Deployment) -> None:
        async with self._changing(conn):
            await conn.execute(self._rendering.lock_tables_sql().encode())
            await conn.execute(self._rendering.indexes_sql().encode())
            for alteration in plan.alterations:
                await conn.execute(self._alteration(alteration))
            await conn.execute(self._rendering.tables_sql().encode())
            await conn.execute(self._rendering.procedures_sql().encode())
        deployment.has_changed = True
        # In a second transaction, so that readers are not locked out while roll-ups are
        # computed.  Until it commits nothing is registered, and so no writer runs on rows
        # that are half adopted; when it does not, the next apply does it.
        async with self._changing(conn):
            await conn.execute(self._rendering.adopt_sql().encode())
            await self._register(conn)
            await conn.execute(self._rendering.constraints_sql().encode())

    async def status(self) -> SchemaStatus:
        """See `SchemaAdmin.status`."""
        async with self._database.connection() as conn:
            builds = await builds_under_way(conn, self.wanted)
            return self._status(await read_catalogue(conn, self.wanted), builds)

    async def outdated_counts(self, *, max_count: int) -> Mapping[str, int]:
        """See `SchemaAdmin.outdated_counts`."""
        async with self._database.connection() as conn:
            found = await read_catalogue(conn, self.wanted)
            counts: dict[str, int] = {}
            for entity in self._rendering.model:
                revision = found.revision_of(entity.name, entity.digest)
                if revision is not None and snake_case(entity.name) in found.tables:
                    counts[entity.name] = await self._outdated(conn, entity, revision, max_count)
        return counts

    async def verified_revisions(self) -> Mapping[str, int]:
        """
        Give entity name -> mapping revision of this code's declaration.

        Raises:
            SchemaMismatch: a writer must not run on what is installed.
        """
        status = await self.status()
        if status.differences:
            is_elsewhere = (status.project, status.database) != (self._project, self._store)
            kind = SchemaBoundElsewhere if status.is_installed and is_elsewhere else SchemaMismatch
            raise kind(_listed(status.differences))
        return {name: rev for name, rev in status.mapping_revisions.items() if rev is not None}

    async def aclose(self) -> None:
        """See `SchemaAdmin.aclose`."""
        await self._database.aclose()

    @property
    def wanted(self) -> WantedSchema:
        """Give what is to be installed, as the catalogue spells it."""
        if self._wanted is None:
            self._wanted = wanted_schema(self._rendering, project=self._project, store=self._store)
        return self._wanted

    async def _plan(self, conn: Connection, *, may_alter_columns: bool) -> SchemaPlan:
        found = await read_catalogue(conn, self.wanted)
        if elsewhere := other_firestore(self.wanted, found):
            raise SchemaBoundElsewhere(f"{_listed(elsewhere)}; nothing was changed")
        return decide_plan(self.wanted, found, may_alter_columns=may_alter_columns)

    def _status(self, found: FoundSchema, builds: Mapping[str, str]) -> SchemaStatus:
        is_installed = found.version is not None
        return SchemaStatus(
            is_installed=is_installed,
            installed_version=found.version,
            expected_version=SCHEMA_VERSION,
            project=found.project,
            database=found.database,
            mapping_revisions={
                entity.name: found.revision_of(entity.name, entity.digest)
                for entity in self._rendering.model
            }
            if is_installed
            else {},
            differences=tuple(decide_differences(self.wanted, found)),
            under_way=tuple(decide_under_way(self.wanted, found, builds)),
        )

    @contextlib.asynccontextmanager
    async def _deploying(self, conn: Connection) -> AsyncIterator[None]:
        """Hold the lock that one deployment has: two at once would meet in the catalogue.

        Asked for again and again: whoever waited for it within one statement would be waited for
        by the index that its holder builds, and so both for each other.
        """
        lock = (self._rendering.deploy_lock,)
        deadline_s = self._clock.monotonic_s() + _DEPLOY_WAIT_S
        while not await self._is_ours(conn, lock):
            if self._clock.monotonic_s() > deadline_s:
                raise SqlUnavailable(
                    "another deployment into this schema has not ended in"
                    f" {_DEPLOY_WAIT_S / 60:.0f} minutes"
                )
            await self._clock.sleep(_DEPLOY_PAUSE_S)
        try:
            yield
        finally:
            if not conn.closed:
                await conn.execute("SELECT pg_advisory_unlock(%s)", lock)

    @contextlib.asynccontextmanager
    async def _changing(self, conn: Connection) -> AsyncIterator[None]:
        """Have one transaction in which no writer is at work.

        A writer takes this lock before it touches a table.  Whoever had the tables first, and
        wanted it afterwards to recompute, would deadlock with the writer.
        """
        async with conn.transaction():
            await conn.execute(
                "SELECT set_config('lock_timeout', %s, true)", (str(self._patience.wait_ms),)
            )
            await conn.execute("SELECT pg_advisory_xact_lock(%s)", (self._rendering.purge_lock,))
            await conn.execute("SET LOCAL client_min_messages = warning")
            yield

    async def _is_ours(self, conn: Connection, lock: tuple[int]) -> bool:
        found = await (await conn.execute("SELECT pg_try_advisory_lock(%s)", lock)).fetchone()
        return found == (True,)

    async def _holders(self, conn: Connection) -> list[LockHolder]:
        query = self._rendering.holders_sql(wait_ms=self._patience.wait_ms).encode()
        records = await (await conn.execute(query)).fetchall()
        return [LockHolder(session_id=pid, application=name) for pid, name in records]

    def _alteration(self, refusal: Refusal) -> sql.Composed:
        """Write down a change of a column that keeps every value."""
        table = sql.Identifier(self._rendering.schema_name, refusal.table)
        column = sql.Identifier(refusal.column)
        if refusal.alteration is Alteration.NULLABLE:
            return sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(table, column)
        [wanted] = [
            c
            for t in self.wanted.tables
            if t.name == refusal.table
            for c in t
            if c.name == refusal.column
        ]
        kind = _WRITTEN_TYPES[wanted.type]
        collation = sql.SQL(' COLLATE "C"' if wanted.is_binary else "")
        return sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}{}").format(
            table, column, kind, collation
        )

    async def _outdated(
        self, conn: Connection, entity: Entity, revision: int, max_count: int
    ) -> int:
        query = sql.SQL(
            "SELECT count(*) FROM (SELECT 1 FROM {}"
            " WHERE row_state = 'live' AND mapping_revision < %s LIMIT %s) AS r"
        ).format(sql.Identifier(self._rendering.schema_name, snake_case(entity.name)))
        found = await (await conn.execute(query, (revision, max_count))).fetchone()
        return int(found[0]) if found else 0

    async def _register(self, conn: Connection) -> None:
        query = sql.SQL("SELECT {}(%s, %s, %s, %s::jsonb)").format(
            sql.Identifier(self._rendering.schema_name, "register_deployment")
        )
        declarations = self._rendering.declarations_json()
        try:
            await conn.execute(query, (self._project, self._store, SCHEMA_VERSION, declarations))
        except psycopg.Error as exc:
            if exc.sqlstate in _BOUND_ELSEWHERE:
                raise SchemaBoundElsewhere(described(exc)) from exc
            raise


def _listed(sentences: Sequence[str]) -> str:
    """Write one sentence as it is, several a line each."""
    return sentences[0] if len(sentences) == 1 else "".join(f"\n  {s}" for s in sentences)
