"""The model of a mirror on SQL Server, as far as it differs from PostgreSQL's.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from storemirror.errors import ParentMissing
from storemirror.sql.port import RowEvent
from tests.exhaustive.store import PureMirror, parent_key_of


class GapLockingMirror(PureMirror):
    """The model of a mirror that locks the gap of an absent row, and so makes no stub of it."""

    def _lock(self, events: Iterable[RowEvent]) -> None:
        events = list(events)
        # A call of one procedure locks what it needs by itself; several lock all parents before.
        has_lock = len({(e.entity.name, e.row is None) for e in events}) > 1
        for event in events:
            rollup = event.entity.rollup
            if rollup is not None:
                is_missing = parent_key_of(event) not in self.rows[rollup.into]
            else:
                is_parent = self.model.rollup_child_of(event.entity) is not None
                is_missing = (
                    has_lock and is_parent and event.key not in self.rows[event.entity.name]
                )
            if is_missing:
                raise ParentMissing("a parent is missing")

    def _write(self, event: RowEvent) -> None:
        # A row that was absent begins as a stub does.
        self._make_stub(event.entity, event.key)
        super()._write(event)
