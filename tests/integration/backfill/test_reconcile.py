"""Gaps planted on both sides are found and mended; what is under way is left alone."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER
from storemirror.errors import CheckIncomplete
from storemirror.event.change import RowState
from storemirror.source.port import Write
from tests.integration.backfill.world import BackfillWorld

pytestmark = pytest.mark.postgres


async def mirrored(filled: BackfillWorld, steps: int = 200) -> None:
    """Let the app write, and have all of it mirrored."""
    await filled.live(steps)
    await filled.world.catch_up()


async def some_paths(filled: BackfillWorld, count: int) -> list[str]:
    entity = filled.world.model["DmMessage"]
    async with filled.world.store.pinned() as view:
        paths = [d.path async for page in view.scan(entity.path) for d in page.documents]
    return paths[:: max(len(paths) // count, 1)][:count]


async def rewrite(filled: BackfillWorld, path: str) -> None:
    """Change a document without any trigger hearing of it."""
    read = await filled.world.store.get(path)
    assert read.document is not None
    fields = {**read.document.fields, "body": {"stringValue": "changed"}}
    await filled.world.store.commit([Write(path=path, fields=fields)])


async def test_nothing_is_published_where_both_sides_agree(filled: BackfillWorld) -> None:
    """It may run every night."""
    await mirrored(filled)
    found = await filled.reconcile()
    assert found.published_count == found.backwards_count == 0
    assert sum(c.document_count for c in found.counts.values()) > 50
    for counts in found.counts.values():
        assert counts.document_count == counts.live_row_count


async def test_gaps_of_every_kind_are_mended(filled: BackfillWorld) -> None:
    """Missing documents, documents changed unheard, rows whose document is gone."""
    await mirrored(filled)
    gone, changed, removed = await some_paths(filled, 3)
    await filled.world.store.commit([Write(path=gone, fields=None)])
    await rewrite(filled, changed)
    entity, key = filled.world.model.match(removed)
    await filled.world.sql.execute(
        b"DELETE FROM storemirror.dm_message WHERE conversation_id = %s AND message_id = %s", key
    )
    await filled.live(60, seed=2)
    await filled.forget_outbox()
    assert not (await filled.world.check()).is_clean
    found = await filled.reconcile()
    messages = found.counts[entity.check]
    assert messages.deleted_count == 1
    assert messages.older_count == 1
    assert messages.missing_count >= 1
    assert found.counts["follow"].missing_count > 0
    await filled.world.settle()
    after = await filled.world.check()
    # The row that was removed by hand is one its conversation had counted already.
    await filled.world.repair(after)
    assert (await filled.world.check()).is_clean
    assert (await filled.reconcile(run="r2")).published_count == 0


async def test_late_events_do_not_revive_what_was_deleted(filled: BackfillWorld) -> None:
    """The delete carries the read time: later than any write that it hides."""
    await filled.live(100)
    [path] = await some_paths(filled, 1)
    await filled.world.store.commit([Write(path=path, fields=None)])
    async with filled.world.store.outbox_batch() as batch:
        pass
    late = [c for c in batch.changes if c.path == path and c.after is not None]
    assert late
    assert await filled.backfill()
    await filled.world.settle()
    entity, key = filled.world.model.match(path)
    change = late[0].after
    assert change is not None
    # The write arrives alone, as if the delete had been lost with the outage.
    await filled.world.publisher.publish([filled.message(late[0])])
    await filled.world.settle()
    revived = await filled.world.mirror.row(entity, key)
    assert revived is not None
    assert revived.state is RowState.LIVE
    assert (await filled.reconcile()).counts["messages"].deleted_count == 1
    await filled.world.settle()
    await filled.world.publisher.publish([filled.message(late[0], run="again")])
    await filled.world.settle()
    row = await filled.world.mirror.row(entity, key)
    assert row is not None
    assert row.state is RowState.TOMBSTONE
    assert (await filled.world.check()).is_clean


async def test_a_dry_run_publishes_nothing(filled: BackfillWorld) -> None:
    """Only counting is asked for."""
    await filled.live(50)
    await filled.forget_outbox()
    planned = await filled.reconcile(is_dry_run=True)
    assert planned.published_count > 0
    await filled.world.settle()
    done = await filled.reconcile()
    assert done.published_count == planned.published_count


async def test_a_document_older_than_its_row_is_said_and_left_alone(
    filled: BackfillWorld,
) -> None:
    """After a restore from backup commit times go backwards; an event would be stale for ever."""
    await mirrored(filled)
    path, other = await some_paths(filled, 2)
    entity, key = filled.world.model.match(path)
    await filled.world.sql.execute(
        b"UPDATE storemirror.dm_message SET last_event_version = last_event_version + 2"
        b" WHERE conversation_id = %s AND message_id = %s",
        key,
    )
    found = await filled.reconcile()
    assert found.backwards_listed == (path,)
    assert found.counts[entity.check].backwards_count == 1
    assert found.published_count == 0
    assert other not in found.backwards_listed


async def test_a_reconcile_that_is_told_to_stop_ends_after_the_page_in_hand(
    filled: BackfillWorld,
) -> None:
    """What it has seen is published; the rest is for the next one."""
    await filled.crowd(60)
    stop = asyncio.Event()
    filled.store.before_page = stop.set
    found = await filled.reconcile(stop=stop, store=filled.store)
    assert (found.is_finished, found.is_stopped) == (False, True)
    assert found.published_count == found.counts["follow"].document_count == 20
    assert (await filled.world.admin.stats(SUBSCRIPTION_SQL_WRITER)).depth == 20


async def test_a_backlog_that_does_not_drain_ends_it(filled: BackfillWorld) -> None:
    """What is under way would look like a gap."""
    await filled.live(5)
    with pytest.raises(CheckIncomplete):
        await filled.reconcile(drain_timeout_s=0.1)


async def test_a_dead_letter_is_not_made_twice(filled: BackfillWorld) -> None:
    """A document that does not fit has no row, and never will; once is enough."""
    await mirrored(filled, 20)
    odd = Write(path="users/a/blocks/b", fields={"createdAt": {"stringValue": "yesterday"}})
    await filled.world.store.commit([odd])
    await filled.forget_outbox()
    assert (await filled.reconcile()).counts["blocks"].missing_count == 1
    await filled.world.settle()
    again = await filled.reconcile(run="r2")
    assert again.published_count == 0
    assert again.counts["blocks"].dead_lettered_count == 1
