"""Child rows follow their document, and are written only when they change; the audit never is."""

from __future__ import annotations

import itertools

from msgspec.structs import replace

from storemirror.clock import rfc3339_from_us
from storemirror.event.change import Origin, Outcome
from storemirror.model.mapping import MappedRow
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed
from tests.support.reference import Reference


async def participants(sql: Installed, conversation: str = "c") -> dict[str, object]:
    """Give the participants of a conversation, with when they last read."""
    row = await sql.mirror.row(sql.model["DmConversation"], (conversation,))
    assert row is not None
    return {user: columns["lastReadAt"] for user, columns in row.children["DmParticipant"].items()}


async def test_child_rows_follow_their_document(sql: Installed, docs: Documents) -> None:
    """Who joins comes, who leaves goes, who reads is changed; in other documents nobody."""
    reference = Reference(sql.model)
    t = docs.base_us
    for batch in (
        [docs.conversation("c", 1, participants={"a": None, "b": t})],
        [docs.conversation("d", 1, participants={"a": t, "z": None})],
        [docs.conversation("c", 2, participants={"b": t + 1, "e": None})],
        [docs.conversation("c", 3, participants={})],
        [docs.conversation("c", 4, participants={"a": None})],
    ):
        assert await sql.mirror.apply(batch) == reference.apply(batch)
        await sql.assert_equal(reference)


async def test_a_child_row_that_stays_the_same_is_not_written(
    sql: Installed, docs: Documents
) -> None:
    """Each message read changes one participant; rewriting all would bloat the inbox's index."""
    t = docs.base_us
    await sql.mirror.apply([docs.conversation("c", 1, participants={"a": t, "b": t, "n": None})])
    before = await sql.child_marks("DmParticipant")
    await sql.mirror.apply(
        [docs.conversation("c", 2, participants={"a": t, "b": t + 5, "n": None})]
    )
    after = await sql.child_marks("DmParticipant")
    assert {key for key in after if after[key] != before[key]} == {("c", "b")}


async def test_a_deletion_takes_child_rows_and_a_recreation_brings_them(
    sql: Installed, docs: Documents
) -> None:
    """A deleted conversation is in nobody's inbox."""
    write = docs.conversation("c", 1, participants={"a": None, "b": None})
    await sql.mirror.apply([write, docs.conversation("d", 1, participants={"a": None})])
    await sql.mirror.apply([docs.gone("DmConversation", ("c",), 1)])
    assert await participants(sql) == {}
    assert await participants(sql, "d") == {"a": None}
    assert await sql.mirror.apply([write]) == [Outcome.STALE]
    assert await participants(sql) == {}
    await sql.mirror.apply([docs.conversation("c", 2, participants={"b": None})])
    assert await participants(sql) == {"b": None}


async def test_a_stale_document_leaves_child_rows_alone(sql: Installed, docs: Documents) -> None:
    """Children belong to the version of their document."""
    await sql.mirror.apply([docs.conversation("c", 9, participants={"a": None})])
    await sql.mirror.apply([docs.conversation("c", 5, participants={"b": None})])
    assert await participants(sql) == {"a": None}


async def test_an_element_that_stands_twice_is_one_child_row(
    sql: Installed, docs: Documents
) -> None:
    """An array in Firestore may repeat a value; a primary key may not."""
    event = docs.conversation("c", 1)
    assert event.row is not None
    rows = [{"userId": "a", "lastReadAt": None}, {"userId": "b", "lastReadAt": None}]
    doubled = MappedRow(
        columns=event.row.columns,
        children={"DmParticipant": [*rows, *rows]},
        raw=None,
        lossy_fields=(),
    )
    assert await sql.mirror.apply([replace(event, row=doubled)]) == [Outcome.APPLIED]
    assert await participants(sql) == {"a": None, "b": None}


async def test_a_repair_restores_child_rows(sql: Installed, docs: Documents) -> None:
    """They may be what was damaged."""
    people: dict[str, int | None] = {"a": None, "b": docs.base_us}
    await sql.mirror.apply([docs.conversation("c", 1, participants=people)])
    await sql.damage_children(sql.model["DmConversation"], ("c",))
    assert await participants(sql) == {}
    repair = docs.conversation("c", 1, participants=people, origin=Origin.REPAIR)
    assert await sql.mirror.apply([repair]) == [Outcome.REPAIRED]
    assert set(await participants(sql)) == {"a", "b"}


async def test_the_audit_has_one_row_an_event_in_every_order(
    sql: Installed, docs: Documents
) -> None:
    """Whatever came of an event: applied, stale, repeated, or expired."""
    trails = []
    for number, order in enumerate(itertools.permutations(range(4))):
        name = f"c{number}"
        events = [
            docs.message(name, "m", 1),
            docs.gone("DmMessage", (name, "m"), 1),
            docs.message(name, "m", 5),
            docs.message(name, "m", 1, origin=Origin.BACKFILL),
        ]
        for index in order:
            await sql.mirror.apply([events[index]])
    rows = await sql.audit_rows(sql.model["DmMessage"])
    for number in range(24):
        mine = [r for r in rows if r["conversationId"] == f"c{number}"]
        trails.append(sorted(int(str(r["lastEventVersion"])) - 2 * docs.base_us for r in mine))
    assert trails == [[2, 3, 10]] * 24


async def test_the_audit_holds_an_expired_event(sql: Installed, docs: Documents) -> None:
    """It was seen, even if the document has to be read again."""
    await sql.set_horizon(sql.model["DmMessage"], docs.base_us + 10)
    event = docs.message("c", "m", 1)
    assert await sql.mirror.apply([event]) == [Outcome.EXPIRED]
    [row] = await sql.audit_rows(sql.model["DmMessage"])
    assert row["lastEventId"] == event.change.event_id


async def test_the_audit_holds_no_contents(sql: Installed, docs: Documents) -> None:
    """It outlives the erasure of a message, so it must not hold what was erased."""
    event = docs.message("c", "m", 1, body="secret")
    await sql.mirror.apply([event])
    [row] = await sql.audit_rows(sql.model["DmMessage"])
    assert dict(row) | {"lastEventTime": None} == {
        "conversationId": "c",
        "messageId": "m",
        "lastEventId": event.change.event_id,
        "lastEventType": "storemirror.document.written.v1",
        "lastEventTime": None,
        "lastEventVersion": event.change.version,
    }
    assert rfc3339_from_us(docs.base_us + 1)[:19] in str(row["lastEventTime"]).replace(" ", "T")
