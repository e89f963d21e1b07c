"""
Schedules on a database: through the real adapter and procedures, beside the model in memory.

Every outcome and, in the end, every row is compared with the model's; the model is compared with
what Firestore ended with.  Two writers have a connection each; one of them can be held inside its
transaction, at a chosen point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from storemirror import loop
from storemirror.clock import SystemClock
from storemirror.errors import SqlUnavailable
from storemirror.event.change import Outcome
from storemirror.model.entity import Entity, Model
from storemirror.sql.port import MirrorRow, RowEvent, SqlMirror
from tests.contract.sql.side_door import Installed
from tests.exhaustive.backend import NowUs, ScheduleFailed, damage
from tests.exhaustive.documents import Document, contents_of
from tests.exhaustive.store import Aggregates, Key, PureMirror, Row
from tests.support.gates import POINTS
from tests.support.mirrors import contents_of_row, plain

_T = TypeVar("_T")


class Gates(Protocol):
    """Holds one of two writers inside its transaction.  `Task`: one that applies a batch."""

    def closed(self, point: str) -> AbstractAsyncContextManager[None]:
        """Close one gate; open it at the end."""
        ...

    async def wait_for_gated(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the gated writer stands at the gate, or is done; tells whether it stands."""
        ...

    async def wait_for_other(self, task: asyncio.Task[Any]) -> bool:
        """Wait until the other writer is held up by it, or is done; tells the former."""
        ...

    async def kill_gated(self) -> None:
        """End the gated writer's transaction, and wait until it is gone."""
        ...


class Session(Protocol):
    """One place with the schema installed, two writers, and a loop to run them on."""

    @property
    def model(self) -> Model:
        """Give the declarations."""
        ...

    @property
    def installed(self) -> Installed:
        """Give the mirror past the writers."""
        ...

    @property
    def gated(self) -> SqlMirror:
        """Give the writer that the gates hold."""
        ...

    @property
    def other(self) -> SqlMirror:
        """Give the writer beside it."""
        ...

    @property
    def gates(self) -> Gates:
        """Give what holds the gated writer."""
        ...

    def expected(self, now_us: NowUs) -> PureMirror:
        """Give the model of such a mirror, without rows."""
        ...

    def run(self, work: Coroutine[object, object, _T]) -> _T:
        """Run to the end."""
        ...

    def clear(self) -> None:
        """Remove every row."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class OnLoop:
    """The part of a session that runs coroutines, on a loop of its own."""

    def __init__(self) -> None:
        """Make the loop."""
        self._runner = asyncio.Runner(loop_factory=loop.new_event_loop)

    def run(self, work: Coroutine[object, object, _T]) -> _T:
        """See `Session.run`."""
        # `Runner.run` would set a signal handler each time.
        return self._runner.get_loop().run_until_complete(work)

    def close(self) -> None:
        """See `Session.close`."""
        self._runner.close()


class DatabaseBackend:
    """See `Backend`."""

    def __init__(self, session: Session, now_us: NowUs) -> None:
        """Start without rows."""
        self._session = session
        self._now_us = now_us
        self.model = session.expected(now_us)
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
            is_other_held = await gates.wait_for_other(other)
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
            raised_us = self.model.horizon_us.get(entity_name)
            if raised_us is not None:
                self._session.run(self._session.installed.set_horizon(entity, raised_us))
            return
        count = self._session.run(self._purge(entity))
        expected = self.model.purge(entity, dies_between=False)
        if count != expected:
            raise ScheduleFailed(f"a purge of {entity_name} took {count} rows, not {expected}")
        horizon_us = self._session.run(self._session.installed.horizon_us(entity))
        if horizon_us != self.model.horizon_us.get(entity_name):
            raise ScheduleFailed(f"the purge horizon of {entity_name} differs")

    async def _purge(self, entity: Entity) -> int:
        """Purge at the schedule's time: the rows' times are moved to the machine's, and back."""
        shift_us = SystemClock().now_us() - self._now_us()
        rows = self.model.rows[entity.name]
        moments = {key: row.applied_at_us + shift_us for key, row in rows.items()}
        await self._session.installed.set_applied_at(entity, moments)
        await self._move_horizon(entity, shift_us)
        count = await self._session.other.purge(entity, older_than_s=600.0, max_count=1_000)
        await self._move_horizon(entity, -shift_us)
        return count

    async def _move_horizon(self, entity: Entity, shift_us: int) -> None:
        horizon_us = await self._session.installed.horizon_us(entity)
        if horizon_us is not None:
            await self._session.installed.set_horizon(entity, horizon_us + shift_us)

    def damage(self, document: Document, kind: int) -> None:
        """See `Backend.damage`."""
        damage(self.model, document, kind)
        self._session.run(self._damage(document, kind))

    async def _damage(self, document: Document, kind: int) -> None:
        entity, key, installed = document.entity, document.key, self._session.installed
        row = self.model.rows[entity.name][key]
        if kind == 0:
            await installed.damage(entity, [key], version=row.version)
        elif kind == 1 or row.aggregates is None:
            await installed.damage_contents(entity, key, contents_of(entity.name, 0).row.columns)
            await installed.damage_children(entity, key)
        else:
            await installed.damage_rollup(entity, key, "messageCount", row.aggregates.count)

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


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.value for outcome in outcomes]
