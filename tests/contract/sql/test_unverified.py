"""The record of documents whose dead letters were purged."""

from __future__ import annotations

from dataclasses import replace

from storemirror.sql.port import RowEvent, UnverifiedDocument
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed


def mark_of(event: RowEvent, message_id: str = "e1") -> UnverifiedDocument:
    """The mark of an event's document at the event's version."""
    return UnverifiedDocument(
        message_id=message_id,
        reason="MappingFailed",
        path=event.change.path,
        entity=event.entity.name,
        key=event.key,
        version=event.change.version,
    )


NOWHERE = UnverifiedDocument(
    message_id="e9", reason="EnvelopeInvalid", path=None, entity=None, key=None, version=None
)


async def test_marks_are_read_as_they_were_written(sql: Installed, docs: Documents) -> None:
    """With the time of the mark, by the database's own clock."""
    marks = [mark_of(docs.message("c", "m", 10)), NOWHERE]
    await sql.mirror.mark_unverified(marks)
    found = await sql.mirror.unverified()
    assert [replace(mark, marked_at_us=0) for mark in found] == marks
    assert all(mark.marked_at_us > docs.base_us for mark in found)
    assert await sql.mirror.unverified(limit=1) == found[:1]


async def test_two_dead_letters_of_a_document_are_one_document(
    sql: Installed, docs: Documents
) -> None:
    """What is counted are documents in doubt."""
    older, newer = docs.message("c", "m", 10), docs.message("c", "m", 20)
    await sql.mirror.mark_unverified([mark_of(older, "e1"), mark_of(newer, "e2"), NOWHERE])
    assert len(await sql.mirror.unverified()) == 3
    assert await sql.mirror.unverified_count() == 2


async def test_a_mark_that_was_made_anew_is_not_cleared_by_its_old_self(
    sql: Installed, docs: Documents
) -> None:
    """A check that began before the second purge has not seen what that one lost."""
    mark = mark_of(docs.follow("a", "b", 10))
    await sql.mirror.mark_unverified([mark])
    listed = await sql.mirror.unverified()
    await sql.mirror.mark_unverified([mark, mark])
    assert await sql.mirror.clear_unverified(listed) == 0
    assert await sql.mirror.clear_unverified(await sql.mirror.unverified()) == 1
    assert await sql.mirror.clear_unverified([]) == 0
    assert await sql.mirror.unverified_count() == 0


async def test_only_a_newer_version_overtakes_a_mark(sql: Installed, docs: Documents) -> None:
    """At the version that was lost, or below it, the row proves nothing."""
    lost = [docs.message("c", "m1", 10), docs.message("c", "m2", 10), docs.follow("a", "b", 10)]
    await sql.mirror.mark_unverified(
        [*(mark_of(event, f"e{n}") for n, event in enumerate(lost)), NOWHERE]
    )
    assert await sql.mirror.clear_overtaken() == 0, "no rows"
    await sql.mirror.apply([docs.message("c", "m1", 9), docs.message("c", "m2", 10)])
    await sql.mirror.apply([docs.gone("FollowEdge", ("a", "b"), 10)])
    assert await sql.mirror.clear_overtaken() == 1, "the deletion is newer"
    await sql.mirror.apply([docs.message("c", "m1", 11)])
    assert await sql.mirror.clear_overtaken() == 1
    left = await sql.mirror.unverified()
    assert [mark.message_id for mark in left] == ["e1", "e9"]


async def test_installing_again_keeps_every_mark(sql: Installed) -> None:
    """An upgrade must not make a loss forgotten."""
    await sql.mirror.mark_unverified([NOWHERE])
    await sql.schema.apply()
    assert await sql.mirror.unverified_count() == 1
