"""Installs tables and procedures in SQL Server, and tells what is installed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from storemirror.clock import Clock, SystemClock
from storemirror.errors import (
    SchemaBoundElsewhere,
    SchemaChangeRefused,
    SchemaLocked,
    SchemaMismatch,
    SqlUnavailable,
)
from storemirror.model.entity import Entity
from storemirror.sql.catalogue import FoundSchema, WantedSchema
from storemirror.sql.patience import Deployment, LockPatience, patiently
from storemirror.sql.plan import SchemaPlan
from storemirror.sql.planning import decide_differences, decide_plan, other_firestore
from storemirror.sql.port import SchemaStatus
from storemirror.sql.render import SCHEMA_VERSION
from storemirror.sql.shape import Alteration, Refusal
from storemirror.sql.sqlserver import locks
from storemirror.sql.sqlserver.catalogue import read_catalogue, type_of
from storemirror.sql.sqlserver.connection import (
    CALL_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    Database,
    LockRefused,
    Session,
    Sql,
    composed,
    told_locks,
)
from storemirror.sql.sqlserver.facts import ServerFacts, read_facts
from storemirror.sql.sqlserver.holders import lock_holders
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.types import COLLATION
from storemirror.sql.sqlserver.wanted import wanted_schema
from storemirror.sql.under_way import decide_under_way

#: How long a deployment waits for another one to end.
_DEPLOY_WAIT_MS: Final = 600_000
_COLLATION: Final = re.compile(r"\w+")
_COLUMN_NOW: Final = """
SELECT y.name, CAST(c.max_length AS INT), CAST(c.[precision] AS INT), CAST(c.[scale] AS INT),
       CAST(c.is_nullable AS INT), c.collation_name
FROM sys.columns AS c JOIN sys.types AS y ON y.user_type_id = c.user_type_id
WHERE c.object_id = OBJECT_ID({table}) AND c.name = {column};
"""


class SqlServerSchema:
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
            database: the mirror's.
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
        async with self._database.session() as session:
            facts = await read_facts(session)
            return await self._plan(session, facts, may_alter_columns=may_alter_columns)

    async def apply(
        self,
        *,
        may_alter_columns: bool = False,
        on_planned: Callable[[SchemaPlan], None] | None = None,
    ) -> SchemaStatus:
        """See `SchemaAdmin.apply`."""
        deployment = Deployment(on_planned)
        # By itself, so that a lock that is refused later takes no build back.
        await patiently(
            lambda: self._build(deployment, may_alter_columns=may_alter_columns),
            self._patience,
            self._clock,
        )
        await patiently(
            lambda: self._deploy(deployment, may_alter_columns=may_alter_columns),
            self._patience,
            self._clock,
        )
        return await self.status()

    async def _build(self, deployment: Deployment, *, may_alter_columns: bool) -> None:
        """Build what is to take the place of an index: each in a transaction of its own."""
        try:
            async with self._database.session() as session, self._deploying(session):
                facts = await read_facts(session)
                plan = await self._told_plan(
                    session, facts, deployment, may_alter_columns=may_alter_columns
                )
                if not plan.is_empty and facts.is_microsofts:
                    with told_locks():
                        await _run_all(session, self._rendering.next_indexes_batches())
        except LockRefused as exc:
            raise await self._locked(deployment) from exc

    async def _deploy(self, deployment: Deployment, *, may_alter_columns: bool) -> None:
        try:
            async with self._database.session() as session, self._deploying(session):
                facts = await read_facts(session)
                plan = await self._told_plan(
                    session, facts, deployment, may_alter_columns=may_alter_columns
                )
                # Even where nothing is added, the writers' lock is taken.  What the plan cannot
                # see is installed with another `SCHEMA_VERSION`.
                if plan.is_empty:
                    return
                with told_locks():
                    await self._change(session, facts, plan, deployment)
        except LockRefused as exc:
            raise await self._locked(deployment) from exc

    async def _locked(self, deployment: Deployment) -> SchemaLocked:
        holders = await lock_holders(self._database, self._rendering, self._patience)
        return deployment.locked(holders, self._patience)

    async def _told_plan(
        self,
        session: Session,
        facts: ServerFacts,
        deployment: Deployment,
        *,
        may_alter_columns: bool,
    ) -> SchemaPlan:
        plan = await self._plan(session, facts, may_alter_columns=may_alter_columns)
        if plan.is_refused:
            listed = _listed([str(refusal) for refusal in plan.refusals])
            raise SchemaChangeRefused(f"{listed}; nothing was changed")
        deployment.tell(plan)
        return plan

    async def _change(
        self, session: Session, facts: ServerFacts, plan: SchemaPlan, deployment: Deployment
    ) -> None:
        rendering = self._rendering_for(facts)
        async with self._changing(session):
            if facts.is_microsofts:
                await _run_all(session, rendering.lock_tables_batches())
                await _run_all(session, rendering.indexes_batches())
            for alteration in plan.alterations:
                await self._alter(session, alteration)
            await _run_all(session, rendering.tables_batches())
            await _run_all(session, rendering.procedures_batches())
        deployment.has_changed = True
        # In a second transaction, so that readers are not locked out while roll-ups are
        # computed.  Until it commits nothing is registered, and so no writer runs on rows
        # that are half adopted; when it does not, the next apply does it.
        async with self._changing(session):
            await _run_all(session, rendering.adopt_batches())
            await self._register(session)
            await _run_all(session, rendering.constraints_batches())

    async def status(self) -> SchemaStatus:
        """See `SchemaAdmin.status`."""
        async with self._database.session() as session:
            return self._status(await self._found(session))

    async def outdated_counts(self, *, max_count: int) -> Mapping[str, int]:
        """See `SchemaAdmin.outdated_counts`."""
        async with self._database.session() as session:
            found = await self._found(session)
            counts: dict[str, int] = {}
            for entity in self._rendering.model:
                revision = found.revision_of(entity.name, entity.digest)
                if revision is not None and entity.name in found.tables:
                    counts[entity.name] = await self._outdated(session, entity, revision, max_count)
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

    async def _found(self, session: Session) -> FoundSchema:
        return await read_catalogue(session, self.wanted, await read_facts(session))

    def _rendering_for(self, facts: ServerFacts) -> Rendering:
        """Give the texts that a server takes: only Microsoft's knows CREATE OR ALTER."""
        return self._rendering if facts.is_microsofts else self._rendering.with_drop_create()

    async def _plan(
        self, session: Session, facts: ServerFacts, *, may_alter_columns: bool
    ) -> SchemaPlan:
        found = await read_catalogue(session, self.wanted, facts)
        if elsewhere := other_firestore(self.wanted, found):
            raise SchemaBoundElsewhere(f"{_listed(elsewhere)}; nothing was changed")
        return decide_plan(self.wanted, found, may_alter_columns=may_alter_columns)

    def _status(self, found: FoundSchema) -> SchemaStatus:
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
            under_way=tuple(decide_under_way(self.wanted, found, {})),
        )

    @contextlib.asynccontextmanager
    async def _deploying(self, session: Session) -> AsyncIterator[None]:
        """Hold the lock that one deployment has: two at once would meet in the catalogue."""
        lock = self._rendering.deploy_lock
        take = Sql(locks.taken_for_session(lock, wait_ms=_DEPLOY_WAIT_MS))
        if await session.run(take, (), CALL_TIMEOUT_S) != [[(1,)]]:
            raise SqlUnavailable("another deployment into this schema has not ended in 10 minutes")
        # A table is changed once nobody reads it; whoever comes later queues behind the wait.
        waiting = Sql(f"SET LOCK_TIMEOUT {self._patience.wait_ms};")
        await session.run_alone(waiting, CALL_TIMEOUT_S)
        try:
            yield
        finally:
            if not session.is_broken:
                await session.run(Sql(locks.released(lock)), (), CALL_TIMEOUT_S)
                restored = Sql(f"SET LOCK_TIMEOUT {round(LOCK_TIMEOUT_S * 1_000)};")
                await session.run_alone(restored, CALL_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def _changing(self, session: Session) -> AsyncIterator[None]:
        """Have one transaction in which no writer is at work.

        A writer takes this lock before it touches a table.  Whoever had the tables first, and
        wanted it afterwards to recompute, would deadlock with the writer.
        """
        await session.run_alone("BEGIN TRANSACTION;", CALL_TIMEOUT_S)
        try:
            wait_ms = self._patience.wait_ms
            lock = locks.taken(self._rendering.purge_lock, "Exclusive", wait_ms=wait_ms)
            await session.run(Sql(lock), (), CALL_TIMEOUT_S)
            yield
            await session.run_alone("COMMIT TRANSACTION;", CALL_TIMEOUT_S)
        except BaseException:
            # With the connection the transaction is gone as well.
            if not session.is_broken:
                await session.run_alone("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;", CALL_TIMEOUT_S)
            raise

    async def _alter(self, session: Session, refusal: Refusal) -> None:
        """Change a column so that every value is kept."""
        table = self._rendering.qualified(refusal.table)
        now = composed(_COLUMN_NOW, table=locks.text(table), column=locks.text(refusal.column))
        [[found]] = await session.run(now, (), CALL_TIMEOUT_S)
        *kind, is_nullable, collation = found
        type_now = type_of(*kind)
        may_be_null = bool(is_nullable)
        if refusal.alteration is Alteration.NULLABLE:
            may_be_null = True
        else:
            [wanted] = [
                c
                for t in self.wanted.tables
                if t.name == refusal.table
                for c in t
                if c.name == refusal.column
            ]
            type_now = wanted.type
            collation = COLLATION if wanted.is_binary else collation
        collated = f" COLLATE {collation}" if _COLLATION.fullmatch(collation or "") else ""
        await session.run_alone(
            composed(
                "ALTER TABLE {table} ALTER COLUMN {column} {type_now}{collated} {null};",
                table=table,
                column=quoted(refusal.column),
                type_now=type_now,
                collated=collated,
                null="NULL" if may_be_null else "NOT NULL",
            ),
            CALL_TIMEOUT_S,
        )

    async def _outdated(
        self, session: Session, entity: Entity, revision: int, max_count: int
    ) -> int:
        batch = composed(
            "DECLARE @Revision INT = ?, @MaxCount INT = ?;\n"
            "SELECT COUNT_BIG(*) FROM (SELECT TOP (@MaxCount) 1 AS IsOne FROM {table}"
            " WHERE RowState = N'live' AND MappingRevision < @Revision) AS r;",
            table=self._rendering.table(entity.name),
        )
        [[(count,)]] = await session.run(batch, (revision, max_count), CALL_TIMEOUT_S)
        return int(count)

    async def _register(self, session: Session) -> None:
        await session.run(
            composed(
                "EXEC {procedure} @Project = ?, @StoreDatabase = ?, @SchemaVersion = ?,"
                " @Declarations = ?;",
                procedure=self._rendering.register_deployment,
            ),
            (self._project, self._store, SCHEMA_VERSION, self._rendering.declarations_json()),
            CALL_TIMEOUT_S,
        )


async def _run_all(session: Session, batches: Sequence[str]) -> None:
    for batch in batches:
        await session.run_alone(Sql(batch), CALL_TIMEOUT_S)


def _listed(sentences: Sequence[str]) -> str:
    """Write one sentence as it is, several a line each."""
    return sentences[0] if len(sentences) == 1 else "".join(f"\n  {s}" for s in sentences)
