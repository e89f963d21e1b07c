"""
Every line of the outcome table, on the real database, equals `decide_outcome`.

Each case has a document of its own, so that more than a thousand run in one call.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from storemirror.event.change import (
    Incoming,
    Origin,
    Outcome,
    RowState,
    StoredRow,
    decide_outcome,
    version_of,
)
from storemirror.event.digest import digest_of
from storemirror.model.entity import Model
from storemirror.sql.port import RowEvent
from tests.contract.sql.side_door import Installed
from tests.support.events import deleted, written
from tests.support.reference import Key

#: The stored rows' commit time, above `base_us`; events lie at it, 10 below and 10 above.
STORED_AT = 1_000
ENTITIES = ("DmConversation", "DmMessage", "FollowEdge", "UserBlock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One stored row and one event for it."""

    is_tombstone: bool
    #: Where the event's commit time lies, beside the stored row's.
    offset: int
    is_delete: bool
    origin: Origin
    #: Mapping revision that the stored row is given; events have 1.
    revision: int
    is_same_digest: bool
    #: "none", "the row's", "another": the event's expectedVersion.
    expects: str

    @property
    def stored_version(self) -> int:
        """Give the stored version above that of `base_us`."""
        return version_of(STORED_AT, is_deleted=self.is_tombstone)

    def key(self, number: int, entity: str) -> Key:
        """Give each case its document."""
        return (f"k{number:05}",) if entity == "DmConversation" else (f"k{number:05}", "x")


def cases() -> Iterator[Case]:
    """Every stored row with every event."""
    for is_tombstone, offset, is_delete, origin, revision, is_same, expects in itertools.product(
        (False, True),
        (-10, 0, 10),
        (False, True),
        Origin,
        (0, 1, 2),
        (True, False),
        ("none", "the row's", "another"),
    ):
        yield Case(
            is_tombstone=is_tombstone,
            offset=offset,
            is_delete=is_delete,
            origin=origin,
            revision=revision,
            is_same_digest=is_same,
            expects=expects,
        )


def stored_event(model: Model, entity: str, case: Case, key: Key, base_us: int) -> RowEvent:
    """The event that makes the stored row."""
    if case.is_tombstone:
        return deleted(model, entity, key, base_us + STORED_AT)
    return full(model, entity, key, base_us + STORED_AT, base_us)


def full(
    model: Model,
    entity: str,
    key: Key,
    at_us: int,
    base_us: int,
    origin: Origin = Origin.TRIGGER,
    expected_version: int | None = None,
) -> RowEvent:
    """A write of the same contents, whenever."""
    if entity == "DmMessage":
        return written(
            model,
            entity,
            key,
            at_us,
            origin=origin,
            expected_version=expected_version,
            senderId="u",
            sentAt=base_us,
        )
    return written(
        model,
        entity,
        key,
        at_us,
        origin=origin,
        expected_version=expected_version,
        createdAt=base_us,
    )


def case_event(model: Model, entity: str, case: Case, key: Key, base_us: int) -> RowEvent:
    """The event of a case."""
    expected = {
        "none": None,
        "the row's": 2 * base_us + case.stored_version,
        "another": 2 * base_us + case.stored_version + 2,
    }[case.expects]
    at_us = base_us + STORED_AT + case.offset
    if case.is_delete:
        return deleted(model, entity, key, at_us, origin=case.origin, expected_version=expected)
    return full(model, entity, key, at_us, base_us, case.origin, expected)


def expected_outcome(case: Case, event: RowEvent, stored: RowEvent, mark_us: int | None) -> Outcome:
    """What the pure rule says."""
    change = event.change
    row = StoredRow(
        state=RowState.TOMBSTONE if case.is_tombstone else RowState.LIVE,
        version=stored.change.version,
        digest=stored.change.digest if case.is_same_digest else "other",
        mapping_revision=case.revision,
    )
    incoming = Incoming(
        version=change.version,
        origin=change.origin,
        observed_at_us=change.observed_at_us,
        digest=change.digest,
        mapping_revision=1,
        expected_version=change.expected_version,
    )
    return decide_outcome(incoming, row, purge_horizon_us=None, rebase_mark_us=mark_us)


@pytest.mark.parametrize("entity", ENTITIES)
@pytest.mark.parametrize("has_mark", [False, True], ids=["never rebased", "rebased"])
async def test_every_line_of_the_table_holds(
    has_mark: bool, entity: str, sql: Installed, base_us: int
) -> None:
    """A procedure that decides otherwise than the pure rule loses or revives documents."""
    every = list(cases())
    keys = [case.key(number, entity) for number, case in enumerate(every)]
    stored = [
        stored_event(sql.model, entity, c, k, base_us) for c, k in zip(every, keys, strict=True)
    ]
    events = [
        case_event(sql.model, entity, c, k, base_us) for c, k in zip(every, keys, strict=True)
    ]
    await sql.mirror.apply(stored)
    for revision in (0, 2):
        chosen = [k for k, c in zip(keys, every, strict=True) if c.revision == revision]
        await sql.damage(sql.model[entity], chosen, mapping_revision=revision)
    chosen = [k for k, c in zip(keys, every, strict=True) if not c.is_same_digest]
    await sql.damage(sql.model[entity], chosen, digest="other")
    # Of the events those at the stored row's time and before it are behind the mark.
    mark_us = base_us + STORED_AT if has_mark else None
    if mark_us is not None:
        await sql.rebased(mark_us)

    found = await sql.mirror.apply(events)

    expected = [
        expected_outcome(*triple, mark_us) for triple in zip(every, events, stored, strict=True)
    ]
    wrong = [(c, f, e) for c, f, e in zip(every, found, expected, strict=True) if f != e]
    assert wrong == []
    if has_mark:
        assert set(expected) == {Outcome.EXPIRED, Outcome.APPLIED}
    else:
        assert set(expected) == set(Outcome) - {Outcome.EXPIRED}
    writes = (Outcome.APPLIED, Outcome.REPAIRED)
    async for row in sql.mirror.rows(sql.model[entity], after=None, up_to=None):
        number = keys.index(row.key)
        winner = events[number] if expected[number] in writes else stored[number]
        assert row.version == winner.change.version
        assert (row.state is RowState.TOMBSTONE) == winner.change.is_deleted


@pytest.mark.parametrize("entity", ENTITIES)
@pytest.mark.parametrize("has_stub", [False, True], ids=["absent", "stub"])
async def test_a_row_without_a_past_takes_what_is_newer_than_the_horizon(
    has_stub: bool, entity: str, sql: Installed, base_us: int
) -> None:
    """Behind the horizon a tombstone may have been purged: an event from before it may be late."""
    every = list(itertools.product((-1, 0, 1, None), Origin, (False, True)))
    keys = [
        (f"k{number}",) if entity == "DmConversation" else (f"k{number}", "x")
        for number in range(len(every))
    ]
    if has_stub:
        await sql.make_stubs(sql.model[entity], keys)
    horizon_us = base_us + STORED_AT
    await sql.set_horizon(sql.model[entity], horizon_us)
    events = []
    for key, (observed, origin, is_delete) in zip(keys, every, strict=True):
        at_us = horizon_us + (observed or 0)
        if is_delete:
            events.append(deleted(sql.model, entity, key, at_us, origin=origin))
        else:
            events.append(full(sql.model, entity, key, at_us, base_us, origin))

    found = await sql.mirror.apply(events)

    assert found == [
        Outcome.APPLIED if observed == 1 else Outcome.EXPIRED for observed, _, _ in every
    ]
    for key, outcome in zip(keys, found, strict=True):
        row = await sql.mirror.row(sql.model[entity], key)
        is_known = row is not None and row.state is not RowState.STUB
        assert is_known == (outcome is Outcome.APPLIED)


async def test_without_a_horizon_nothing_is_expired(sql: Installed, base_us: int) -> None:
    """Where nothing was ever purged, an old event cannot be about a purged tombstone."""
    event = full(sql.model, "FollowEdge", ("a", "b"), 1, base_us)
    assert await sql.mirror.apply([event]) == [Outcome.APPLIED]


async def test_the_horizon_of_one_entity_is_not_another_s(sql: Installed, base_us: int) -> None:
    """Each table is purged by itself."""
    await sql.set_horizon(sql.model["UserBlock"], base_us)
    events = [
        full(sql.model, name, ("a", "b"), base_us - 1, base_us)
        for name in ("FollowEdge", "UserBlock")
    ]
    assert await sql.mirror.apply(events) == [Outcome.APPLIED, Outcome.EXPIRED]


async def test_a_rewritten_tombstone_is_the_same_tombstone(sql: Installed, base_us: int) -> None:
    """The digest of a delete is empty on both sides."""
    event = deleted(sql.model, "FollowEdge", ("a", "b"), base_us)
    await sql.mirror.apply([event])
    row = await sql.mirror.row(sql.model["FollowEdge"], ("a", "b"))
    assert row is not None
    assert row.digest == digest_of(None)
    assert await sql.mirror.apply([event]) == [Outcome.DUPLICATE]
