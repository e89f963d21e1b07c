"""What no sound caller sends is refused whole, in words that say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from storemirror.clock import SystemClock
from storemirror.errors import EventRefused, ParentMissing
from storemirror.event.change import Origin, Outcome
from storemirror.model.mapping import JsonScalar
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed

MINUTE_US = 60_000_000


async def row_count(sql: Installed, entity: str) -> int:
    """Count the rows of a table, in whatever state."""
    return len([row async for row in sql.mirror.rows(sql.model[entity], after=None, up_to=None)])


def with_columns(event: RowEvent, columns: Mapping[str, JsonScalar]) -> RowEvent:
    """An event with some columns as the mapping would never give them."""
    assert event.row is not None
    return replace(event, row=replace(event.row, columns={**event.row.columns, **columns}))


async def test_nothing_to_apply_is_nothing_applied(sql: Installed) -> None:
    """A lane may come to a batch without events."""
    assert await sql.mirror.apply([]) == []


async def test_a_batch_of_2_000_events_is_taken(sql: Installed, docs: Documents) -> None:
    """The limit itself is still allowed."""
    events = [docs.follow("a", str(n), 1) for n in range(2_000)]
    assert set(await sql.mirror.apply(events)) == {Outcome.APPLIED}


async def test_a_call_of_2_001_events_is_refused(sql: Installed, docs: Documents) -> None:
    """One call must not hold its locks for ever."""
    events = [docs.follow("a", str(n), 1) for n in range(2_001)]
    with pytest.raises(EventRefused, match="1 to 2,000 events"):
        await sql.mirror.apply(events)
    assert await row_count(sql, "FollowEdge") == 0


@pytest.mark.parametrize("is_delete", [False, True])
async def test_a_version_from_the_future_is_refused(
    is_delete: bool, sql: Installed, docs: Documents
) -> None:
    """It would win over every true change for as long as it lies ahead."""
    ahead = SystemClock().now_us() - docs.base_us + 5 * MINUTE_US + 10_000_000
    late = ahead - MINUTE_US
    poison = (
        docs.gone("FollowEdge", ("a", "b"), ahead) if is_delete else docs.follow("a", "b", ahead)
    )
    with pytest.raises(EventRefused, match="more than 5 minutes in the future") as caught:
        await sql.mirror.apply([poison])
    assert caught.value.event_id == poison.change.event_id
    with pytest.raises(EventRefused, match=poison.change.event_id):
        await sql.mirror.apply([docs.follow("a", "c", 1), poison])
    assert await row_count(sql, "FollowEdge") == 0
    assert await sql.mirror.apply([docs.follow("a", "b", late)]) == [Outcome.APPLIED]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sentAt", "SECRET"),
        ("sentAt", "2026-13-01T00:00:00Z"),
        ("attachments", "{SECRET"),
        ("body", "SECRET\0"),
        ("senderId", None),
    ],
)
async def test_a_value_that_does_not_fit_refuses_the_batch(
    column: str, value: str | None, sql: Installed, docs: Documents
) -> None:
    """Nothing else of the batch is written, and the message names no contents."""
    bad = with_columns(docs.message("c", "bad", 1), {column: value})
    others = [docs.message("c", "good", 1), docs.follow("a", "b", 1), docs.conversation("d", 1)]
    with pytest.raises(EventRefused) as caught:
        await sql.mirror.apply([*others, bad])
    assert "SECRET" not in str(caught.value)
    assert "one of 4" in str(caught.value)
    for entity in ("DmMessage", "FollowEdge"):
        assert await row_count(sql, entity) == 0, entity
    assert await sql.audit_rows(sql.model["DmMessage"]) == []
    with pytest.raises(EventRefused) as caught:
        await sql.mirror.apply([bad])
    assert (caught.value.event_id, caught.value.path) == (bad.change.event_id, bad.change.path)
    assert "SECRET" not in str(caught.value)
    assert await sql.mirror.apply(others) == [Outcome.APPLIED] * 3


async def test_a_refused_batch_leaves_no_half_of_a_document(
    sql: Installed, docs: Documents
) -> None:
    """Row, children, audit and roll-up are one transaction."""
    await sql.mirror.apply([docs.conversation("c", 1, participants={"a": None})])
    before = await all_rows_of(sql)
    update = docs.conversation("c", 2, participants={"b": None})
    bad = with_columns(docs.message("c", "m", 1), {"sentAt": None})
    with pytest.raises(EventRefused, match=f"(?i){sql.spelling.required('DmMessage')}"):
        await sql.mirror.apply([update, docs.message("c", "n", 1), bad])
    assert await all_rows_of(sql) == before


async def all_rows_of(sql: Installed) -> list[object]:
    """Read every table."""
    return [
        row
        for entity in sql.model
        for row in [r async for r in sql.mirror.rows(entity, after=None, up_to=None)]
    ]


UNSOUND = [
    ("FollowEdge", "null", "array of {}"),
    ("FollowEdge", "{}", "array of {}"),
    ("FollowEdge", '"x"', "array of {}"),
    ("FollowEdge", "[]", "array of {}"),
    ("FollowEdge", "[{}]", "lacks id, type, time"),
]


@pytest.mark.parametrize("verb", ["Upsert", "Delete"])
@pytest.mark.parametrize(("entity", "argument", "words"), UNSOUND)
async def test_what_is_no_array_of_events_is_refused(
    verb: str, entity: str, argument: str, words: str, sql: Installed
) -> None:
    """Database administrators may call the procedures by hand."""
    expected = words.format(sql.spelling.call_limit)
    assert expected in await sql.rejected(f"{verb}{entity}", argument)


@pytest.mark.parametrize(
    "field",
    [
        "lastEventId",
        "lastEventType",
        "lastEventTime",
        "lastEventVersion",
        "lastEventOrigin",
        "lastEventDigest",
        "mappingRevision",
        "observedAt",
    ],
)
async def test_an_event_that_lacks_a_field_is_refused(
    field: str, sql: Installed, docs: Documents
) -> None:
    """A NULL in a comparison is neither true nor false, and would decide by accident."""
    events = json.loads(sql.encoded([docs.follow("a", "b", 1), docs.follow("a", "c", 1)]))
    del events[1][sql.spelling.column(field)]
    assert "lacks id, type" in await sql.rejected("UpsertFollowEdge", json.dumps(events))
    assert await row_count(sql, "FollowEdge") == 0


async def test_a_write_is_not_taken_for_a_deletion(sql: Installed, docs: Documents) -> None:
    """The wrong verb would leave a tombstone with a write's version."""
    write = sql.encoded([docs.follow("a", "b", 1)])
    gone = sql.encoded([docs.gone("FollowEdge", ("a", "b"), 1)])
    assert "not of this procedure's verb" in await sql.rejected("DeleteFollowEdge", write)
    assert "not of this procedure's verb" in await sql.rejected("UpsertFollowEdge", gone)


@pytest.mark.parametrize("verb", ["Upsert", "Delete"])
async def test_a_procedure_called_alone_says_that_the_parent_is_missing(
    verb: str, sql: Installed, docs: Documents
) -> None:
    """And which call comes before it: without the parent's row there is nothing to lock."""
    events = {
        "Upsert": docs.message("c", "m", 1),
        "Delete": docs.gone("DmMessage", ("c", "m"), 1),
    }
    words = await sql.rejected(f"{verb}DmMessage", sql.encoded([events[verb]]))
    assert "SM001" in words
    assert "DmConversation are missing" in words
    assert "first, in a transaction of its own" in words
    assert await row_count(sql, "DmMessage") == 0


async def test_parents_that_vanish_each_time_end_in_an_error(
    sql: Installed, docs: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a loop: something else than a purge is at work."""

    async def makes_none(*_: object) -> int:
        return 0

    monkeypatch.setattr(sql.mirror, "_ensure_parents", makes_none)
    with pytest.raises(ParentMissing, match="5 times"):
        await sql.mirror.apply([docs.message("c", "m", 1)])


async def test_text_of_every_script_comes_back_as_it_went(sql: Installed, docs: Documents) -> None:
    """Quotes, backslashes and control characters among it; ids as well as contents."""
    text = "é\u0301 \U0001f468\u200d\U0001f469 \u0001\t\r\n\"'\\u0000 \\ \ufffd \u2028 end"
    name = text.replace("\n", "")
    reread = docs.message(name, name, 1, body=text, origin=Origin.REREAD)
    assert await sql.mirror.apply([reread]) == [Outcome.APPLIED]
    row = await sql.mirror.row(sql.model["DmMessage"], (name, name))
    assert row is not None
    assert row.columns["body"] == text
    parent = await sql.mirror.row(sql.model["DmConversation"], (name,))
    assert parent is not None
    assert parent.columns["lastMessagePreview"] == text


async def test_moments_at_both_ends_of_time_come_back(sql: Installed, docs: Documents) -> None:
    """Whatever time zone the database has: Python knows no year 0 and no year 10000."""
    ends = {"first": "0001-01-01T00:00:00.000000Z", "last": "9999-12-31T23:59:59.999999Z"}
    for name, moment in ends.items():
        event = with_columns(docs.message("c", name, 1), {"sentAt": moment})
        assert await sql.mirror.apply([event]) == [Outcome.APPLIED]
        row = await sql.mirror.row(sql.model["DmMessage"], ("c", name))
        assert row is not None
        assert str(row.columns["sentAt"]).startswith(moment[:10])
