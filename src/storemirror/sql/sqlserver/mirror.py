"""The mirror in SQL Server: applies events through the procedures, and reads rows back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

import msgspec

from storemirror.clock import us_from_datetime
from storemirror.errors import EventRefused, ParentMissing, RebaseUnderWay, SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.model.entity import Entity
from storemirror.model.types import DialectLimits
from storemirror.sql.names import pascal_case
from storemirror.sql.port import (
    FollowRelationship,
    MirrorRow,
    RebaseState,
    RollupDifference,
    RowEvent,
    UnverifiedDocument,
)
from storemirror.sql.sqlserver.batch import CALL_LIMIT, BatchEncoder, holds_nul
from storemirror.sql.sqlserver.connection import Database, Sql, composed, in_utc
from storemirror.sql.sqlserver.errors import (
    CLOSED,
    PARENT_MISSING,
    ServerError,
    is_data_error,
    refused_data,
)
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.rebase import SqlServerRebaseLedger
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.rows import RowReader
from storemirror.sql.sqlserver.schema import SqlServerSchema
from storemirror.sql.sqlserver.types import LIMITS
from storemirror.sql.sqlserver.unverified import UnverifiedRecord

#: Many times what the largest batch takes.
APPLY_TIMEOUT_S: Final = 60.0
#: Most events of one `apply`, as the port has it.
_APPLY_LIMIT: Final = 2_000
#: Times that stubs are made anew when a purge takes them before they are locked.
_STUB_ROUNDS: Final = 5
#: A purge of what is younger is refused by the procedure.
_LEAST_AGE_S: Final = 600
_PROBE: Final = """
SELECT SYSUTCDATETIME(), CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS NVARCHAR(20));
"""
_RECOMPUTE: Final = """
DECLARE @Changed BIGINT;
EXEC {procedure} @IsSilent = 1, @Changed = @Changed OUTPUT;
SELECT @Changed;
"""
_PURGE: Final = """
DECLARE @OlderThanSeconds INT = ?, @MaxCount INT = ?, @Purged BIGINT;
EXEC {procedure} @OlderThanSeconds = @OlderThanSeconds, @MaxCount = @MaxCount, @IsSilent = 1,
    @Purged = @Purged OUTPUT;
SELECT @Purged;
"""
_PURGEABLE: Final = """
DECLARE @OlderThanSeconds INT = ?, @MaxCount INT = ?;
SELECT COUNT_BIG(*) FROM (
    SELECT TOP (@MaxCount) 1 AS IsOne FROM {table} AS d
    WHERE d.RowState <> N'live'
        AND d.AppliedAt < DATEADD(SECOND, -@OlderThanSeconds, SYSUTCDATETIME()){childless}
) AS r;
"""

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}

#: Entity name -> keys of its rows.
Keys = Mapping[str, set[tuple[str, ...]]]


class _Told(msgspec.Struct, frozen=True, gc=False):
    """One outcome, as a procedure writes it."""

    o: str


_DECODER: Final = msgspec.json.Decoder(list[_Told])


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a procedure."""

    #: Declared-style name.
    procedure: str
    #: Places of its events in the batch, in the order in which they are given.
    places: Sequence[int]


class SqlServerMirror:
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
            database: the mirror's.
            rendering: which tables and procedures.
            project: Firestore project that this mirror is of.
            store: Firestore database in it.
            apply_timeout_s: how long one transaction may take: a connection that was cut without
                a word, or a lock that nobody lets go of, must not hold up a lane for ever.
        """
        self._apply_timeout_s = apply_timeout_s
        self._database = database
        self._rendering = rendering
        self._schema = SqlServerSchema(database, rendering, project=project, store=store)
        self._ledger = SqlServerRebaseLedger(database, rendering)
        self._reader = RowReader(database, rendering)
        self._unverified = UnverifiedRecord(database, rendering)
        self._encoder: BatchEncoder | None = None

    @property
    def limits(self) -> DialectLimits:
        """See `SqlMirror.limits`."""
        return LIMITS

    async def probe(self) -> int:
        """See `SqlMirror.probe`."""
        [(now, updateability)] = await self._database.fetch(_PROBE)
        if updateability == "READ_ONLY":
            raise SqlUnavailable(
                "the mirror's database is read-only, as a secondary is; nothing was written: make "
                "it writable, or name the primary, and what waits goes on by itself"
            )
        rebase = await self.rebase_state()
        if rebase is not None and rebase.is_closed:
            raise RebaseUnderWay(
                f"rebase {rebase.run} is under way, step {rebase.step.value} is done;"
                " nothing was written"
            )
        return us_from_datetime(in_utc(now))

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
        if len(events) > _APPLY_LIMIT:
            raise _refused(events, "a call takes a JSON array of 1 to 2,000 events")
        calls = self._calls_of(events)
        wanted = self._rows_of(events)
        limit_s = min(self._apply_timeout_s, timeout_s or math.inf)
        for _ in range(_STUB_ROUNDS):
            try:
                async with asyncio.timeout(limit_s):
                    return await self._apply_once(encoder, events, calls, wanted, limit_s)
            except TimeoutError as exc:
                raise SqlUnavailable(
                    "the mirror's database did not finish a batch within "
                    f"{limit_s:.3g} s; written or not is unknown"
                ) from exc
            except ParentMissing:
                await self._ensure_parents(encoder, events, wanted, limit_s)
        raise ParentMissing(f"parents vanished {_STUB_ROUNDS} times while stubs were made")

    def _calls_of(self, events: Sequence[RowEvent]) -> list[_Call]:
        """
        Give the procedures to call, in the fixed order, with the places of their events.

        A procedure takes half as many events as a batch may have.  What is too much for one call
        is cut where the order within a batch allows it: by descending version, full observations
        first, then the places.
        """
        by_kind: dict[tuple[str, int], list[int]] = {}
        for entity in self._rendering.model:
            by_kind[entity.name, 1] = []
            by_kind[entity.name, 0] = []
        for index, event in enumerate(events):
            by_kind[event.entity.name, event.change.version % 2].append(index)
        calls: list[_Call] = []
        for (name, is_deleted), places in by_kind.items():
            procedure = f"{'Delete' if is_deleted else 'Upsert'}{name}"
            if len(places) > CALL_LIMIT:
                places.sort(key=lambda i: _order(events[i]))
            calls += [
                _Call(procedure, places[start : start + CALL_LIMIT])
                for start in range(0, len(places), CALL_LIMIT)
            ]
        return calls

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
        calls: Sequence[_Call],
        wanted: Keys,
        timeout_s: float,
    ) -> list[Outcome]:
        """Run one transaction; ParentMissing when stubs must be made first."""
        parameters = [encoder.events_json([events[i] for i in call.places]) for call in calls]
        if any(holds_nul(parameter) for parameter in parameters):
            raise _refused(events, "a text holds U+0000")
        # One procedure locks what it needs in one pass; several would lock in turns, and deadlock
        # with others.
        has_lock = len(calls) > 1
        if has_lock:
            parameters.insert(0, encoder.keys_json(wanted))
        async with self._database.session() as session:
            with _event_errors(events):
                results = await session.run(
                    self._transaction(calls, has_lock=has_lock), parameters, timeout_s
                )
        outcomes: dict[int, Outcome] = {}
        [[told]] = results
        for call, text in zip(calls, told, strict=True):
            for index, one in zip(call.places, _DECODER.decode(text), strict=True):
                outcomes[index] = _OUTCOMES.get(one.o) or Outcome(one.o)
        return [outcomes[index] for index in range(len(events))]

    def _transaction(self, calls: Sequence[_Call], *, has_lock: bool) -> Sql:
        """
        Write a transaction.

        Outcomes are kept until it is committed: a client that takes no answers would else keep it
        open, and with it every lock.
        """
        lines = ["BEGIN TRANSACTION;"]
        if has_lock:
            lines += [
                "DECLARE @Missing BIGINT;",
                f"EXEC {self._rendering.procedure('LockRows')} @Rows = ?, @IsSilent = 1,"
                " @Missing = @Missing OUTPUT;",
                f"IF @Missing > 0 THROW {PARENT_MISSING},"
                " N'SM001 roll-up parents are missing; their stubs are made next', 1;",
            ]
        for place, call in enumerate(calls):
            lines += [
                f"DECLARE @Outcomes{place} NVARCHAR(MAX);",
                f"EXEC {self._rendering.procedure(call.procedure)} @Events = ?, @IsSilent = 1,"
                f" @Outcomes = @Outcomes{place} OUTPUT;",
            ]
        told = ", ".join(f"@Outcomes{place}" for place in range(len(calls)))
        lines += ["COMMIT TRANSACTION;", f"SELECT {told};"]
        return Sql("\n".join(lines))

    async def _ensure_parents(
        self, encoder: BatchEncoder, events: Sequence[RowEvent], wanted: Keys, timeout_s: float
    ) -> None:
        batch = self._composed("EXEC {procedure} @Rows = ?, @IsSilent = 1;", "EnsureParents")
        async with self._database.session() as session:
            with _event_errors(events):
                await session.run(batch, [encoder.keys_json(wanted)], timeout_s)

    async def recompute_rollups(self, entity: Entity) -> int:
        """See `SqlMirror.recompute_rollups`."""
        batch = self._composed(_RECOMPUTE, f"Recompute{entity.name}Rollup")
        [(changed,)] = await self._database.fetch(batch)
        return int(changed)

    async def purge(self, entity: Entity, *, older_than_s: float, max_count: int) -> int:
        """See `SqlMirror.purge`."""
        batch = self._composed(_PURGE, f"Purge{entity.name}")
        parameters = (_whole_seconds(older_than_s), max_count)
        [(purged,)] = await self._database.fetch(batch, parameters)
        return int(purged)

    async def purgeable_count(self, entity: Entity, *, older_than_s: float, max_count: int) -> int:
        """See `SqlMirror.purgeable_count`."""
        [(count,)] = await self._database.fetch(
            composed(
                _PURGEABLE,
                table=self._rendering.table(entity.name),
                childless=self._childless(entity),
            ),
            (_whole_seconds(older_than_s), max_count),
        )
        return int(count)

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
        procedure = f"Find{entity.name}RollupDifferences"
        batch = self._composed("EXEC {procedure} @Limit = ?;", procedure)
        found = await self._database.fetch(batch, (limit,))
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
        batch = self._composed(
            "EXEC {procedure} @Viewer = ?, @Target = ?;", "GetFollowRelationship"
        )
        [sides] = await self._database.fetch(batch, (viewer, target))
        is_following, is_followed_by, has_blocked, is_blocked_by = (bool(side) for side in sides)
        return FollowRelationship(
            is_following=is_following,
            is_followed_by=is_followed_by,
            has_blocked=has_blocked,
            is_blocked_by=is_blocked_by,
        )

    async def aclose(self) -> None:
        """See `SqlMirror.aclose`."""
        await self._database.aclose()

    def _childless(self, entity: Entity) -> str:
        """Give the condition under which a purge takes a roll-up parent."""
        child = self._rendering.model.rollup_child_of(entity)
        if child is None:
            return ""
        names = [quoted(pascal_case(k.name)) for k in entity.keys]
        same = " AND ".join(f"m.{name} = d.{name}" for name in names)
        return composed(
            " AND NOT EXISTS (SELECT 1 FROM {table} AS m WHERE {same})",
            table=self._rendering.table(child.name),
            same=same,
        )

    def _composed(self, template: LiteralString, procedure: str) -> Sql:
        """Compose a call of a procedure, by its declared-style name."""
        return composed(template, procedure=self._rendering.procedure(procedure))


def _whole_seconds(older_than_s: float) -> int:
    """Give an age as the procedures take it: never less than was said, where that is allowed."""
    is_allowed = older_than_s >= _LEAST_AGE_S
    return math.ceil(older_than_s) if is_allowed else math.floor(older_than_s)


def _order(event: RowEvent) -> tuple[int, bool]:
    """Give the order of events of one key in a batch; what is alike keeps its order."""
    return (-event.change.version, not event.change.origin.is_full_observation)


@contextlib.contextmanager
def _event_errors(events: Sequence[RowEvent]) -> Iterator[None]:
    """Tell an event's own errors from the database's; the rest is for `translated_errors`."""
    try:
        yield
    except ServerError as exc:
        if exc.number == PARENT_MISSING:
            raise ParentMissing(str(exc)) from exc
        if exc.number == CLOSED:
            raise RebaseUnderWay(str(exc)) from exc
        if not is_data_error(exc):
            raise
        raise _refused(events, refused_data(exc)) from exc


def _refused(events: Sequence[RowEvent], why: str) -> EventRefused:
    single = events[0].change if len(events) == 1 else None
    return EventRefused(
        why,
        event_id=single.event_id if single else f"one of {len(events)}",
        path=single.path if single else f"one of {len(events)}",
    )
