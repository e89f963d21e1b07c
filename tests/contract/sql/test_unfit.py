"""Conversations of which a newer event was set aside: users' reads do not show them (#7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from storemirror.event.change import version_of
from storemirror.model.load import load_model
from storemirror.sql.port import RowEvent, UnverifiedDocument
from storemirror.sql.unfit import newest_of, unfit_mark
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed, Server
from tests.support.long_keys import declared_with_long_keys


def room(docs: Documents, name: str, at: int = 10, **participants: int | None) -> RowEvent:
    """A conversation of "me" and others."""
    return docs.conversation(name, at, participants={"me": None, **participants})


def mark(docs: Documents, name: str, at: int | None) -> UnverifiedDocument:
    """The mark of a conversation whose write at this moment was set aside."""
    return unfit_mark(
        docs.model["DmConversation"],
        (name,),
        path=f"conversations/{name}",
        version=None if at is None else version_of(docs.base_us + at, is_deleted=False),
        reason="MappingFailed",
    )


async def shown(sql: Installed, *, limit: int = 50) -> tuple[list[str], bool, bool]:
    """Give the conversations of the newest page, whether it is whole, and whether others follow."""
    page = await sql.reads.inbox("me", older_than=None, limit=limit)
    return [row.conversation_id for row in page.rows], page.is_whole, page.has_older


async def can_read(sql: Installed, conversation: str, viewer: str = "me") -> bool:
    """Tell whether the messages of a conversation are given."""
    return await sql.reads.messages(viewer, conversation, limit=5) is not None


@pytest.mark.parametrize("at", [11, None], ids=["newer", "unknown"])
async def test_nobody_reads_by_a_row_whose_newer_event_was_set_aside(
    at: int | None, sql: Installed, docs: Documents
) -> None:
    """Whoever was removed by that event would go on reading, for ever."""
    await sql.mirror.apply([room(docs, "a"), room(docs, "b"), docs.message("a", "m", 20)])
    await sql.mirror.mark_unverified([mark(docs, "a", at)])
    assert await shown(sql) == (["b"], False, False)
    assert not await can_read(sql, "a")
    place = (docs.base_us + 30, "z")
    assert await sql.reads.messages("me", "a", older_than=place, limit=5) is None
    assert await sql.reads.messages("me", "a", newer_than=(docs.base_us, "a"), limit=5) is None
    behind = await sql.reads.inbox("me", older_than=place, limit=5)
    assert ([row.conversation_id for row in behind.rows], behind.is_whole) == (["b"], False)
    assert await can_read(sql, "b")


@pytest.mark.parametrize("at", [9, 10], ids=["older", "same"])
async def test_a_row_of_the_event_s_version_or_a_newer_one_is_shown(
    at: int, sql: Installed, docs: Documents
) -> None:
    """A later event that fits, or the cured one itself, ends it at once: no mark is cleared."""
    await sql.mirror.mark_unverified([mark(docs, "a", at)])
    await sql.mirror.apply([room(docs, "a")])
    assert await shown(sql) == (["a"], True, False)
    assert await can_read(sql, "a")
    assert await sql.mirror.unverified_count() == 1


async def test_a_row_that_comes_late_is_not_shown_either(sql: Installed, docs: Documents) -> None:
    """The event that was set aside may come before an older one."""
    await sql.mirror.mark_unverified([mark(docs, "a", 20)])
    await sql.mirror.apply([room(docs, "a", 10)])
    assert await shown(sql) == ([], False, False)
    await sql.mirror.apply([room(docs, "a", 21)])
    assert await shown(sql) == (["a"], True, False)


async def test_a_page_without_what_is_left_out_is_full(sql: Installed, docs: Documents) -> None:
    """Else whoever makes their own conversations unfit would fill another's pages with nothing."""
    await sql.mirror.apply([room(docs, name) for name in "abcde"])
    await sql.mirror.mark_unverified([mark(docs, name, 11) for name in "de"])
    assert await shown(sql, limit=2) == (["c", "b"], False, True)
    place = (docs.base_us, "b")
    behind = await sql.reads.inbox("me", older_than=place, limit=2)
    assert [row.conversation_id for row in behind.rows] == ["a"]
    assert (behind.is_whole, behind.has_older) == (True, False)


async def test_a_mark_is_of_one_conversation_alone(sql: Installed, docs: Documents) -> None:
    """By every letter of its id, capitals and accents included."""
    names = ["a", "A", "á", "ab", "a%", "a_", "\U0001f600"]
    await sql.mirror.apply([room(docs, name) for name in names])
    await sql.mirror.mark_unverified([mark(docs, "a", 11), mark(docs, "\U0001f600", 11)])
    found, is_whole, _ = await shown(sql)
    assert sorted(found) == sorted(["A", "á", "ab", "a%", "a_"])
    assert not is_whole


async def test_a_purged_dead_letter_s_mark_hides_nothing(sql: Installed, docs: Documents) -> None:
    """The writer's own mark does, and stays when its dead letter is purged."""
    await sql.mirror.apply([room(docs, "a")])
    await sql.mirror.mark_unverified([replace(mark(docs, "a", 11), message_id="e1")])
    assert await shown(sql) == (["a"], True, False)


async def test_marked_again_the_newest_event_counts(sql: Installed, docs: Documents) -> None:
    """Events are set aside in any order; one of which nobody knows the version outlasts all."""
    await sql.mirror.apply([room(docs, "a", 15)])
    for at in (20, 10):
        await sql.mirror.mark_unverified([mark(docs, "a", at)])
    assert await shown(sql) == ([], False, False)
    assert await sql.mirror.clear_overtaken() == 0
    await sql.mirror.apply([room(docs, "a", 21)])
    assert await shown(sql) == (["a"], True, False)
    for unknown in (mark(docs, "a", None), mark(docs, "a", 30)):
        await sql.mirror.mark_unverified([unknown])
    await sql.mirror.apply([room(docs, "a", 31)])
    assert await shown(sql) == ([], False, False)
    assert await sql.mirror.clear_unverified(await sql.mirror.unverified()) == 1
    assert await shown(sql) == (["a"], True, False)


def test_of_two_marks_of_one_conversation_one_stands(docs: Documents) -> None:
    """In one call as in two."""
    older, newer, unknown = (mark(docs, "a", at) for at in (10, 20, None))
    assert newest_of(older, newer) == newest_of(newer, older) == newer
    assert newest_of(unknown, newer) == newest_of(newer, unknown) == unknown


async def test_one_mark_stands_for_all_where_ids_may_be_too_long(
    server: Server, base_us: int, tmp_path: Path
) -> None:
    """The id of a mark holds no longer ones: what cannot be told apart is not served."""
    model = load_model([declared_with_long_keys(tmp_path)], with_builtin=False)
    sql, docs = await server.installed(model), Documents(model, base_us)
    long = "x" * model["DmConversation"].keys[0].max_length
    await sql.mirror.apply([room(docs, "a"), room(docs, long)])
    assert await can_read(sql, long)
    await sql.mirror.mark_unverified([mark(docs, long, 11)])
    assert await shown(sql) == ([], False, False)
    assert not await can_read(sql, "a")
    [kept] = await sql.mirror.unverified()
    assert await sql.mirror.clear_overtaken() == 0
    assert (kept.path, kept.version) == (None, None)
