"""
Every event twice, in every order, in every split into batches, on a database as far as it fits.

Each such schedule has a document of its own, so that hundreds run in the same batches.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.sql.port import RowEvent, SqlMirror
from tests.exhaustive.backend import ScheduleFailed
from tests.exhaustive.database import Session
from tests.exhaustive.documents import Document, built_in_model
from tests.exhaustive.orders import history_events, schedule_count
from tests.support.histories import doubled_arrivals, splits
from tests.support.mirrors import Audited, assert_equal
from tests.support.reference import Reference

#: Histories with more schedules than this are sampled.
ALL_LIMIT = 5_000
#: Schedules that run side by side.
CHUNK = 400
BATCH_LIMIT = 2_000
Batches = list[list[int]]


def order_schedules(history: str, seed: int) -> Iterator[Batches]:
    """Give every order and split of a history; where they are too many, random ones for ever."""
    count = len(history)
    if schedule_count(count) <= ALL_LIMIT:
        for order in doubled_arrivals(count):
            yield from splits(order)
        return
    rng = random.Random(f"{seed}-{history}")
    while True:
        order = tuple(rng.sample([*range(count), *range(count)], 2 * count))
        cuts = sorted(rng.sample(range(1, 2 * count), rng.randrange(2 * count)))
        yield [list(order[a:b]) for a, b in itertools.pairwise([0, *cuts, 2 * count])]


def has_orders(history: str, first: int) -> bool:
    """Tell whether a history has a schedule of that number."""
    count = schedule_count(len(history))
    return count > ALL_LIMIT or first < count


def run_database_orders(
    session: Session, entity: str, history: str, *, seed: int, first: int, count: int = CHUNK
) -> int:
    """
    Run some of a history's schedules, and compare outcomes, rows, aggregates and audit.

    Returns:
        How many there were, of `count`, from number `first` on; 0 when there are no more.

    Raises:
        ScheduleFailed: an outcome, or the end, is not the reference's.
    """
    chosen = list(itertools.islice(order_schedules(history, seed), first, first + count))
    if not chosen:
        return 0
    now_us = SystemClock().now_us()
    prepared = prepared_schedules(entity, history, chosen, now_us)
    session.clear()
    name = f"{entity} {history}, from {first}"
    session.run(apply_all(session.model, session.other, session.installed, prepared, name))
    return len(chosen)


def prepared_schedules(
    entity: str, history: str, schedules: Sequence[Batches], now_us: int
) -> list[list[list[RowEvent]]]:
    """Give the batches of each schedule as events, each schedule with a document of its own."""
    return [
        [[_document_events(entity, history, n, now_us)[i] for i in batch] for batch in batches]
        for n, batches in enumerate(schedules)
    ]


def _document_events(entity: str, history: str, number: int, now_us: int) -> list[RowEvent]:
    found = built_in_model()[entity]
    key = (f"d{number:05}", "x")[: len(found.keys)]
    document = Document(number, found, key, found.path_of(key))
    return history_events(document, history, start_us=now_us - 3_600_000_000)


async def apply_all(
    model: Model,
    mirror: SqlMirror,
    audited: Audited,
    schedules: Sequence[Sequence[Sequence[RowEvent]]],
    name: str,
) -> None:
    """
    Apply schedules side by side to an empty mirror, and compare outcomes and end.

    Args:
        model: the declarations.
        mirror: in any dialect.
        audited: the same, for what is read in the end.
        schedules: what `prepared_schedules` gives.
        name: for the error.

    Raises:
        ScheduleFailed: an outcome, or the end, is not the reference's.
    """
    reference = Reference(model)
    for step in itertools.zip_longest(*schedules, fillvalue=()):
        events = [event for batch in step for event in batch]
        for start in range(0, len(events), BATCH_LIMIT):
            batch = events[start : start + BATCH_LIMIT]
            if await mirror.apply(batch) != reference.apply(batch):
                raise ScheduleFailed(f"{name}: outcomes differ from the rule's")
    try:
        await assert_equal(audited, reference)
    except AssertionError as exc:
        raise ScheduleFailed(f"{name}: {exc}") from exc
