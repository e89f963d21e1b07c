"""Two releases with two declarations write at once, as in every deployment without a pause."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import ParentMissing
from storemirror.event.change import Origin, Outcome
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.model.mapping import MappedRow
from storemirror.sql.port import MirrorRow, RowEvent
from tests.contract.sql.side_door import Installed, Server
from tests.support.events import written
from tests.support.mirrors import MirrorUnderTest

ORDER = """
[[entity]]
name     = "ShopOrder"
check    = "orders"
path     = "orders/{orderId}"
category = "sqlMirror"
"""
LINE = """
[[entity]]
name     = "ShopLine"
check    = "lines"
path     = "orders/{orderId}/lines/{lineId}"
category = "sqlMirror"
[entity.columns]
addedAt = { type = "timestamp", required = true }
"""
OLD = ORDER + '[entity.columns]\ntotal = { type = "text" }\n' + LINE
NEW = (
    ORDER
    + """raw = true
[entity.columns]
total = { type = "text" }
note  = { type = "text", required = true }
[[entity.children]]
name = "ShopReader"
key  = "userId"
from = "readerIds"
[entity.derived]
title = { first_of = ["note", "total"] }
"""
    + LINE
    + """[entity.rollup]
into   = "ShopOrder"
count  = "lineCount"
latest = { by = "addedAt", set = { lastLineId = "lineId" } }
"""
)


#: Dialect -> what lets stubs be made only of rows that a writer names as parents, and by what.
ONLY_PARENTS_OF_ITS_OWN = {
    "postgres": ("|| COALESCE(p_rows -> 'shop_line', '[]')", ""),
    "sqlserver": ("OPENJSON(@Rows, '$.ShopLine')", "OPENJSON(@Rows, '$.Nothing')"),
}


class Overlap:
    """One database, and a writer of each release."""

    def __init__(self, old: Installed, new: Installed) -> None:
        self.old = old
        self.new = new
        self.base_us = SystemClock().now_us() - 3_600_000_000

    def order(self, model: Model, key: str, at: int, origin: Origin = Origin.TRIGGER) -> RowEvent:
        """One state of an order, as a release with this declaration maps it."""
        event = written(
            model,
            "ShopOrder",
            (key,),
            self.base_us + at,
            origin=origin,
            total=f"t{at}",
            note=f"n{at}",
        )
        assert event.row is not None
        if not model["ShopOrder"].has_raw:
            return event
        row = MappedRow(
            columns=event.row.columns,
            children={"ShopReader": [{"userId": "ada"}]},
            raw='{"fields": {}}',
            lossy_fields=(),
        )
        return RowEvent(entity=event.entity, change=event.change, key=event.key, row=row)

    def line(
        self, model: Model, key: tuple[str, str], at: int, origin: Origin = Origin.TRIGGER
    ) -> RowEvent:
        """One state of a line."""
        at_us = self.base_us + at
        return written(model, "ShopLine", key, at_us, origin=origin, addedAt=at_us)

    async def row(self, key: str) -> MirrorRow:
        """Read an order as the new release does."""
        row = await self.new.mirror.row(self.new.model["ShopOrder"], (key,))
        assert row is not None
        return row

    async def outdated(self) -> int:
        """Count orders that the old release mapped."""
        return (await self.new.schema.outdated_counts(max_count=100))["ShopOrder"]


@pytest.fixture
async def overlap(server: Server, tmp_path: Path) -> Overlap:
    """The old release installed and at work; the new one not deployed yet."""
    models = []
    for name, text in (("old", OLD), ("new", NEW)):
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        models.append(load_model([file], with_builtin=False))
    address = await server.new_database()
    old, new = [await server.opened(address, model) for model in models]
    await old.schema.apply()
    await old.mirror.verify_schema()
    return Overlap(old, new)


async def deploy(overlap: Overlap) -> None:
    """Install the new release beside the running old one."""
    await overlap.new.schema.apply()
    await overlap.new.mirror.verify_schema()


async def test_a_backfill_fills_what_was_added(overlap: Overlap) -> None:
    """A column, a child table, the whole document, a derived column, and a roll-up."""
    old, new = overlap.old, overlap.new
    await old.mirror.apply([overlap.order(old.model, k, 1) for k in "ab"])
    await old.mirror.apply([overlap.line(old.model, ("a", n), 1) for n in ("1", "2")])
    await deploy(overlap)
    before = await overlap.row("a")
    assert (before.mapping_revision, before.columns["note"], before.raw) == (1, None, None)
    # What rows say is right at once; what documents say comes with the backfill.
    assert (before.columns["lineCount"], before.columns["lastLineId"]) == (2, "2")
    assert before.columns["title"] == "t1"
    assert await overlap.outdated() == 2
    backfilled = [overlap.order(new.model, k, 1, Origin.BACKFILL) for k in "ab"]
    assert await new.mirror.apply(backfilled) == [Outcome.REPAIRED] * 2
    row = await overlap.row("a")
    assert (row.mapping_revision, row.columns["note"], row.columns["title"]) == (2, "n1", "n1")
    assert row.raw is not None
    assert set(row.children["ShopReader"]) == {"ada"}
    assert row.columns["lineCount"] == 2
    assert await overlap.outdated() == 0


async def test_the_older_writer_neither_fails_nor_undoes(overlap: Overlap) -> None:
    """Its repeated deliveries are duplicates; its late ones are stale."""
    old, new = overlap.old, overlap.new
    await old.mirror.apply([overlap.order(old.model, "a", 5)])
    await deploy(overlap)
    await new.mirror.apply([overlap.order(new.model, "a", 5, Origin.BACKFILL)])
    assert await old.mirror.apply([overlap.order(old.model, "a", 5)]) == [Outcome.DUPLICATE]
    again = overlap.order(old.model, "a", 5, Origin.BACKFILL)
    assert await old.mirror.apply([again]) == [Outcome.DUPLICATE]
    assert await old.mirror.apply([overlap.order(old.model, "a", 4)]) == [Outcome.STALE]
    row = await overlap.row("a")
    assert (row.mapping_revision, row.columns["note"]) == (2, "n5")
    assert set(row.children["ShopReader"]) == {"ada"}


async def test_a_newer_write_by_the_older_writer_is_counted_until_it_is_mapped_anew(
    overlap: Overlap,
) -> None:
    """The older release cannot know the column; nobody may believe that the backfill is done."""
    old, new = overlap.old, overlap.new
    await deploy(overlap)
    await new.mirror.apply([overlap.order(new.model, "a", 1)])
    assert await overlap.outdated() == 0
    assert await old.mirror.apply([overlap.order(old.model, "a", 2)]) == [Outcome.APPLIED]
    assert (await overlap.row("a")).columns["note"] is None
    assert await overlap.outdated() == 1
    backfilled = overlap.order(new.model, "a", 2, Origin.BACKFILL)
    assert await new.mirror.apply([backfilled]) == [Outcome.REPAIRED]
    assert (await overlap.row("a")).columns["note"] == "n2"
    assert await overlap.outdated() == 0


async def test_the_older_writer_gets_past_a_roll_up_that_it_does_not_know(
    overlap: Overlap,
) -> None:
    """Its line has no order yet, and it knows of no order to make a stub of."""
    await deploy(overlap)
    old = overlap.old
    lines = [overlap.line(old.model, ("late", n), 1) for n in ("1", "2")]
    assert await old.mirror.apply(lines) == [Outcome.APPLIED] * 2
    together = [overlap.order(old.model, "b", 1), overlap.line(old.model, ("other", "1"), 1)]
    assert await old.mirror.apply(together) == [Outcome.APPLIED] * 2
    assert (await overlap.row("late")).columns["lineCount"] == 2
    assert (await overlap.row("other")).columns["lineCount"] == 1


async def test_without_its_stub_the_older_writer_is_seen_to_fail(
    overlap: Overlap, dialect: str
) -> None:
    """Else the test above would hold by luck."""
    await deploy(overlap)
    await overlap.new.plant(ONLY_PARENTS_OF_ITS_OWN[dialect])
    with pytest.raises(ParentMissing):
        await overlap.old.mirror.apply([overlap.line(overlap.old.model, ("late", "1"), 1)])


async def test_a_deployment_waits_for_the_batch_in_hand_before_it_locks_a_table(
    overlap: Overlap,
) -> None:
    """A writer that has the one and wants the other would deadlock with it."""
    old, new = overlap.old, overlap.new
    if not isinstance(old, MirrorUnderTest):
        pytest.skip("needs SQL Server to show who waits, and few users have the right to see it")
    waiting = (
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    locked = (
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        " AND relation = ANY (ARRAY['storemirror.shop_order', 'storemirror.shop_line']::regclass[])"
    )
    async with asyncio.TaskGroup() as tasks, old.database.transaction() as conn:
        await conn.execute("SELECT storemirror.lock_rows('{}'::jsonb)")
        deployment = tasks.create_task(new.schema.apply())
        clock = SystemClock()
        while not await old.database.fetch(waiting):
            await clock.sleep(0.02)
        assert await old.database.fetch(locked) == [(0,)]
        assert not deployment.done()
        await conn.execute("SELECT count(*) FROM storemirror.shop_line")
    assert (await deployment).differences == ()


async def test_a_roll_up_that_was_gone_for_a_while_is_recomputed(overlap: Overlap) -> None:
    """Nobody counted meanwhile."""
    old, new = overlap.old, overlap.new
    await deploy(overlap)
    await new.mirror.apply([overlap.line(new.model, ("a", "1"), 1)])
    assert (await overlap.row("a")).columns["lineCount"] == 1
    await old.schema.apply()
    await old.mirror.verify_schema()
    await old.mirror.apply([overlap.line(old.model, ("a", "2"), 2)])
    await deploy(overlap)
    assert (await overlap.row("a")).columns["lineCount"] == 2
