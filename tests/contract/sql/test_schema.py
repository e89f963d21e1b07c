"""Installing is repeatable, additive, and bound to one Firestore."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from storemirror.errors import ConfigError, SchemaMismatch
from storemirror.event.change import Origin, Outcome
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed, Server
from tests.support.events import written

ORDERS = """
[[entity]]
name     = "ShopOrder"
check    = "orders"
path     = "orders/{orderId}"
category = "sqlMirror"
[entity.columns]
total = { type = "integer" }
"""


@dataclass
class Shop:
    """Declarations of a shop, of which there are several versions."""

    folder: Path

    def model(self, *columns: str, extra: str = "") -> Model:
        """Declare the orders with further columns."""
        file = self.folder / "shop.toml"
        file.write_text(ORDERS + "".join(f"{column}\n" for column in columns) + extra)
        return load_model([file], with_builtin=False)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """An entity of a user's own."""
    return Shop(tmp_path)


async def test_status_tells_before_and_after(server: Server, model: Model) -> None:
    """An operator sees what is missing and which command mends it."""
    sql = await server.opened(await server.new_database(), model)
    before = await sql.schema.status()
    assert not before.is_installed
    assert before.installed_version is None
    assert before.differences == (f"schema {sql.spelling.schema_name} is not installed",)
    with pytest.raises(SchemaMismatch, match="is not installed") as caught:
        await sql.mirror.verify_schema()
    assert "storemirror schema apply" in caught.value.hint
    after = await sql.schema.apply()
    assert after == await sql.schema.status()
    assert after.is_installed
    assert after.installed_version == after.expected_version
    assert (after.project, after.database) == ("demo", "(default)")
    assert after.mapping_revisions == dict.fromkeys((e.name for e in model), 1)
    assert after.differences == ()


async def test_applying_again_changes_nothing(sql: Installed, docs: Documents) -> None:
    """A deployment may run it each time."""
    await sql.mirror.apply([docs.message("c", "m", 1)])
    before = await sql.schema.status()
    assert await sql.schema.apply() == before
    assert await sql.mirror.apply([docs.message("c", "m", 1)]) == [Outcome.DUPLICATE]


async def test_two_deployments_at_once_both_succeed(server: Server, model: Model) -> None:
    """Two instances of a service start together."""
    address = await server.new_database()
    both = [await server.opened(address, model) for _ in range(2)]
    first, second = await asyncio.gather(*(sql.schema.apply() for sql in both))
    assert first == second
    assert first.differences == ()


@pytest.mark.parametrize(
    ("project", "store"), [("other", "(default)"), ("demo", "other")], ids=["project", "database"]
)
async def test_another_firestore_is_refused(
    project: str, store: str, server: Server, model: Model, shop: Shop
) -> None:
    """Two apps' documents in one table would overwrite each other."""
    address = await server.new_database()
    await (await server.opened(address, model)).schema.apply()
    sql = await server.opened(address, shop.model(), project=project, store=store)
    with pytest.raises(SchemaMismatch, match=r"mirrors project demo.*nothing was changed"):
        await sql.schema.apply()
    assert await sql.column_names("ShopOrder") == set()
    assert any("mirrors project demo" in line for line in (await sql.schema.status()).differences)
    with pytest.raises(SchemaMismatch, match=project if store == "(default)" else store):
        await sql.mirror.verify_schema()


async def test_a_later_version_is_refused(sql: Installed, server: Server, shop: Shop) -> None:
    """An old release must not put its procedures over those of a new one."""
    await sql.set_schema_version(99)
    with pytest.raises(SchemaMismatch, match=r"version 99 is installed.*nothing was changed"):
        await sql.schema.apply()
    with pytest.raises(SchemaMismatch, match="version 99"):
        await sql.mirror.verify_schema()


async def test_a_writer_works_on_the_version_before(sql: Installed, docs: Documents) -> None:
    """So that writers can be replaced before the schema is."""
    expected = (await sql.schema.status()).expected_version
    await sql.set_schema_version(expected - 1)
    await sql.mirror.verify_schema()
    assert (await sql.schema.apply()).installed_version == expected


async def test_a_new_column_counts_the_revision_up(
    server: Server, shop: Shop, base_us: int
) -> None:
    """A backfill then fills it, and the older writer goes on meanwhile."""
    address = await server.new_database()
    old = await server.opened(address, shop.model())
    await old.schema.apply()
    assert await old.mirror.verify_schema() == {"ShopOrder": 1}
    new = await server.opened(address, shop.model('note = { type = "text" }'))
    assert "is not the one installed" in (await new.schema.status()).differences[0]
    status = await new.schema.apply()
    assert status.mapping_revisions == {"ShopOrder": 2}
    assert await new.mirror.verify_schema() == {"ShopOrder": 2}
    assert await old.mirror.verify_schema() == {"ShopOrder": 1}

    by_old = written(old.model, "ShopOrder", ("o",), base_us, total="1")
    by_new = written(
        new.model, "ShopOrder", ("o",), base_us, total="1", note="n", origin=Origin.BACKFILL
    )
    assert await old.mirror.apply([by_old]) == [Outcome.APPLIED]
    assert await new.mirror.apply([by_new]) == [Outcome.REPAIRED]
    assert await old.mirror.apply([by_old]) == [Outcome.DUPLICATE]
    row = await new.mirror.row(new.model["ShopOrder"], ("o",))
    assert row is not None
    assert (row.mapping_revision, row.columns["note"]) == (2, "n")


async def test_a_column_that_is_no_longer_declared_stays(server: Server, shop: Shop) -> None:
    """Nothing is ever dropped; the older writer still fills it no more than the new one."""
    address = await server.new_database()
    wide = await server.opened(address, shop.model('note = { type = "text", required = true }'))
    await wide.schema.apply()
    narrow = await server.opened(address, shop.model())
    status = await narrow.schema.apply()
    assert status.differences == ()
    assert status.mapping_revisions == {"ShopOrder": 2}
    assert len(await narrow.column_names("ShopOrder")) == len(await wide.column_names("ShopOrder"))
    event = written(narrow.model, "ShopOrder", ("o",), 1, total="1")
    assert await narrow.mirror.apply([event]) == [Outcome.APPLIED]


async def test_going_back_to_an_earlier_declaration_is_a_new_revision(
    server: Server, shop: Shop
) -> None:
    """What was mapped in between is to be filled anew."""
    address = await server.new_database()
    old = await server.opened(address, shop.model())
    new = await server.opened(address, shop.model('note = { type = "text" }'))
    for sql in (old, new, old):
        await sql.schema.apply()
    assert await old.mirror.verify_schema() == {"ShopOrder": 3}
    assert await new.mirror.verify_schema() == {"ShopOrder": 2}


async def test_a_field_that_becomes_required_refuses_nothing_older(
    server: Server, shop: Shop, base_us: int
) -> None:
    """Rows from before and events of an older writer lack it without fault.

    Until the backfill neither such an event nor a roll-up into such a row may be refused: it
    would end as a dead letter.
    """
    address = await server.new_database()
    lines = """
[[entity]]
name     = "ShopLine"
check    = "lines"
path     = "orders/{orderId}/lines/{lineId}"
category = "sqlMirror"
[entity.columns]
sku = { type = "string" }
[entity.rollup]
into  = "ShopOrder"
count = "lineCount"
"""
    old = await server.opened(address, shop.model(extra=lines))
    await old.schema.apply()
    order = written(old.model, "ShopOrder", ("o",), base_us, total="1")
    assert await old.mirror.apply([order]) == [Outcome.APPLIED]
    new = await server.opened(
        address, shop.model('note = { type = "text", required = true }', extra=lines)
    )
    await new.schema.apply()
    line = written(new.model, "ShopLine", ("o", "l"), base_us, sku="s")
    assert await new.mirror.apply([line]) == [Outcome.APPLIED]
    late = written(old.model, "ShopOrder", ("o",), base_us + 1, total="2")
    assert await old.mirror.apply([late]) == [Outcome.APPLIED]
    row = await new.mirror.row(new.model["ShopOrder"], ("o",))
    assert row is not None
    assert (row.columns["lineCount"], row.columns["total"]) == (1, 2)


async def test_a_column_of_another_type_is_refused(sql: Installed) -> None:
    """Changing it would change what rows hold; nothing is done, not even half of it."""
    await sql.retype(sql.model["DmMessage"], "body")
    status = await sql.schema.status()
    place = sql.spelling.column("DmMessage.body")
    found, declared = sql.spelling.retyped
    assert f"column {place} is {found} and is declared as {declared}" in status.differences[0]
    with pytest.raises(SchemaMismatch, match=r"would change rows.*nothing was changed"):
        await sql.schema.apply()


async def test_a_declaration_of_another_type_installs_nothing_of_itself(
    server: Server, shop: Shop
) -> None:
    """The column beside it is not added either."""
    address = await server.new_database()
    await (await server.opened(address, shop.model())).schema.apply()
    (shop.folder / "shop.toml").write_text(
        ORDERS.replace('"integer"', '"text"') + 'note = { type = "text" }\n'
    )
    changed = load_model([shop.folder / "shop.toml"], with_builtin=False)
    sql = await server.opened(address, changed)
    before = await sql.column_names("ShopOrder")
    declared = re.escape(sql.spelling.retyped[1])
    with pytest.raises(SchemaMismatch, match=f"declared as {declared}"):
        await sql.schema.apply()
    assert await sql.column_names("ShopOrder") == before


async def test_a_derived_column_computed_otherwise_is_refused(server: Server, shop: Shop) -> None:
    """The database goes on computing it the old way, and nobody would know."""
    address = await server.new_database()
    dates = ('paidAt = { type = "timestamp" }', 'madeAt = { type = "timestamp" }')
    derived = '[entity.derived]\nlastAt = {{ first_of = ["{}", "{}"] }}\n'
    one = shop.model(*dates, extra=derived.format("paidAt", "madeAt"))
    await (await server.opened(address, one)).schema.apply()
    other = shop.model(*dates, extra=derived.format("madeAt", "paidAt"))
    sql = await server.opened(address, other)
    with pytest.raises(SchemaMismatch, match=sql.spelling.column("lastAt")):
        await sql.schema.apply()


async def test_renamed_procedures_are_installed_and_called(
    server: Server, model: Model, docs: Documents
) -> None:
    """Database administrators have rules for names; `SQL_PROC_` settings follow them."""
    address = await server.new_database()
    names = {
        "SQL_PROC_UPSERT_DM_MESSAGE": "usp_write_message",
        "SQL_PROC_LOCK_ROWS": "usp_lock",
        "SQL_PROC_ENSURE_PARENTS": "usp_parents",
        "SQL_PROC_PURGE_FOLLOW_EDGE": f"{server.schema_name(address)}.usp_purge",
    }
    sql = await server.opened(address, model, procedures=names)
    assert (await sql.schema.apply()).differences == ()
    assert set(await sql.mirror.apply([docs.message("c", "m", 1), docs.follow("a", "b", 1)])) == {
        Outcome.APPLIED
    }
    assert await sql.mirror.purge(model["FollowEdge"], older_than_s=600, max_count=1) == 0
    plain = await server.opened(address, model)
    missing = (await plain.schema.status()).differences
    name = plain.spelling.procedure("UpsertDmMessage")
    assert f"procedure {name} is missing" in missing
    with pytest.raises(SchemaMismatch, match=f"{re.escape(name)} is missing"):
        await plain.mirror.verify_schema()


async def test_a_setting_for_no_procedure_is_refused(server: Server, model: Model) -> None:
    """A typing error would else leave the procedure under its old name."""
    with pytest.raises(ConfigError, match="SQL_PROC_UPSERT_DM_MESAGE: no such procedure"):
        await server.opened(
            await server.new_database(), model, procedures={"SQL_PROC_UPSERT_DM_MESAGE": "x"}
        )


async def test_a_name_that_the_database_would_cut_is_refused(server: Server, model: Model) -> None:
    """Before anything is opened: cut, two names could become one."""
    with pytest.raises(ConfigError, match="at most"):
        await server.opened(
            await server.new_database(), model, procedures={"SQL_PROC_UPSERT_DM_MESSAGE": "x" * 200}
        )
