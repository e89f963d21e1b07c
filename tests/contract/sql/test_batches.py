"""
Several events of one document in one batch end as if they had come one after the other.

By descending version, full observations before dual writes and those before repairs, then by
their place in the array; deletes before writes.  Every triple out of an alphabet of events is
tried, each with a document of its own, and compared with the reference event by event.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from storemirror.event.change import Origin, Outcome, version_of
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed
from tests.support.reference import Key, Reference

BATCH_LIMIT = 2_000
LOW, STORED, HIGH = 10, 20, 30
FOLLOW = "FollowEdge"
Make = Callable[[Documents, Key], RowEvent]


def write(
    at: int,
    contents: int,
    origin: Origin = Origin.TRIGGER,
    *,
    expects: int | None = None,
    observed: int | None = None,
) -> Make:
    """A follow edge was written at `at`; `contents` tells documents of one version apart."""

    def make(docs: Documents, key: Key) -> RowEvent:
        expected = None if expects is None else 2 * docs.base_us + expects
        return docs.follow(
            key[0],
            key[1],
            at,
            created=contents,
            origin=origin,
            expected_version=expected,
            observed=observed,
        )

    return make


def delete(at: int, origin: Origin = Origin.TRIGGER, *, expects: int | None = None) -> Make:
    """A follow edge that had been written at `at` was deleted."""

    def make(docs: Documents, key: Key) -> RowEvent:
        expected = None if expects is None else 2 * docs.base_us + expects
        return docs.gone(FOLLOW, key, at, origin=origin, expected_version=expected)

    return make


#: On a row that is live at STORED with contents 1.
ON_A_ROW: tuple[Make, ...] = (
    write(LOW, 1),
    write(LOW, 1, Origin.REPAIR, expects=version_of(STORED, is_deleted=False)),
    write(STORED, 1),
    write(STORED, 2),
    write(STORED, 3, Origin.BACKFILL),
    write(STORED, 4, Origin.DUAL_WRITE),
    write(STORED, 5, Origin.REPAIR),
    write(STORED, 5, Origin.REPAIR, expects=version_of(HIGH, is_deleted=False)),
    write(STORED, 5, Origin.REPAIR, expects=version_of(STORED, is_deleted=True)),
    write(HIGH, 6),
    write(HIGH, 7, Origin.DUAL_WRITE),
    delete(STORED),
    delete(LOW, Origin.REPAIR, expects=version_of(STORED, is_deleted=False)),
)
#: Where there is no row, and the horizon lies at STORED.
ON_NOTHING: tuple[Make, ...] = (
    write(LOW, 1),
    write(LOW, 1, Origin.REREAD, observed=HIGH),
    write(LOW, 2, Origin.REPAIR, observed=HIGH),
    write(STORED, 1),
    write(STORED, 2, Origin.DUAL_WRITE),
    write(STORED, 3, Origin.BACKFILL, observed=HIGH),
    write(HIGH, 4),
    delete(LOW),
    delete(HIGH),
)


def triples(alphabet: Sequence[Make]) -> Iterator[tuple[Key, tuple[Make, ...]]]:
    """Every arrangement of three events, repeats included, with a key each."""
    for number, triple in enumerate(itertools.product(alphabet, repeat=3)):
        yield (f"t{number:05}", "x"), triple


def chunks(
    items: Sequence[tuple[Key, tuple[Make, ...]]], size: int
) -> Iterator[Sequence[tuple[Key, tuple[Make, ...]]]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def outcomes_equal(
    sql: Installed, docs: Documents, reference: Reference, alphabet: Sequence[Make]
) -> None:
    """Apply all triples and compare outcomes, then rows."""
    for chunk in chunks(list(triples(alphabet)), BATCH_LIMIT // 3):
        events = [make(docs, key) for key, triple in chunk for make in triple]
        found = await sql.mirror.apply(events)
        expected = reference.apply(events)
        wrong = [
            (key, found[3 * i : 3 * i + 3], expected[3 * i : 3 * i + 3])
            for i, (key, _) in enumerate(chunk)
            if found[3 * i : 3 * i + 3] != expected[3 * i : 3 * i + 3]
        ]
        assert wrong == []
    await sql.assert_equal(reference)


async def test_events_of_one_row_settle_in_order(sql: Installed, docs: Documents) -> None:
    """Repairs and other contents of one version need further rounds in the procedure."""
    reference = Reference(sql.model)
    for chunk in chunks(list(triples(ON_A_ROW)), BATCH_LIMIT):
        events = [write(STORED, 1)(docs, key) for key, _ in chunk]
        assert await sql.mirror.apply(events) == reference.apply(events)
    await outcomes_equal(sql, docs, reference, ON_A_ROW)


async def test_events_of_no_row_settle_in_order(sql: Installed, docs: Documents) -> None:
    """An expired event settles nothing for those behind it."""
    reference = Reference(sql.model, horizon_us={FOLLOW: docs.base_us + STORED})
    await sql.set_horizon(sql.model[FOLLOW], docs.base_us + STORED)
    await outcomes_equal(sql, docs, reference, ON_NOTHING)


async def test_a_key_with_many_rounds_keeps_every_outcome(sql: Installed, docs: Documents) -> None:
    """Each repair waits for the one before it; the places of the outcomes must not slip."""
    reference = Reference(sql.model)
    events = [write(STORED, n, Origin.REPAIR)(docs, (f"a{n % 3}", "x")) for n in range(40)]
    events += [write(STORED, n)(docs, (f"a{n % 3}", "x")) for n in range(40)]
    assert await sql.mirror.apply(events) == reference.apply(events)
    await sql.assert_equal(reference)


@pytest.mark.parametrize("places", [(0, 1), (1, 0)], ids=["write first", "delete first"])
async def test_deletes_of_a_batch_come_before_its_writes(
    places: tuple[int, int], sql: Installed, docs: Documents
) -> None:
    """One order for all callers: which of the two was received first decides nothing."""
    events = [docs.follow("a", "b", LOW), docs.gone(FOLLOW, ("a", "b"), LOW)]
    outcomes = [Outcome.STALE, Outcome.APPLIED]
    found = await sql.mirror.apply([events[place] for place in places])
    assert found == [outcomes[place] for place in places]
