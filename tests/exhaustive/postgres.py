"""
Schedules on PostgreSQL: through the real adapter and procedures, beside the model in memory.

Every outcome and, in the end, every row is compared with the model's; the model is compared with
what Firestore ended with.  Two writers have a connection each; one of them can be held inside its
transaction, at a chosen point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import TypeVar

from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.model.entity import Entity
from storemirror.sql.names import snake_case
from storemirror.sql.port import MirrorRow, RowEvent
from storemirror.sql.postgres.connection import MIRROR, Database, sql
from storemirror.sql.postgres.mirror import PostgresMirror
from tests.exhaustive.backend import NowUs, ScheduleFailed, damage
from tests.exhaustive.documents import Document, built_in_model, contents_of
from tests.exhaustive.store import Aggregates, Key, PureMirror, Row
from tests.support.gates import GATED, POINTS, Gates, install_gates
from tests.support.mirrors import (
    PROJECT,
    SCHEMA,
    STORE,
    MirrorUnderTest,
    contents_of_row,
    plain,
)
from tests.support.planted import plant

_T = TypeVar("_T")
_OTHER = "other-writer"
_CLEAR = "; ".join(
    f"DELETE FROM {SCHEMA}.{table}"
    for table in (
        "dm_conversation",
        "dm_participant",
        "dm_message",
        "dm_message_audit",
        "follow_edge",
        "user_block",
        "purge_horizon",
    )
)


class Session:
    """One database with the schema installed, two writers, and a loop to run them on."""

    def __init__(self, dsn: str, *, faults: Sequence[tuple[str, str]] = ()) -> None:
        """
        Install the schema.

        Args:
            dsn: an empty database.
            faults: what is replaced in the rendered procedures, and by what.
        """
        self.model = built_in_model()
        self._runner = asyncio.Runner()
        self.installed = MirrorUnderTest(self.model, dsn)
        self._databases = [
            Database(dsn, MIRROR, max_size=1, application_name=name) for name in (GATED, _OTHER)
        ]
        self.gated, self.other = (
            PostgresMirror(database, self.installed.rendering, project=PROJECT, store=STORE)
            for database in self._databases
        )
        self.gates = Gates(self.installed.database)
        self.run(self._open(faults))

    async def _open(self, faults: Sequence[tuple[str, str]]) -> None:
        await self.installed.database.open()
        await self.installed.schema.apply()
        await install_gates(self.installed.database)
        if faults:
            await plant(self.installed, *faults)
        for database, mirror in zip(self._databases, (self.gated, self.other), strict=True):
            await database.open()
            await mirror.verify_schema()

    def run(self, work: Coroutine[object, object, _T]) -> _T:
        """Run to the end."""
        # `Runner.run` would set a signal handler each time.
        return self._runner.get_loop().run_until_complete(work)

    def clear(self) -> None:
        """Empty every table."""
        self.run(self.installed.execute(_CLEAR.encode()))

    def close(self) -> None:
        """Let go of everything."""
        for database in (*self._databases, self.installed.database):
            self.run(database.aclose())
        self._runner.close()


class PostgresBackend:
    """See `Backend`."""

    def __init__(self, session: Session, now_us: NowUs) -> None:
        """Start without rows."""
        self._session = session
        self._now_us = now_us
        self.model = PureMirror(session.model, now_us)
        session.clear()

    def apply(self, events: Sequence[RowEvent]) -> list[Outcome]:
        """See `Backend.apply`."""
        found = self._session.run(self._session.other.apply(events))
        self._compare(found, self.model.apply(events))
        return found

    @staticmethod
    def _compare(found: Sequence[Outcome], expected: Sequence[Outcome]) -> None:
        if list(found) != list(expected):
            raise ScheduleFailed(f"outcomes {_names(found)}, and not {_names(expected)}")

    def abort(self, events: Sequence[RowEvent]) -> None:
        """See `Backend.abort`: it is cut off at its commit."""
        died, _ = self._session.run(self._held(events, (), point="commit", is_killed=True))
        if died is None:
            self.model.abort(events)
        else:
            # Nothing was to be committed.
            self._compare(died, self.model.apply(events))

    def race(
        self, first: Sequence[RowEvent], second: Sequence[RowEvent], *, point: int, is_killed: bool
    ) -> tuple[list[Outcome] | None, list[Outcome]]:
        """See `Backend.race`."""
        name = POINTS[point % len(POINTS)]
        found, (others, was_first) = self._session.run(
            self._held(first, second, point=name, is_killed=is_killed)
        )
        expected_others = self.model.apply(second) if was_first else None
        if found is None:
            self.model.abort(first)
        else:
            self._compare(found, self.model.apply(first))
        self._compare(others, expected_others or self.model.apply(second))
        return found, others

    async def _held(
        self, first: Sequence[RowEvent], second: Sequence[RowEvent], *, point: str, is_killed: bool
    ) -> tuple[list[Outcome] | None, tuple[list[Outcome], bool]]:
        """Hold the first at a point while the second is applied; tells whether that ended first."""
        gates = self._session.gates
        async with gates.closed(point):
            gated = asyncio.create_task(self._session.gated.apply(first))
            is_held = await gates.wait_for_gated(gated)
            other = asyncio.create_task(self._session.other.apply(second))
            is_other_held = await gates.wait_for_other(other, _OTHER)
            if is_held and is_killed:
                await gates.kill_gated()
        was_first = is_held and not is_other_held
        try:
            found = await gated
        except SqlUnavailable:
            if not (is_held and is_killed):
                await other
                raise
            found = None
        return found, (await other, was_first)

    def purge(self, entity_name: str, *, dies_between: bool) -> None:
        """See `Backend.purge`.  One that dies leaves its horizon, and takes no row."""
        entity = self.model.model[entity_name]
        if dies_between:
            self.model.purge(entity, dies_between=True)
            self._session.run(self._set_horizon(entity_name, self.model.horizon_us))
            return
        count = self._session.run(self._purge(entity))
        expected = self.model.purge(entity, dies_between=False)
        if count != expected:
            raise ScheduleFailed(f"a purge of {entity_name} took {count} rows, not {expected}")
        horizon_us = self._session.run(self._horizon_us(entity_name))
        if horizon_us != self.model.horizon_us.get(entity_name):
            raise ScheduleFailed(f"the purge horizon of {entity_name} differs")

    async def _purge(self, entity: Entity) -> int:
        """Purge at the schedule's time: the rows' times are moved to the machine's, and back."""
        shift_us = SystemClock().now_us() - self._now_us()
        query = sql.SQL("UPDATE {} SET applied_at = {} WHERE ({}) = ({})").format(
            _table(entity.name), _MOMENT, _keys(entity), _places(entity)
        )
        for key, row in self.model.rows[entity.name].items():
            moment_us = row.applied_at_us + shift_us
            await self._session.installed.execute(query, (moment_us, *key))
        await self._move_horizon(entity.name, shift_us)
        count = await self._session.other.purge(entity, older_than_s=600.0, max_count=1_000)
        await self._move_horizon(entity.name, -shift_us)
        return count

    async def _move_horizon(self, entity_name: str, shift_us: int) -> None:
        await self._session.installed.execute(
            "UPDATE storemirror.purge_horizon"
            " SET horizon_at = horizon_at + %s * interval '1 microsecond' WHERE entity = %s",
            (shift_us, entity_name),
        )

    async def _set_horizon(self, entity_name: str, horizon_us: Mapping[str, int]) -> None:
        if entity_name in horizon_us:
            query = sql.SQL(
                "INSERT INTO storemirror.purge_horizon (horizon_at, entity) VALUES ({}, %s)"
                " ON CONFLICT (entity) DO UPDATE SET horizon_at = EXCLUDED.horizon_at"
            ).format(_MOMENT)
            await self._session.installed.execute(query, (horizon_us[entity_name], entity_name))

    async def _horizon_us(self, entity_name: str) -> int | None:
        found = await self._session.installed.database.fetch(
            "SELECT (extract(epoch FROM horizon_at) * 1000000)::bigint"
            " FROM storemirror.purge_horizon WHERE entity = %s",
            (entity_name,),
        )
        return int(found[0][0]) if found else None

    def damage(self, document: Document, kind: int) -> None:
        """See `Backend.damage`."""
        damage(self.model, document, kind)
        self._session.run(self._damage(document, kind))

    async def _damage(self, document: Document, kind: int) -> None:
        entity = document.entity
        row = self.model.rows[entity.name][document.key]
        changes: dict[str, object] = {}
        if kind == 0:
            changes["last_event_version"] = row.version
        elif kind == 1 or row.aggregates is None:
            contents = contents_of(entity.name, 0).row
            changes = {snake_case(n): value for n, value in contents.columns.items()}
            for table in entity.children:
                query = sql.SQL("DELETE FROM {} WHERE ({}) = ({})").format(
                    _table(table.name), _keys(entity), _places(entity)
                )
                await self._session.installed.execute(query, document.key)
        else:
            changes["message_count"] = row.aggregates.count
        query = sql.SQL("UPDATE {} SET {} WHERE ({}) = ({})").format(
            _table(entity.name),
            sql.SQL(", ").join(
                sql.SQL("{} = %s").format(sql.Identifier(column)) for column in changes
            ),
            _keys(entity),
            _places(entity),
        )
        await self._session.installed.execute(query, (*changes.values(), *document.key))

    def recompute(self) -> None:
        """See `Backend.recompute`."""
        entity = self.model.model["DmMessage"]
        self._session.run(self._session.other.recompute_rollups(entity))
        self.model.recompute(entity)

    def check(self) -> None:
        """See `Backend.check`."""
        self._session.run(self._check())

    async def _check(self) -> None:
        for entity in self.model.model:
            expected = self.model.rows[entity.name]
            found = {
                row.key: row
                async for row in self._session.other.rows(entity, after=None, up_to=None)
            }
            if found.keys() != expected.keys():
                raise ScheduleFailed(f"{entity.name}: rows {sorted(found)}, not {sorted(expected)}")
            for key, row in found.items():
                self._compare_row(entity, key, row, expected[key])
        audit = await self._session.installed.audit_ids(self.model.model["DmMessage"])
        if sorted(audit) != sorted(self.model.audit):
            raise ScheduleFailed(f"the audit has {len(audit)} rows, not {len(self.model.audit)}")

    def _compare_row(self, entity: Entity, key: Key, found: MirrorRow, expected: Row) -> None:
        mapped = expected.mapped
        wanted = {
            "state": expected.state,
            "version": expected.version,
            "digest": expected.digest,
            "columns": {c.name: mapped.columns[c.name] if mapped else None for c in entity.columns},
            "children": {
                t.name: {
                    str(r[t.key.name]): {c.name: r[c.name] for c in t.columns}
                    for r in (mapped.children[t.name] if mapped else ())
                }
                for t in entity.children
            },
        }
        stored = contents_of_row(entity, found)
        different = [name for name, value in wanted.items() if stored[name] != value]
        child = self.model.model.rollup_child_of(entity)
        if child is not None and _aggregates_of(child, found) != expected.aggregates:
            different.append("aggregates")
        if different:
            raise ScheduleFailed(f"{entity.path_of(key)}: {', '.join(different)} of its row differ")


def _aggregates_of(child: Entity, row: MirrorRow) -> Aggregates:
    assert child.rollup is not None
    assert child.rollup.count is not None
    latest = tuple(plain(row.columns[column.target]) for column in child.rollup.latest)
    count = row.columns[child.rollup.count]
    assert isinstance(count, int)
    return Aggregates(count, latest if any(value is not None for value in latest) else None)


_MOMENT = sql.SQL("timestamptz 'epoch' + %s * interval '1 microsecond'")


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(SCHEMA, snake_case(name))


def _keys(entity: Entity) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(snake_case(k.name)) for k in entity.keys)


def _places(entity: Entity) -> sql.Composed:
    return sql.SQL(", ").join([sql.Placeholder()] * len(entity.keys))


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.value for outcome in outcomes]
