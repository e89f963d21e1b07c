"""The mirror in PostgreSQL: applies events through the procedures, and reads rows back."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final

from storemirror.errors import EventRefused, ParentMissing, RebaseUnderWay, SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.model.entity import Entity
from storemirror.model.types import DialectLimits
from storemirror.sql.names import snake_case
from storemirror.sql.parents import Keys, KnownParents
from storemirror.sql.port import (
    FollowRelationship,
    MirrorRow,
    RebaseState,
    RollupDifference,
    RowEvent,
    UnverifiedDocument,
)
from storemirror.sql.postgres.batch import BatchEncoder
from storemirror.sql.postgres.connection import Connection, Database, described, psycopg, sql
from storemirror.sql.postgres.rebase import PostgresRebaseLedger
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.rows import RowReader
from storemirror.sql.postgres.schema import PostgresSchema
from storemirror.sql.postgres.types import LIMITS
from storemirror.sql.postgres.unverified import UnverifiedRecord

#: SQLSTATEs with which the data of an event, and not the server, are in trouble: a value that
#: does not fit (class 22), a constraint (23), a row or key too large (54), our own refusals; and
#: what a trigger raises (P0001).  Adopted tables have constraints and triggers of their owner's,
#: and one document that breaks one must not hold up the others for ever.
_DATA_CLASSES: Final = ("22", "23", "54")
_DATA_STATES: Final = ("P0001", "SM002", "SM003")
_OWN_REFUSALS: Final = ("SM002", "SM003")
#: The server's words for a row that is too long for an index: they quote no value.
_TOO_LONG_FOR_INDEX: Final = re.compile(
    r"index row size \d+ exceeds btree version \d+ maximum \d+ for index \"[^\"]+\""
    r"|index row requires \d+ bytes, maximum size is \d+"
)
_PARENT_MISSING: Final = "SM001"
_CLOSED: Final = "SM005"
#: Many times what the largest batch takes.
APPLY_TIMEOUT_S: Final = 60.0
#: Times that stubs are made anew when a purge takes them before they are locked.
_STUB_ROUNDS: Final = 5

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


class PostgresMirror:
    """See `storemirror.sql.port.SqlMirror`."""

    def __init__(
        self,
        database: Database,
        rendering: Rendering,
        *,
        project: str,
        store: str,
        apply_timeout_s: float = APPLY_TIMEOUT_S,
    ) -> None:
        """
        Name the parts; nothing is opened here.

        Args:
            database: opened with kind MIRROR.
            rendering: which tables and procedures.
            project: Firestore project that this mirror is of.
            store: Firestore database in it.
            apply_timeout_s: how long one transaction may take: a connection that was cut without
                a word, or a lock that nobody lets go of, must not hold up a lane for ever.
        """
        self._apply_timeout_s = apply_timeout_s
        self._database = database
        self._rendering = rendering
        self._schema = PostgresSchema(database, rendering, project=project, store=store)
        self._ledger = PostgresRebaseLedger(database, rendering)
        self._reader = RowReader(database, rendering)
        self._unverified = UnverifiedRecord(database, rendering)
        self._encoder: BatchEncoder | None = None
        self._parents = KnownParents(rendering.model)

    @property
    def limits(self) -> DialectLimits:
        """See `SqlMirror.limits`."""
        return LIMITS

    async def probe(self) -> int:
        """See `SqlMirror.probe`."""
        found = await self._database.fetch(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,"
            " current_setting('transaction_read_only') = 'on'"
        )
        now_us, is_read_only = found[0]
        if is_read_only:
            raise SqlUnavailable(
                "the mirror's database is read-only, as a standby is; nothing was written: make it "
                "writable, or name the one that is, and what waits goes on by itself"
            )
        rebase = await self.rebase_state()
        if rebase is not None and rebase.is_closed:
            raise RebaseUnderWay(
                f"rebase {rebase.run} is under way, step {rebase.step.value} is done;"
                " nothing was written"
            )
        return int(now_us)

    async def rebase_state(self) -> RebaseState | None:
        """See `SqlMirror.rebase_state`."""
        return await self._ledger.state()

    async def verify_schema(self) -> Mapping[str, int]:
        """See `SqlMirror.verify_schema`."""
        revisions = await self._schema.verified_revisions()
        self._encoder = BatchEncoder(self._rendering.model, revisions)
        return revisions

    async def apply(
        self, events: Sequence[RowEvent], *, timeout_s: float | None = None
    ) -> list[Outcome]:
        """See `SqlMirror.apply`."""
        encoder = self._encoder
        if encoder is None:
            await self.verify_schema()
            encoder = self._encoder
            assert encoder is not None
        if not events:
            return []
        calls = self._calls_of(events)
        arguments = {
            procedure: encoder.events_json([events[i] for i in indexes])
            for procedure, indexes in calls.items()
        }
        wanted = self._rows_of(events)
        # One procedure makes stubs of its own where its rows have no parents.
        makes_own = len(calls) == 1 and events[0].entity.rollup is None
        stubs = {} if makes_own else self._parents.to_make_first(wanted)
        limit_s = min(self._apply_timeout_s, timeout_s or math.inf)
        for _ in range(_STUB_ROUNDS):
            try:
                async with asyncio.timeout(limit_s):
                    if stubs:
                        self._parents.note_made(await self._ensure_parents(encoder, stubs))
                    found = await self._apply_once(encoder, events, arguments, wanted)
            except TimeoutError as exc:
                raise SqlUnavailable(
                    "the mirror's database did not finish a batch within "
                    f"{limit_s:.3g} s; written or not is unknown"
                ) from exc
            except ParentMissing:
                self._parents.note_missing()
                stubs = wanted
            else:
                self._parents.note_there(wanted)
                outcomes: dict[int, Outcome] = {}
                for procedure, indexes in calls.items():
                    outcomes.update(zip(indexes, found[procedure], strict=True))
                return [outcomes[index] for index in range(len(events))]
        raise ParentMissing(f"parents vanished {_STUB_ROUNDS} times while stubs were made")

    def _calls_of(self, events: Sequence[RowEvent]) -> Mapping[str, Sequence[int]]:
        """Give the procedures to call, in the fixed order, with the places of their events."""
        calls: dict[tuple[str, int], list[int]] = {}
        for entity in self._rendering.model:
            calls[entity.name, 1] = []
            calls[entity.name, 0] = []
        for index, event in enumerate(events):
            calls[event.entity.name, event.change.version % 2].append(index)
        return {
            f"{'Delete' if is_deleted else 'Upsert'}{name}": indexes
            for (name, is_deleted), indexes in calls.items()
            if indexes
        }

    def _rows_of(self, events: Sequence[RowEvent]) -> Keys:
        """Give the rows whose locks cover these events: roll-up parents, else the own rows."""
        wanted: dict[str, set[tuple[str, ...]]] = {e.name: set() for e in self._rendering.model}
        for event in events:
            rollup = event.entity.rollup
            if rollup is None:
                wanted[event.entity.name].add(event.key)
            else:
                # A parent's key is the child's without its last part.
                wanted[rollup.into].add(event.key[:-1])
        return {name: keys for name, keys in wanted.items() if keys}

    async def _apply_once(
        self,
        encoder: BatchEncoder,
        events: Sequence[RowEvent],
        arguments: Mapping[str, str],
        wanted: Keys,
    ) -> Mapping[str, Sequence[Outcome]]:
        """Run one transaction; ParentMissing when stubs must be made first."""
        async with self._database.connection() as conn:
            with _event_errors(events):
                if len(arguments) == 1:
                    # One statement is a transaction: it takes one round trip, not three, and a
                    # process that is stopped holds no locks between them.
                    return await self._call_all(conn, arguments)
                async with conn.transaction():
                    # One procedure locks what it needs in one pass; several would lock in
                    # turns, and deadlock with others.
                    await self._lock(conn, encoder, wanted)
                    return await self._call_all(conn, arguments)

    async def _call_all(
        self, conn: Connection, arguments: Mapping[str, str]
    ) -> Mapping[str, Sequence[Outcome]]:
        """Call procedures one after the other; gives an outcome for each event of each."""
        found = {}
        for procedure, argument in arguments.items():
            cursor = await conn.execute(
                sql.SQL("SELECT outcome FROM {}(%s::jsonb)").format(self._procedure(procedure)),
                (argument,),
            )
            rows = await cursor.fetchall()
            found[procedure] = [_OUTCOMES.get(outcome) or Outcome(outcome) for (outcome,) in rows]
        return found

    async def _lock(self, conn: Connection, encoder: BatchEncoder, wanted: Keys) -> None:
        cursor = await conn.execute(
            sql.SQL("SELECT {}(%s::jsonb)").format(self._procedure("LockRows")),
            (encoder.keys_json(wanted),),
        )
        found = await cursor.fetchone()
        if found is None or found[0] > 0:
            raise ParentMissing("roll-up parents are missing; their stubs are made next")

    async def _ensure_parents(self, encoder: BatchEncoder, wanted: Keys) -> int:
        """Make stubs; gives how many.

        They need not be on disk before the rows for which they are made are.
        """
        found = await self._database.fetch(
            sql.SQL("SELECT set_config('synchronous_commit', 'off', true), {}(%s::jsonb)").format(
                self._procedure("EnsureParents")
            ),
            (encoder.keys_json(wanted),),
        )
        return int(found[0][1])

    async def recompute_rollups(self, entity: Entity) -> int:
        """See `SqlMirror.recompute_rollups`."""
        procedure = self._procedure(f"Recompute{entity.name}Rollup")
        found = await self._database.fetch(sql.SQL("SELECT {}()").format(procedure))
        return int(found[0][0])

    async def purge(self, entity: Entity, *, older_than_s: float, max_count: int) -> int:
        """See `SqlMirror.purge`."""
        procedure = self._procedure(f"Purge{entity.name}")
        found = await self._database.fetch(
            sql.SQL("CALL {}(make_interval(secs => %s), %s)").format(procedure),
            (older_than_s, max_count),
        )
        return int(found[0][0])

    async def purgeable_count(self, entity: Entity, *, older_than_s: float, max_count: int) -> int:
        """See `SqlMirror.purgeable_count`."""
        query = sql.SQL(
            "SELECT count(*) FROM (SELECT 1 FROM {table} AS d WHERE d.row_state <> 'live'"
            " AND d.applied_at < clock_timestamp() - make_interval(secs => %s){childless}"
            " LIMIT %s) AS r"
        ).format(table=self._table(entity), childless=self._childless(entity))
        found = await self._database.fetch(query, (older_than_s, max_count))
        return int(found[0][0])

    async def rows(
        self, entity: Entity, *, after: tuple[str, ...] | None, up_to: tuple[str, ...] | None
    ) -> AsyncIterator[MirrorRow]:
        """See `SqlMirror.rows`."""
        async for row in self._reader.rows(entity, after=after, up_to=up_to):
            yield row

    async def row(self, entity: Entity, key: tuple[str, ...]) -> MirrorRow | None:
        """See `SqlMirror.row`."""
        return await self._reader.row(entity, key)

    async def rollup_differences(self, entity: Entity, *, limit: int) -> list[RollupDifference]:
        """See `SqlMirror.rollup_differences`."""
        procedure = self._procedure(f"Find{entity.name}RollupDifferences")
        found = await self._database.fetch(
            sql.SQL("SELECT * FROM {}(%s)").format(procedure), (limit,)
        )
        return [RollupDifference(key=tuple(key), column=column) for *key, column in found]

    async def mark_unverified(self, marks: Sequence[UnverifiedDocument]) -> None:
        """See `SqlMirror.mark_unverified`."""
        await self._unverified.mark(marks)

    async def unverified(self, *, limit: int | None = None) -> list[UnverifiedDocument]:
        """See `SqlMirror.unverified`."""
        return await self._unverified.listed(limit=limit)

    async def unverified_count(self) -> int:
        """See `SqlMirror.unverified_count`."""
        return await self._unverified.count()

    async def clear_unverified(self, marks: Sequence[UnverifiedDocument]) -> int:
        """See `SqlMirror.clear_unverified`."""
        return await self._unverified.clear(marks)

    async def clear_overtaken(self) -> int:
        """See `SqlMirror.clear_overtaken`."""
        return await self._unverified.clear_overtaken()

    async def follow_relationship(self, viewer: str, target: str) -> FollowRelationship:
        """See `SqlMirror.follow_relationship`."""
        found = await self._database.fetch(
            sql.SQL(
                "SELECT is_following, is_followed_by, has_blocked, is_blocked_by FROM {}(%s, %s)"
            ).format(self._procedure("GetFollowRelationship")),
            (viewer, target),
        )
        is_following, is_followed_by, has_blocked, is_blocked_by = found[0]
        return FollowRelationship(
            is_following=is_following,
            is_followed_by=is_followed_by,
            has_blocked=has_blocked,
            is_blocked_by=is_blocked_by,
        )

    async def aclose(self) -> None:
        """See `SqlMirror.aclose`."""
        await self._database.aclose()

    def _childless(self, entity: Entity) -> sql.Composable:
        """Give the condition under which a purge takes a roll-up parent."""
        child = self._rendering.model.rollup_child_of(entity)
        if child is None:
            return sql.SQL("")
        same = sql.SQL(" AND ").join(
            sql.SQL("m.{} = d.{}").format(name, name)
            for name in (sql.Identifier(snake_case(k.name)) for k in entity.keys)
        )
        return sql.SQL(" AND NOT EXISTS (SELECT 1 FROM {} AS m WHERE {})").format(
            self._table(child), same
        )

    def _table(self, entity: Entity) -> sql.Identifier:
        return sql.Identifier(self._rendering.schema_name, snake_case(entity.name))

    def _procedure(self, name: str) -> sql.Identifier:
        return sql.Identifier(*self._rendering.procedure_parts(name))


@contextlib.contextmanager
def _event_errors(events: Sequence[RowEvent]) -> Iterator[None]:
    """Tell an event's own errors from the database's; the rest is for `translated_errors`."""
    try:
        yield
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        if state == _PARENT_MISSING:
            raise ParentMissing(described(exc)) from exc
        if state == _CLOSED:
            raise RebaseUnderWay(described(exc)) from exc
        if state not in _DATA_STATES and state[:2] not in _DATA_CLASSES:
            raise
        single = events[0].change if len(events) == 1 else None
        raise EventRefused(
            _refusal(exc),
            event_id=single.event_id if single else f"one of {len(events)}",
            path=single.path if single else f"one of {len(events)}",
        ) from exc


def _refusal(exc: psycopg.Error) -> str:
    """Say why the data were refused, without the server's message: it may quote them."""
    if exc.sqlstate in _OWN_REFUSALS:
        return described(exc)
    if _TOO_LONG_FOR_INDEX.fullmatch(exc.diag.message_primary or ""):
        return f"a value is too long for an index that holds it: {described(exc)}"
    named = [name for name in (exc.diag.constraint_name, exc.diag.column_name) if name]
    about = f" on {', '.join(named)}" if named else ""
    return f"the database refused the data: {type(exc).__name__}{about} (SQLSTATE {exc.sqlstate})"
