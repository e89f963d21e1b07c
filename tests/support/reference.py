"""
What the mirror must hold, computed in memory by the pure outcome rule.

The SQL stage is compared with this after every schedule.  Aggregates are counted anew from the
rows each time they are asked for, so that they cannot share a mistake with a count by delta.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from storemirror.clock import us_from_rfc3339
from storemirror.event.change import (
    Incoming,
    Outcome,
    RowState,
    StoredRow,
    decide_outcome,
)
from storemirror.model.entity import Entity, Model
from storemirror.sql.port import RowEvent

Key = tuple[str, ...]


@dataclass(slots=True)
class ReferenceRow:
    """One row, and the event that made it."""

    state: RowState
    version: int
    digest: str
    mapping_revision: int
    event: RowEvent

    @property
    def stored(self) -> StoredRow:
        """What the outcome rule needs of it."""
        return StoredRow(
            state=self.state,
            version=self.version,
            digest=self.digest,
            mapping_revision=self.mapping_revision,
        )


@dataclass(slots=True)
class Reference:
    """The mirror as it must be."""

    model: Model
    mapping_revision: int = 1
    horizon_us: dict[str, int] = field(default_factory=dict)
    rebase_mark_us: int | None = None
    rows: dict[tuple[str, Key], ReferenceRow] = field(default_factory=dict)
    audit: dict[str, RowEvent] = field(default_factory=dict)

    def apply(self, events: Sequence[RowEvent]) -> list[Outcome]:
        """Apply one batch: deletes before writes, then by descending version, see the port."""
        outcomes: dict[int, Outcome] = {}
        for index in sorted(range(len(events)), key=lambda i: _batch_order(events[i], i)):
            outcomes[index] = self._apply_one(events[index])
        return [outcomes[index] for index in range(len(events))]

    def _apply_one(self, event: RowEvent) -> Outcome:
        where = (event.entity.name, event.key)
        change = event.change
        row = self.rows.get(where)
        stored = None if row is None else row.stored
        incoming = Incoming(
            version=change.version,
            origin=change.origin,
            observed_at_us=change.observed_at_us,
            digest=change.digest,
            mapping_revision=self.mapping_revision,
            expected_version=change.expected_version,
        )
        horizon_us = self.horizon_us.get(event.entity.name)
        outcome = decide_outcome(
            incoming, stored, purge_horizon_us=horizon_us, rebase_mark_us=self.rebase_mark_us
        )
        if outcome in (Outcome.APPLIED, Outcome.REPAIRED):
            self.rows[where] = ReferenceRow(
                state=RowState.TOMBSTONE if change.is_deleted else RowState.LIVE,
                version=change.version,
                digest=change.digest,
                mapping_revision=self.mapping_revision,
                event=event,
            )
        if event.entity.has_audit:
            self.audit[change.event_id] = event
        return outcome

    def contents(self, entity: Entity, key: Key) -> dict[str, Any] | None:
        """Give a row as (state, version, digest, columns, children); None when there is none."""
        row = self.rows.get((entity.name, key))
        if row is None:
            return None
        mapped = row.event.row
        return {
            "state": row.state,
            "version": row.version,
            "digest": row.digest,
            "columns": {c.name: mapped.columns[c.name] if mapped else None for c in entity.columns},
            "children": {
                t.name: {
                    str(r[t.key.name]): {c.name: r[c.name] for c in t.columns}
                    for r in (mapped.children[t.name] if mapped else ())
                }
                for t in entity.children
            },
        }

    def rollup(self, child: Entity, parent_key: Key) -> dict[str, Any]:
        """Count the live children of a parent and find the latest, from the rows themselves."""
        assert child.rollup is not None
        live = [
            row.event
            for (name, key), row in self.rows.items()
            if name == child.name
            and key[: len(parent_key)] == parent_key
            and row.state is RowState.LIVE
        ]
        return rollup_of(child, live)


def rollup_of(child: Entity, live: Iterable[RowEvent]) -> dict[str, Any]:
    """Give the parent's roll-up columns for these live children."""
    assert child.rollup is not None
    live = list(live)
    found: dict[str, Any] = {}
    if child.rollup.count:
        found[child.rollup.count] = len(live)
    latest = max(live, key=lambda e: _latest_order(child, e), default=None)
    for column in child.rollup.latest:
        value = None if latest is None else _value(child, latest, column.source)
        cut = column.max_code_points
        found[column.target] = value[:cut] if cut and isinstance(value, str) else value
    return found


def _latest_order(child: Entity, event: RowEvent) -> tuple[int, bytes]:
    assert child.rollup is not None
    assert child.rollup.latest_by is not None
    by = _value(child, event, child.rollup.latest_by)
    return us_from_rfc3339(str(by)), event.key[-1].encode()


def _value(child: Entity, event: RowEvent, name: str) -> Any:
    keys = dict(zip((k.name for k in child.keys), event.key, strict=True))
    assert event.row is not None
    return keys[name] if name in keys else event.row.columns[name]


def _batch_order(event: RowEvent, index: int) -> tuple[bool, int, bool, int]:
    change = event.change
    return (
        not change.is_deleted,
        -change.version,
        not change.origin.is_full_observation,
        index,
    )
