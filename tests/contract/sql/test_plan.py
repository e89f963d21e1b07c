"""`schema diff` says what `schema apply` does: not more, and not less."""

from __future__ import annotations

import re

import pytest

from storemirror.errors import SchemaBoundElsewhere, SchemaChangeRefused
from storemirror.model.entity import Model
from storemirror.sql.plan import SchemaPlan, Step
from tests.contract.sql.side_door import Installed, Server
from tests.contract.sql.test_schema import Shop, shop

__all__ = ["shop"]

LINES = """
[[entity]]
name     = "ShopLine"
check    = "lines"
path     = "orders/{orderId}/lines/{lineId}"
category = "sqlMirror"
[entity.columns]
addedAt = { type = "timestamp", required = true }
paidAt  = { type = "timestamp", required = true }
"""
ROLLUP = """
[entity.rollup]
into   = "ShopOrder"
count  = "lineCount"
latest = {{ by = "{}", set = {{ lastLineId = "lineId" }} }}
"""


def told(plan: SchemaPlan, step: Step, kind: str) -> list[str]:
    """Name what is done to one kind of thing."""
    return [c.name for c in plan.changes if (c.step, c.kind) == (step, kind)]


async def test_an_empty_database_is_told_all_of_it(server: Server, model: Model) -> None:
    """The first look: every table, every procedure."""
    sql = await server.opened(await server.new_database(), model)
    plan = await sql.schema.plan()
    assert len(told(plan, Step.ADD, "table")) > 6
    assert len(told(plan, Step.ADD, "procedure")) > 17
    assert told(plan, Step.REGISTER, "declaration") == [e.name for e in model]
    assert not plan.backfills
    assert not plan.is_refused
    assert not (await sql.schema.status()).is_installed


async def test_what_is_installed_needs_nothing(sql: Installed) -> None:
    """Every kind of thing that apply makes is read back as what it is."""
    plan = await sql.schema.plan()
    assert plan.changes == ()
    assert plan.is_empty
    assert plan.kept == ()


async def test_the_plan_is_told_before_it_is_carried_out(server: Server, model: Model) -> None:
    """What `schema apply` prints is what was decided under its lock, not a second look."""
    sql = await server.opened(await server.new_database(), model)
    before = await sql.schema.plan()
    carried_out: list[SchemaPlan] = []
    await sql.schema.apply(on_planned=carried_out.append)
    await sql.schema.apply(on_planned=carried_out.append)
    assert carried_out[0] == before
    assert carried_out[1].is_empty


async def test_new_columns_children_and_raw_are_told_with_their_backfill(
    server: Server, shop: Shop
) -> None:
    """Only the documents know what the new columns hold."""
    address = await server.new_database()
    await (await server.opened(address, shop.model())).schema.apply()
    wide = shop.model(
        'note = { type = "text" }',
        extra='[[entity.children]]\nname = "ShopReader"\nkey = "userId"\nfrom = "readerIds"\n',
    )
    sql = await server.opened(address, wide)
    plan = await sql.schema.plan()
    assert told(plan, Step.ADD, "column") == [sql.spelling.column("ShopOrder.note")]
    assert told(plan, Step.ADD, "table") == [sql.spelling.column("ShopReader")]
    assert [(b.check, b.mapping_revision, b.fills) for b in plan.backfills] == [
        ("orders", 2, ("note", "ShopReader"))
    ]
    assert not plan.backfills[0].is_adoption
    await sql.schema.apply()
    assert (await sql.schema.plan()).is_empty


async def test_a_roll_up_that_is_added_is_recomputed(server: Server, shop: Shop) -> None:
    """Its rows are there already: it is right from the first moment."""
    address = await server.new_database()
    await (await server.opened(address, shop.model(extra=LINES))).schema.apply()
    sql = await server.opened(address, shop.model(extra=LINES + ROLLUP.format("addedAt")))
    plan = await sql.schema.plan()
    assert told(plan, Step.RECOMPUTE, "roll-up") == ["ShopLine"]
    assert told(plan, Step.ADD, "index") == [sql.spelling.index("ShopLine", "Latest")]
    await sql.schema.apply()
    assert (await sql.schema.plan()).is_empty


async def test_the_latest_by_another_column_gets_another_index(server: Server, shop: Shop) -> None:
    """The old one under the same name would answer nothing, and every event would sort."""
    address = await server.new_database()
    for by in ("addedAt", "paidAt"):
        sql = await server.opened(address, shop.model(extra=LINES + ROLLUP.format(by)))
        plan = await sql.schema.plan()
        await sql.schema.apply()
    assert told(plan, Step.REPLACE, "index") == [sql.spelling.index("ShopLine", "Latest")]
    assert told(plan, Step.RECOMPUTE, "roll-up") == ["ShopLine"]
    assert (await sql.schema.plan()).is_empty


async def test_a_field_that_becomes_required_is_told(server: Server, shop: Shop) -> None:
    """Nothing is refused for it, but documents without it will become dead letters."""
    address = await server.new_database()
    await (await server.opened(address, shop.model('note = { type = "text" }'))).schema.apply()
    sql = await server.opened(address, shop.model('note = { type = "text", required = true }'))
    plan = await sql.schema.plan()
    assert told(plan, Step.ADD, "constraint") == [sql.spelling.required("ShopOrder")]
    [note] = plan.notes
    assert "note required from now on" in note
    await sql.schema.apply()
    assert (await sql.schema.plan()).is_empty


async def test_a_column_that_left_the_declaration_is_kept(server: Server, shop: Shop) -> None:
    """It may hold the only copy of something."""
    address = await server.new_database()
    await (await server.opened(address, shop.model('note = { type = "text" }'))).schema.apply()
    sql = await server.opened(address, shop.model())
    plan = await sql.schema.plan()
    note = sql.spelling.column("ShopOrder.note")
    assert plan.kept == (note,)
    assert not plan.is_refused
    await sql.schema.apply()
    assert (await sql.schema.plan()).is_empty
    assert (await sql.schema.plan()).kept == (note,)


async def test_a_type_that_changed_is_refused_before_and_at_apply(
    sql: Installed, server: Server
) -> None:
    """The word for harmless alterations does not help: values would change."""
    await sql.retype(sql.model["DmMessage"], "body")
    for may_alter_columns in (False, True):
        plan = await sql.schema.plan(may_alter_columns=may_alter_columns)
        assert [r.column for r in plan.refusals] == [sql.spelling.column("body")]
        declared = re.escape(sql.spelling.retyped[1])
        with pytest.raises(SchemaChangeRefused, match=f"declared as {declared}"):
            await sql.schema.apply(may_alter_columns=may_alter_columns)


async def test_a_procedure_changed_by_hand_is_replaced(sql: Installed) -> None:
    """A hurried mend in production is seen by the next deployment."""
    await sql.spoil_procedure("PurgeFollowEdge")
    plan = await sql.schema.plan()
    name = sql.spelling.procedure("PurgeFollowEdge")
    assert told(plan, Step.REPLACE, "procedure") == [name]
    await sql.schema.apply()
    assert (await sql.schema.plan()).is_empty


async def test_the_plan_for_another_firestore_is_refused(
    sql: Installed, server: Server, model: Model
) -> None:
    """A diff against another app's mirror would be read as news."""
    address = await server.new_database()
    await (await server.opened(address, model)).schema.apply()
    other = await server.opened(address, model, project="other")
    with pytest.raises(SchemaBoundElsewhere, match="mirrors project demo"):
        await other.schema.plan()
