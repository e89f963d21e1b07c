"""
What Firestore holds, and held: the reference that every schedule is compared with in the end.

It knows nothing of outcomes, rows or procedures: a document is there with contents, or it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from storemirror.event.change import Origin, RowState
from storemirror.sql.port import RowEvent
from tests.exhaustive.documents import Document, contents_of, event_of
from tests.exhaustive.store import PureMirror, Row


@dataclass(slots=True)
class Held:
    """One document as it is; it has existed."""

    #: Number of its contents; None when it is gone.
    contents: int | None
    #: Commit time of its last write, microseconds since the Unix epoch.
    update_time_us: int


@dataclass
class History:
    """Every document that ever existed."""

    documents: tuple[Document, ...]
    held: dict[int, Held] = field(default_factory=dict)

    def write(self, document: Document, contents: int, *, now_us: int) -> RowEvent:
        """Commit a write; gives what the trigger tells."""
        self.held[document.number] = Held(contents, now_us)
        return event_of(document, contents, commit_time_us=now_us)

    def delete(self, document: Document) -> RowEvent | None:
        """Delete a document that is there; gives what the trigger tells."""
        held = self.held.get(document.number)
        if held is None or held.contents is None:
            return None
        held.contents = None
        return event_of(document, None, commit_time_us=held.update_time_us)

    def read(
        self,
        document: Document,
        origin: Origin,
        *,
        now_us: int,
        expected_version: int | None = None,
    ) -> RowEvent:
        """Read a document; gives what the reader tells.  Absence is a delete at the read time."""
        held = self.held.get(document.number)
        is_there = held is not None and held.contents is not None
        return event_of(
            document,
            held.contents if held else None,
            commit_time_us=held.update_time_us if held and is_there else now_us,
            origin=origin,
            observed_at_us=now_us,
            expected_version=expected_version,
        )

    def differences(self, mirror: PureMirror) -> Iterator[str]:
        """Compare every row, and every parent's aggregates, with what Firestore ended with."""
        for document in self.documents:
            row = mirror.rows[document.entity.name].get(document.key)
            problem = self._problem(document, row)
            if problem:
                yield f"{document}: {problem}"
        for document in self.documents:
            child = mirror.model.rollup_child_of(document.entity)
            if child is not None:
                row = mirror.rows[document.entity.name].get(document.key)
                yield from self._rollup_differences(document, row)

    def _problem(self, document: Document, row: Row | None) -> str | None:
        held = self.held.get(document.number)
        if held is None:
            return "never existed, and has a live row" if row and _is_live(row) else None
        if held.contents is None:
            if row is not None and _is_live(row):
                return "was deleted, and has a live row"
            # A purge may have taken the tombstone, and a late event or a child made a stub.
            is_tombstone = row is not None and row.state is RowState.TOMBSTONE
            if is_tombstone and row and row.version <= 2 * held.update_time_us:
                return "was deleted, and its tombstone has no later version than its last write"
            return None
        if row is None or not _is_live(row):
            return f"exists, and its row is {row.state.value if row else 'absent'}"
        if row.version != 2 * held.update_time_us:
            behind_us = held.update_time_us - row.version // 2
            return f"its row's version is {behind_us} microseconds behind its last write"
        if (
            row.mapped is None
            or row.digest != (expected := contents_of(document.entity.name, held.contents)).digest
        ):
            return "its row's digest is not that of its contents"
        if (row.mapped.columns, row.mapped.children) != (
            expected.row.columns,
            expected.row.children,
        ):
            return "its row has other contents"
        return None

    def _rollup_differences(self, parent: Document, row: Row | None) -> Iterator[str]:
        """Count the messages that Firestore has, and find the latest of them."""
        live = [
            (str(mapped.columns["sentAt"]), document.key[-1], mapped)
            for document in self.documents
            if document.entity.name == "DmMessage" and document.key[:1] == parent.key
            if (held := self.held.get(document.number)) and held.contents is not None
            for mapped in [contents_of("DmMessage", held.contents).row]
        ]
        if row is None:
            if live:
                yield f"{parent}: has {len(live)} messages, and no row"
            return
        aggregates = row.aggregates
        if aggregates is None or aggregates.count != len(live):
            count = aggregates.count if aggregates else None
            yield f"{parent}: has {len(live)} messages, and its row counts {count}"
            return
        expected = None
        if live:
            sent_at, message_id, mapped = max(live, key=lambda one: one[:2])
            body = mapped.columns["body"]
            expected = (message_id, sent_at, body[:140] if isinstance(body, str) else None)
        if aggregates.latest != expected:
            yield f"{parent}: its row names another latest message"


def _is_live(row: Row) -> bool:
    return row.state is RowState.LIVE
