"""
Every event twice, in every order, in every split into batches, on the model.

Orders are not run one after the other: two of them that have had the same events, and have left
the same rows, go on alike.  So each state is left by every possible next batch, once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from storemirror.event.change import RowState
from storemirror.sql.port import RowEvent
from tests.exhaustive.backend import ScheduleFailed
from tests.exhaustive.documents import (
    CONTENTS_COUNT,
    Document,
    built_in_model,
    documents,
    event_of,
)
from tests.exhaustive.store import Aggregates, Key, PureMirror, Row, latest_of
from tests.support.histories import HISTORIES

_START_US = 1_800_000_000_000_000
#: The first document of each entity.
ENTITIES = ("DmConversation", "DmMessage", "FollowEdge", "UserBlock")
#: How often each event of the history is still to come.
Left = tuple[int, ...]
_State = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class OrdersDone:
    """How much was covered."""

    #: Orders times splits.
    schedule_count: int
    #: Batches that were really applied.
    batch_count: int


def schedule_count(change_count: int) -> int:
    """
    Tell in how many ways that many changes, each twice, can arrive: orders times splits.

    >>> [schedule_count(count) for count in (1, 2, 3, 4)]
    [2, 48, 2880, 322560]
    """
    delivery_count = 2 * change_count
    order_count = math.factorial(delivery_count) // (1 << change_count)
    return order_count << (delivery_count - 1)


def history_events(
    document: Document, history: str, *, start_us: int = _START_US
) -> list[RowEvent]:
    """Give the changes of one document, oldest first: W writes it, D deletes it."""
    events = []
    for number, verb in enumerate(history):
        at_us = start_us + 10 * number
        if verb == "W":
            contents = (number + 1) % CONTENTS_COUNT
            events.append(event_of(document, contents, commit_time_us=at_us))
        else:
            events.append(event_of(document, None, commit_time_us=at_us - 10))
    return events


def next_batches(left: Left) -> Iterator[tuple[int, ...]]:
    """
    Give every batch that can come next: every order of every choice of what is left.

    >>> list(next_batches((1, 1)))
    [(0,), (0, 1), (1,), (1, 0)]
    """
    for change, count in enumerate(left):
        if count:
            yield (change,)
            rest = (*left[:change], count - 1, *left[change + 1 :])
            for batch in next_batches(rest):
                yield (change, *batch)


def run_orders(entity: str, history: str, kind: type[PureMirror] = PureMirror) -> OrdersDone:
    """
    Reach every state that a history, every event twice, can lead to, and look at each.

    Raises:
        ScheduleFailed: rows, aggregates or audit are not what the events so far make them.
    """
    document = next(d for d in documents() if d.entity.name == entity)
    events = history_events(document, history)
    start = kind(built_in_model(), lambda: _START_US)
    todo: list[tuple[Left, PureMirror]] = [((2,) * len(events), start)]
    seen: set[tuple[Left, _State]] = set()
    batch_count = 0
    while todo:
        left, mirror = todo.pop()
        for batch in next_batches(left):
            batch_count += 1
            reached = kind(mirror.model, mirror.now_us)
            reached.rows, reached.audit = mirror.snapshot(), set(mirror.audit)
            reached.apply([events[index] for index in batch])
            rest = tuple(n - batch.count(i) for i, n in enumerate(left))
            state = (rest, _state_of(reached))
            if state not in seen:
                seen.add(state)
                _look(reached, document, [e for e, n in zip(events, rest, strict=True) if n < 2])
                todo.append((rest, reached))
    return OrdersDone(schedule_count(len(events)), batch_count)


def _state_of(mirror: PureMirror) -> _State:
    """Give all that a mirror holds as one value."""
    rows = tuple(
        (name, key, row.state, row.version, row.digest, _aggregates_of(row.aggregates))
        for name, table in mirror.rows.items()
        for key, row in sorted(table.items())
    )
    return (rows, frozenset(mirror.audit))


def _aggregates_of(aggregates: Aggregates | None) -> tuple[object, ...] | None:
    return None if aggregates is None else (aggregates.count, aggregates.latest)


def _look(mirror: PureMirror, document: Document, had: list[RowEvent]) -> None:
    """Compare with the newest of the events that were had: nothing else decides."""
    newest = max(had, key=lambda event: event.change.version)
    row = mirror.rows[document.entity.name].get(document.key)
    problem = _problem(row, newest)
    if document.entity.has_audit and mirror.audit != {e.change.event_id for e in had}:
        problem = "the audit has other events"
    if document.entity.rollup is not None:
        live: list[tuple[Key, Row]] = [(document.key, row)] if newest.row and row else []
        expected = (len(live), latest_of(document.entity, live))
        parent = mirror.rows[document.entity.rollup.into][document.key[:1]]
        if _aggregates_of(parent.aggregates) != expected:
            problem = "its parent's aggregates are wrong"
    if problem:
        versions = [event.change.version % 1_000 for event in had]
        raise ScheduleFailed(f"{document}, after events of the versions {versions}: {problem}")


def _problem(row: Row | None, newest: RowEvent) -> str | None:
    expected = RowState.TOMBSTONE if newest.row is None else RowState.LIVE
    if row is None or row.state is not expected:
        return f"its row is {row.state.value if row else 'absent'}, not {expected.value}"
    if row.version != newest.change.version:
        return "another version than the newest has won"
    return None if row.mapped == newest.row else "its row has other contents"


def all_cases() -> list[tuple[str, str]]:
    """Give every entity with every history, the longest first."""
    return [(entity, history) for history in reversed(HISTORIES) for entity in ENTITIES]
