"""
A mirror in memory that applies events as the procedures do, step by step.

Unlike `tests.support.reference` it keeps stubs, counts by delta, looks the latest up after the
writes, and purges: what is compared with the history is the procedures' way of working, not only
their result.  Each rule is a method of its own, so that a fault can be planted in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from storemirror.errors import EventRefused, ParentMissing, SqlUnavailable
from storemirror.event.change import (
    Incoming,
    Outcome,
    RowState,
    StoredRow,
    decide_outcome,
)
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import MappedRow
from storemirror.sql.port import RowEvent

Key = tuple[str, ...]
MINUTE_US = 60_000_000
#: What a purge adds to the newest removed row's `applied_at`: versions from the future are taken.
PURGE_SKEW_US = 5 * MINUTE_US
PURGE_OLDER_THAN_US = 10 * MINUTE_US
REVISION = 1


@dataclass(slots=True)
class Aggregates:
    """What a parent's row says of its children."""

    count: int = 0
    #: The columns of the latest, as declared; None when there is none.
    latest: tuple[object, ...] | None = None


@dataclass(slots=True)
class Row:
    """One row as it is stored."""

    state: RowState
    version: int
    digest: str
    applied_at_us: int
    #: Columns and child rows; None unless live.
    mapped: MappedRow | None
    #: Of a roll-up parent only.
    aggregates: Aggregates | None

    def copied(self) -> Row:
        """Give a row that changes by itself."""
        aggregates = None if self.aggregates is None else replace(self.aggregates)
        return replace(self, aggregates=aggregates)


Rows = dict[str, dict[Key, Row]]


def parent_key_of(event: RowEvent) -> Key:
    """Give the key of the roll-up parent's row."""
    return event.key[: event.entity.parent_key_count]


@dataclass
class PureMirror:
    """Rows, audit and purge horizons of one mirror."""

    model: Model
    #: The database's clock.
    now_us: Callable[[], int]
    rows: Rows = field(default_factory=dict)
    audit: set[str] = field(default_factory=set)
    horizon_us: dict[str, int] = field(default_factory=dict)
    rebase_mark_us: int | None = None
    #: Paths whose events the database refuses, and how many calls it will not answer.
    refused_paths: set[str] = field(default_factory=set)
    outage_count: int = 0

    def __post_init__(self) -> None:
        """Have a table for every entity."""
        self.rows = {entity.name: {} for entity in self.model}

    def meet_trouble(self, events: Sequence[RowEvent]) -> None:
        """Fail as the database would, when it is in trouble or refuses one of the events."""
        if self.outage_count:
            self.outage_count -= 1
            raise SqlUnavailable("the database does not answer, as the schedule wants it")
        if self.refused_paths and any(e.change.path in self.refused_paths for e in events):
            raise EventRefused("the database refuses it, as the schedule wants it")

    def apply(self, events: Sequence[RowEvent], *, began: Rows | None = None) -> list[Outcome]:
        """
        Apply a batch in one transaction, stubs first.

        Args:
            events: see `SqlMirror.apply`.
            began: the rows as they were when the transaction began, if it then waited for
                another's locks.  Nothing sound reads them.
        """
        try:
            return self._apply_once(events, began)
        except ParentMissing:
            self.ensure_parents(events)
            return self._apply_once(events, began)

    def _apply_once(self, events: Sequence[RowEvent], began: Rows | None) -> list[Outcome]:
        self._lock(events)
        outcomes: list[Outcome | None] = [None] * len(events)
        calls: dict[tuple[str, bool], list[int]] = {}
        for index, event in enumerate(events):
            calls.setdefault((event.entity.name, event.row is not None), []).append(index)
        for entity in self.model:
            for is_write in (False, True):
                indexes = calls.get((entity.name, is_write))
                if indexes:
                    self._call(entity, events, indexes, outcomes, began)
        return [outcome for outcome in outcomes if outcome is not None]

    def _lock(self, events: Iterable[RowEvent]) -> None:
        """Lock rows: parents must be there; of entities without one the absent become stubs."""
        for event in events:
            rollup = event.entity.rollup
            if rollup is not None and parent_key_of(event) not in self.rows[rollup.into]:
                raise ParentMissing("a parent is missing")
        for event in events:
            if event.entity.rollup is None:
                self._make_stub(event.entity, event.key)

    def ensure_parents(self, events: Iterable[RowEvent]) -> None:
        """Make stubs of missing roll-up parents, and of missing rows that may be such."""
        for event in events:
            entity = event.entity
            if entity.rollup is not None:
                parent = self.model[entity.rollup.into]
                self._make_stub(parent, parent_key_of(event))
            elif self.model.rollup_child_of(entity) is not None:
                self._make_stub(entity, event.key)

    def abort(self, events: Sequence[RowEvent]) -> None:
        """Die inside the transaction: only the stubs stay, if it was found that some are needed."""
        procedures = {(e.entity.name, e.row is None) for e in events}
        for event in events:
            entity = event.entity
            if entity.rollup is not None:
                is_missing = parent_key_of(event) not in self.rows[entity.rollup.into]
            else:
                is_missing = (
                    len(procedures) > 1
                    and self.model.rollup_child_of(entity) is not None
                    and event.key not in self.rows[entity.name]
                )
            if is_missing:
                self.ensure_parents(events)
                return

    def _make_stub(self, entity: Entity, key: Key) -> None:
        rows = self.rows[entity.name]
        if key not in rows:
            is_parent = self.model.rollup_child_of(entity) is not None
            aggregates = Aggregates() if is_parent else None
            rows[key] = Row(RowState.STUB, 0, "", self.now_us(), None, aggregates)

    def _call(
        self,
        entity: Entity,
        events: Sequence[RowEvent],
        indexes: Sequence[int],
        outcomes: list[Outcome | None],
        began: Rows | None,
    ) -> None:
        """Run one procedure: classify and write, audit, roll up."""
        before = self._before_call(entity)
        deltas: dict[Key, int] = {}
        recounted: set[Key] = set()
        for index in self._in_order(events, indexes):
            event = events[index]
            row = self._stored(entity, event.key, began)
            outcome = self._decide(event, row)
            outcomes[index] = outcome
            if outcome in (Outcome.APPLIED, Outcome.REPAIRED):
                was_live = row is not None and row.state is RowState.LIVE
                self._write(event)
                if entity.rollup is not None:
                    parent = parent_key_of(event)
                    delta = self._delta(was_live=was_live, is_live=event.row is not None)
                    deltas[parent] = deltas.get(parent, 0) + delta
                    if outcome is Outcome.REPAIRED:
                        recounted.add(parent)
            if entity.has_audit:
                self._audit(event, outcome)
        for parent, delta in deltas.items():
            self._roll_up(entity, parent, delta, before, is_recounted=parent in recounted)

    def _before_call(self, entity: Entity) -> dict[Key, Row] | None:
        """Keep the rows as they were before the writes.  Nothing sound reads them."""
        del entity
        return None

    def _in_order(self, events: Sequence[RowEvent], indexes: Sequence[int]) -> Sequence[int]:
        """Order a call's events: descending version, full observations first, then as given."""
        if len(indexes) == 1:
            return indexes
        return sorted(
            indexes,
            key=lambda i: (
                -events[i].change.version,
                not events[i].change.origin.is_full_observation,
                i,
            ),
        )

    def _stored(self, entity: Entity, key: Key, began: Rows | None) -> Row | None:
        """Read the row as it is once its lock is had."""
        del began
        return self.rows[entity.name].get(key)

    def _decide(self, event: RowEvent, row: Row | None) -> Outcome:
        change = event.change
        incoming = Incoming(
            version=change.version,
            origin=change.origin,
            observed_at_us=change.observed_at_us,
            digest=change.digest,
            mapping_revision=REVISION,
            expected_version=change.expected_version,
        )
        stored = None
        if row is not None:
            stored = StoredRow(
                state=row.state,
                version=row.version,
                digest=row.digest,
                mapping_revision=REVISION if row.state is not RowState.STUB else 0,
            )
        horizon_us = self.horizon_us.get(event.entity.name)
        return decide_outcome(
            incoming, stored, purge_horizon_us=horizon_us, rebase_mark_us=self.rebase_mark_us
        )

    def _write(self, event: RowEvent) -> None:
        rows = self.rows[event.entity.name]
        old = rows.get(event.key)
        rows[event.key] = Row(
            state=RowState.TOMBSTONE if event.row is None else RowState.LIVE,
            version=event.change.version,
            digest=event.change.digest,
            applied_at_us=self.now_us(),
            mapped=event.row,
            aggregates=None if old is None else old.aggregates,
        )

    def _audit(self, event: RowEvent, outcome: Outcome) -> None:
        del outcome
        self.audit.add(event.change.event_id)

    def _delta(self, *, was_live: bool, is_live: bool) -> int:
        return int(is_live) - int(was_live)

    def _roll_up(
        self,
        entity: Entity,
        parent: Key,
        delta: int,
        before: dict[Key, Row] | None,
        *,
        is_recounted: bool,
    ) -> None:
        """Count by delta, after a repair anew; look the latest up.  `before`: not to be read."""
        del before
        assert entity.rollup is not None
        aggregates = self.rows[entity.rollup.into][parent].aggregates
        assert aggregates is not None
        live = self.live_children(self.rows[entity.name], parent)
        aggregates.count = len(live) if is_recounted else aggregates.count + delta
        aggregates.latest = latest_of(entity, live)

    @staticmethod
    def live_children(rows: dict[Key, Row], parent: Key) -> list[tuple[Key, Row]]:
        """Give the live rows under a parent."""
        width = len(parent)
        return [
            (key, row)
            for key, row in rows.items()
            if row.state is RowState.LIVE and key[:width] == parent
        ]

    def recompute(self, entity: Entity) -> None:
        """Set every parent's aggregates from the rows."""
        assert entity.rollup is not None
        for key, row in self.rows[entity.rollup.into].items():
            live = self.live_children(self.rows[entity.name], key)
            row.aggregates = Aggregates(len(live), latest_of(entity, live))

    def purge(self, entity: Entity, *, dies_between: bool) -> int:
        """Raise the horizon, then remove old tombstones and stubs without children."""
        limit_us = self.now_us() - PURGE_OLDER_THAN_US
        rows = self.rows[entity.name]
        old = [
            row.applied_at_us
            for key, row in rows.items()
            if self._is_purged(entity, key, row) and row.applied_at_us < limit_us
        ]
        if not old:
            return 0
        newest_us = max(old)
        self._raise_horizon(entity, newest_us)
        if dies_between:
            return 0
        gone = [
            key
            for key, row in rows.items()
            if row.applied_at_us <= newest_us and self._is_purged(entity, key, row)
        ]
        for key in gone:
            del rows[key]
        return len(gone)

    def _is_purged(self, entity: Entity, key: Key, row: Row) -> bool:
        if row.state is RowState.LIVE:
            return False
        child = self.model.rollup_child_of(entity)
        return child is None or not any(k[: len(key)] == key for k in self.rows[child.name])

    def _raise_horizon(self, entity: Entity, newest_us: int) -> None:
        before_us = self.horizon_us.get(entity.name, 0)
        self.horizon_us[entity.name] = max(before_us, newest_us + PURGE_SKEW_US)

    def snapshot(self) -> Rows:
        """Copy the rows as a transaction that begins at this moment would see them."""
        return {
            name: {key: row.copied() for key, row in rows.items()}
            for name, rows in self.rows.items()
        }


def latest_of(entity: Entity, live: Iterable[tuple[Key, Row]]) -> tuple[object, ...] | None:
    """Give the declared columns of the latest child: by its time, then by its own id."""
    rollup = entity.rollup
    assert rollup is not None
    assert rollup.latest_by is not None
    by = rollup.latest_by
    # Times are RFC 3339 in UTC with six decimals: they sort as text.
    found = max(
        ((str(row.mapped.columns[by]), key, row.mapped) for key, row in live if row.mapped),
        key=lambda one: one[:2],
        default=None,
    )
    if found is None:
        return None
    _, key, mapped = found
    return tuple(
        key[-1]
        if column.source == entity.keys[-1].name
        else _cut(mapped.columns[column.source], column.max_code_points)
        for column in rollup.latest
    )


def _cut(value: object, max_code_points: int | None) -> object:
    return value[:max_code_points] if isinstance(value, str) and max_code_points else value
