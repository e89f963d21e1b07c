"""A conversation's aggregates are exact at every moment, whatever came, went or came first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storemirror.clock import us_from_datetime
from storemirror.event.change import Origin, RowState
from storemirror.sql.port import MirrorRow, RowEvent
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed
from tests.support.reference import Reference


async def conversation(sql: Installed, name: str = "c") -> MirrorRow:
    """Read a conversation that must be there."""
    row = await sql.mirror.row(sql.model["DmConversation"], (name,))
    assert row is not None
    return row


async def summary(sql: Installed, docs: Documents) -> tuple[object, ...]:
    """Give count, id, time (above base) and preview of the latest message of conversation c."""
    columns = (await conversation(sql)).columns
    at = columns["lastMessageAt"]
    return (
        columns["messageCount"],
        columns["lastMessageId"],
        None if at is None else us_from_datetime(at) - docs.base_us,  # type: ignore[arg-type]
        columns["lastMessagePreview"],
    )


async def applied_in_steps(sql: Installed, batches: Sequence[Sequence[RowEvent]]) -> None:
    """Apply batch after batch, and see after each that everything is as the reference has it."""
    reference = Reference(sql.model)
    for batch in batches:
        assert await sql.mirror.apply(batch) == reference.apply(batch)
        await sql.assert_equal(reference)


async def test_a_message_before_its_conversation_makes_a_stub(
    sql: Installed, docs: Documents
) -> None:
    """Nothing is known of the conversation yet, but its aggregates are."""
    await applied_in_steps(sql, [[docs.message("c", "m1", 1)], [docs.message("c", "m2", 2)]])
    row = await conversation(sql)
    assert (row.state, row.version) == (RowState.STUB, 0)
    assert await summary(sql, docs) == (2, "m2", 2, "hello")


async def test_a_conversation_takes_its_stub_s_place(sql: Installed, docs: Documents) -> None:
    """The document's own columns come, and the aggregates stay."""
    await applied_in_steps(sql, [[docs.message("c", "m1", 5)], [docs.conversation("c", 1)]])
    row = await conversation(sql)
    assert row.state is RowState.LIVE
    assert row.columns["title"] == "title"
    assert await summary(sql, docs) == (1, "m1", 5, "hello")


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_a_deleted_conversation_keeps_exact_aggregates(
    is_one_batch: bool, sql: Installed, docs: Documents
) -> None:
    """Firestore keeps the messages of a deleted conversation, and it may be created again."""
    steps = [
        [docs.conversation("c", 1), docs.message("c", "m1", 2)],
        [docs.gone("DmConversation", ("c",), 1)],
        [docs.message("c", "m2", 10)],
        [docs.gone("DmMessage", ("c", "m1"), 2), docs.message("c", "m3", 5)],
        [docs.conversation("c", 20, title="again")],
    ]
    await applied_in_steps(
        sql, [[event for step in steps for event in step]] if is_one_batch else steps
    )
    assert (await conversation(sql)).columns["title"] == "again"
    assert await summary(sql, docs) == (2, "m2", 10, "hello")


async def test_a_tombstone_has_no_contents(sql: Installed, docs: Documents) -> None:
    """What a user deleted is gone, except that it was there."""
    await sql.mirror.apply([docs.conversation("c", 1, participants={"u1": 5})])
    await sql.mirror.apply([docs.gone("DmConversation", ("c",), 1)])
    row = await conversation(sql)
    assert row.state is RowState.TOMBSTONE
    assert (row.columns["title"], row.columns["createdAt"]) == (None, None)
    assert row.children == {"DmParticipant": {}}
    assert row.digest == ""


async def test_last_activity_is_the_last_message_s_time_else_the_creation(
    sql: Installed, docs: Documents
) -> None:
    """An inbox is sorted by it."""
    await sql.mirror.apply([docs.conversation("c", 1)])
    created = (await conversation(sql)).columns
    assert created["lastActivityAt"] == created["createdAt"]
    await sql.mirror.apply([docs.message("c", "m", 9)])
    active = (await conversation(sql)).columns
    assert active["lastActivityAt"] == active["lastMessageAt"]


async def test_latest_follows_arrival_edit_deletion_and_recreation(
    sql: Installed, docs: Documents
) -> None:
    """Each is another way to become, or to stop being, the latest message."""
    steps: list[tuple[RowEvent, tuple[object, ...]]] = [
        (docs.message("c", "b", 10, body="b"), (1, "b", 10, "b")),
        (docs.message("c", "a", 5, body="older"), (2, "b", 10, "b")),
        (docs.message("c", "c", 12, body="newest"), (3, "c", 12, "newest")),
        # An edited text, and an edited time: to the front, and from it.
        (docs.message("c", "c", 20, sent=12, body="edited"), (3, "c", 12, "edited")),
        (docs.message("c", "a", 30, sent=40, body="moved"), (3, "a", 40, "moved")),
        (docs.message("c", "a", 50, sent=2, body="moved back"), (3, "c", 12, "edited")),
        (docs.gone("DmMessage", ("c", "c"), 20), (2, "b", 10, "b")),
        (docs.message("c", "c", 60, sent=70, body="re-created"), (3, "c", 70, "re-created")),
        (docs.gone("DmMessage", ("c", "c"), 60), (2, "b", 10, "b")),
        (docs.gone("DmMessage", ("c", "b"), 10), (1, "a", 2, "moved back")),
        (docs.gone("DmMessage", ("c", "a"), 50), (0, None, None, None)),
        # Deleted twice: another tombstone, no other count.
        (docs.gone("DmMessage", ("c", "a"), 90), (0, None, None, None)),
        # Late: a write from before the deletion.
        (docs.message("c", "a", 40, sent=99), (0, None, None, None)),
    ]
    for event, expected in steps:
        await sql.mirror.apply([event])
        assert await summary(sql, docs) == expected


async def test_messages_of_one_moment_are_sorted_by_id(sql: Installed, docs: Documents) -> None:
    """By bytes, not by a language's rules: the same on every run, and in every mirror of a kind."""
    names = ["a", "B", "é", "Z", "z", "\U0001f600", "\uffee"]
    for name in names:
        await sql.mirror.apply([docs.message("c", name, 1, sent=7)])
        seen = names[: names.index(name) + 1]
        assert (await summary(sql, docs))[1] == max(seen, key=sql.rank)


@pytest.mark.parametrize(
    ("body", "preview"),
    [
        ("x" * 140, "x" * 140),
        ("x" * 141, "x" * 140),
        ("\U0001f600" * 141, "\U0001f600" * 140),
        ("e\u0301" * 100, "e\u0301" * 70),
        ("\U0001f468\u200d\U0001f469" * 60, ("\U0001f468\u200d\U0001f469" * 60)[:140]),
        ("", ""),
        (None, None),
    ],
    ids=["fits", "cut", "emoji", "combining", "joined", "empty", "missing"],
)
async def test_a_preview_is_cut_at_140_code_points(
    body: str | None, preview: str | None, sql: Installed, docs: Documents
) -> None:
    """Not at bytes or UTF-16 units, which would cut a character in two."""
    await sql.mirror.apply([docs.message("c", "m", 1, body=body)])
    assert (await summary(sql, docs))[3] == preview


async def test_aggregates_of_many_conversations_in_one_batch_do_not_mix(
    sql: Installed, docs: Documents
) -> None:
    """One statement rolls up all of them."""
    batch: list[RowEvent] = []
    for number in range(60):
        batch += [docs.message(f"c{number}", f"m{n}", n + 1) for n in range(number % 7)]
        if number % 3 == 0:
            batch += [docs.conversation(f"c{number}", 1)]
        if number % 5 == 0:
            batch += [docs.gone("DmMessage", (f"c{number}", "m0"), 1)]
    await applied_in_steps(sql, [batch, batch[::-1]])


async def test_a_repair_counts_anew(sql: Installed, docs: Documents) -> None:
    """After a damage the stored count is not to be trusted: a delta would carry it on."""
    await sql.mirror.apply([docs.message("c", f"m{n}", n + 1) for n in range(3)])
    await sql.damage_rollup(sql.model["DmConversation"], ("c",), "messageCount", 17)
    await sql.mirror.apply([docs.message("c", "m0", 1, origin=Origin.REPAIR)])
    assert await summary(sql, docs) == (3, "m2", 3, "hello")


@pytest.mark.parametrize(
    ("column", "value"), [("messageCount", 9), ("lastMessageId", "x"), ("lastMessageAt", None)]
)
async def test_a_wrong_aggregate_is_found_and_recomputed(
    column: str, value: object, sql: Installed, docs: Documents
) -> None:
    """The checker names parent and column; the verb mends them all."""
    await sql.mirror.apply([docs.message(c, "m", 1) for c in ("b", "c", "d")])
    await sql.mirror.apply([docs.conversation("empty", 1)])
    message = sql.model["DmMessage"]
    assert await sql.mirror.rollup_differences(message, limit=10) == []
    await sql.damage_rollup(sql.model["DmConversation"], ("c",), column, value)
    [found] = await sql.mirror.rollup_differences(message, limit=10)
    assert (found.key, found.column) == (("c",), column)
    assert await sql.mirror.recompute_rollups(message) == 1
    assert await sql.mirror.rollup_differences(message, limit=10) == []
    assert await summary(sql, docs) == (1, "m", 1, "hello")
    assert await sql.mirror.recompute_rollups(message) == 0


async def test_the_list_of_wrong_aggregates_has_a_limit(sql: Installed, docs: Documents) -> None:
    """A wholly damaged mirror must not fill the checker's memory."""
    await sql.mirror.apply([docs.message(f"c{n}", "m", 1) for n in range(5)])
    for number in range(5):
        key = (f"c{number}",)
        await sql.damage_rollup(sql.model["DmConversation"], key, "messageCount", 9)
    assert len(await sql.mirror.rollup_differences(sql.model["DmMessage"], limit=3)) == 3
