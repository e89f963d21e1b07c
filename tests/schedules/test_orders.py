"""
Every order of arrival in the small, on a real database.

For one document of each entity: every history of up to four changes (with deletes and
re-creations), every order in which they can arrive, any one of them repeated, every split into
batches.  Each such schedule has a document of its own, so that thousands run in the same batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from msgspec import structs

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent
from tests.contract.sql.side_door import Installed, Server
from tests.exhaustive.database_orders import apply_all, order_schedules, prepared_schedules
from tests.support.events import deleted, written
from tests.support.histories import HISTORIES, arrivals, splits
from tests.support.reference import Reference

BATCH_LIMIT = 2_000


def history_events(
    model: Model, entity: str, key: tuple[str, ...], history: str, start_us: int
) -> list[RowEvent]:
    """The changes of one document, oldest first; each write has contents of its own."""
    events = []
    for number, verb in enumerate(history):
        at_us = start_us + 10 * number
        if verb == "D":
            events.append(deleted(model, entity, key, at_us - 10))
            continue
        match entity:
            case "DmMessage":
                event = written(
                    model,
                    entity,
                    key,
                    at_us,
                    senderId=f"u{number}",
                    body=f"text {number}",
                    sentAt=start_us - number,
                )
            case "DmConversation":
                people = {f"u{i}": None if i % 2 else at_us for i in range(number, number + 2)}
                event = written(
                    model,
                    entity,
                    key,
                    at_us,
                    participants=people,
                    title=f"title {number}",
                    createdAt=start_us,
                )
            case _:
                event = written(model, entity, key, at_us, createdAt=at_us)
        events.append(event)
    return events


def steps_of(
    model: Model, entity: str, history: str, start_us: int
) -> Iterator[list[list[RowEvent]]]:
    """One schedule after the other: the batches of one document."""
    # Made once: what a change says does not depend on whose it is.
    like = history_events(model, entity, ("x", "x")[: len(model[entity].keys)], history, start_us)
    for order in arrivals(len(history)):
        for number, batches in enumerate(splits(order)):
            name = f"{history}-{''.join(map(str, order))}-{number}"
            key = (name,) if entity == "DmConversation" else (name, "x")
            events = [of_document(key, event) for event in like]
            yield [[events[index] for index in batch] for batch in batches]


def of_document(key: tuple[str, ...], event: RowEvent) -> RowEvent:
    """Give the same change of another document."""
    change = replace(event.change, path=event.entity.path_of(key))
    return structs.replace(event, key=key, change=change)


def merged(schedules: list[list[list[RowEvent]]]) -> Iterator[list[RowEvent]]:
    """Run many schedules side by side: the first batch of each, then the second of each."""
    for step in itertools.zip_longest(*schedules, fillvalue=[]):
        batch: list[RowEvent] = []
        for events in step:
            if len(batch) + len(events) > BATCH_LIMIT:
                yield batch
                batch = []
            batch = batch + events
        if batch:
            yield batch


@pytest.mark.parametrize("entity", ["DmConversation", "DmMessage", "FollowEdge", "UserBlock"])
async def test_every_order_of_arrival_ends_as_the_model_says(entity: str, server: Server) -> None:
    """Arrival order, repetition and batching decide neither rows, children, roll-ups nor audit."""
    model = load_model()
    start_us = SystemClock().now_us() - 3_600_000_000
    under_test = await server.installed(model)
    reference = Reference(model)
    for history in HISTORIES:
        schedules = list(steps_of(model, entity, history, start_us))
        for batch in merged(schedules):
            assert await under_test.mirror.apply(batch) == reference.apply(batch), history
    await under_test.assert_equal(reference)
    await newest_change_won(under_test, model, entity, start_us)


@pytest.mark.parametrize("entity", ["DmConversation", "DmMessage", "FollowEdge", "UserBlock"])
async def test_every_order_of_arrival_around_a_rebase_ends_as_the_model_says(
    entity: str, server: Server
) -> None:
    """Whatever was seen before the mark changes nothing, wherever in a batch it stands."""
    model = load_model()
    start_us = SystemClock().now_us() - 3_600_000_000
    under_test = await server.installed(model)
    # Of three changes two lie behind the mark, the second exactly at it.
    reference = Reference(model, rebase_mark_us=start_us + 10)
    await under_test.rebased(start_us + 10)
    for history in [h for h in HISTORIES if len(h) == 3]:
        for batch in merged(list(steps_of(model, entity, history, start_us))):
            assert await under_test.mirror.apply(batch) == reference.apply(batch), history
    await under_test.assert_equal(reference)


@pytest.mark.parametrize("entity", ["DmConversation", "DmMessage", "FollowEdge", "UserBlock"])
async def test_every_event_twice_in_every_order_ends_alike(entity: str, server: Server) -> None:
    """All orders and splits of two changes, each delivered twice, and some of four."""
    now_us = SystemClock().now_us()
    for history, count in (("WD", 48), ("WDWD", 60)):
        under_test = await server.installed(load_model())
        chosen = list(itertools.islice(order_schedules(history, seed=1), count))
        schedules = prepared_schedules(entity, history, chosen, now_us)
        await apply_all(
            under_test.model, under_test.mirror, under_test, schedules, f"{entity} {history}"
        )
        assert len(chosen) == count


async def newest_change_won(
    under_test: Installed, model: Model, entity: str, start_us: int
) -> None:
    """Hold the end against the histories themselves, not against the outcome rule."""
    key = ("x", "x")[: len(model[entity].keys)]
    versions = {
        history: history_events(model, entity, key, history, start_us)[-1].change.version
        for history in HISTORIES
    }
    async for row in under_test.mirror.rows(model[entity], after=None, up_to=None):
        history = row.key[0].split("-")[0]
        assert row.version == versions[history]
        assert row.state == ("tombstone" if history.endswith("D") else "live")
