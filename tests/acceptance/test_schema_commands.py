"""A deployment is looked at before it is done, and old tombstones go, by the commands alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.source.port import Write
from storemirror.sql.postgres.connection import MIRROR, Database
from tests.acceptance.conftest import Operator
from tests.acceptance.test_operator import conversation, damage, message, write_documents
from tests.contract.sql.test_schema import ORDERS

pytestmark = pytest.mark.postgres


def declared(operator: Operator, text: str) -> Operator:
    """Give the operator whose deployment declares this besides the built-in entities."""
    file = operator.folder / "shop.toml"
    file.write_text(text)
    return Operator({**operator.environment, "STOREMIRROR_MODEL_FILES": str(file)}, Path())


async def executed(operator: Operator, statement: bytes) -> None:
    """Change the database past every command."""
    database = Database(operator.environment["STOREMIRROR_SQL_DSN"], MIRROR)
    await database.open()
    async with database.connection() as conn:
        await conn.execute(statement)
    await database.aclose()


async def test_a_diff_ends_like_diff_tools_do(operator: Operator) -> None:
    """1 before, the same lines from apply, 0 after; nothing is changed by looking."""
    before = await operator.runs("schema", "diff")
    assert before.status == 1, before.err
    assert "add table dm_message (" in before.out
    assert "nothing was changed" in before.out
    assert (await operator.runs("schema", "status")).status == 1
    applied = await operator.runs("schema", "apply")
    assert applied.status == 0, applied.err
    lines = [line for line in before.out.splitlines() if line.startswith(("add", "register"))]
    assert len(lines) > 30
    assert applied.out.splitlines()[: len(lines)] == lines
    after = await operator.runs("schema", "diff", "--json")
    assert (after.status, after.json()["is_empty"], after.json()["changes"]) == (0, True, [])
    assert (await operator.runs("schema", "diff")).out == "nothing to do\n"


async def test_a_new_column_is_told_until_its_backfill_is_done(deployed: Operator) -> None:
    """What to run next, and how much of it is left."""
    shop = declared(deployed, ORDERS)
    assert (await shop.runs("schema", "apply")).status == 0
    total = {"total": {"integerValue": "5"}, "note": {"stringValue": "n"}}
    await write_documents(shop, Write(path="orders/o1", fields=total))
    assert (await shop.runs("drain")).json()["applied"] == 1
    shop = declared(deployed, ORDERS + 'note = { type = "text" }\n')
    told = await shop.runs("schema", "diff")
    assert told.status == 1
    assert "add column shop_order.note text" in told.out
    assert "register declaration ShopOrder mapping revision 2" in told.out
    assert "next: ShopOrder: backfill --check=orders fills note" in told.out
    assert (await shop.runs("schema", "apply")).status == 0
    waiting = await shop.runs("schema", "status")
    assert "ShopOrder: 1 row mapped by an earlier declaration" in waiting.out
    assert waiting.status == 0
    filled = await shop.runs("backfill", "--check=orders", "--yes", "--direct")
    assert filled.status == 0, filled.err
    status = (await shop.runs("schema", "status", "--json")).json()
    assert status["outdated_counts"]["ShopOrder"] == 0
    assert (await shop.runs("check", "--check=orders")).status == 0


async def test_what_stands_in_the_way_has_a_status_of_its_own(operator: Operator) -> None:
    """A script tells "refused" from "something to do"; the word for it is named."""
    await executed(
        operator,
        b"CREATE SCHEMA storemirror; CREATE TABLE storemirror.user_block"
        b" (blocker_id text, blocked_id text, PRIMARY KEY (blocker_id, blocked_id))",
    )
    told = await operator.runs("schema", "diff")
    assert told.status == 6
    assert "refused: column user_block.blocker_id is not compared byte by byte" in told.out
    assert "`--alter-columns` does it" in told.out
    refused = await operator.runs("schema", "apply")
    assert refused.status == 6
    assert "nothing was changed" in refused.err
    assert "storemirror schema diff" in refused.err
    assert (await operator.runs("schema", "diff", "--alter-columns")).status == 1
    assert (await operator.runs("schema", "apply", "--alter-columns")).status == 0
    assert (await operator.runs("schema", "diff")).status == 0


async def test_old_tombstones_are_purged_by_a_command(deployed: Operator) -> None:
    """Children first, so that one run is enough; what is young stays."""
    conversation_path, message_path = conversation().path, message().path
    await write_documents(deployed, conversation(), message())
    gone = [Write(path=message_path, fields=None), Write(path=conversation_path, fields=None)]
    await write_documents(deployed, *gone)
    assert (await deployed.runs("drain")).json()["is_drained"]
    young = await deployed.runs("purge", "--older-than", "1d", "--json")
    assert young.status == 0, young.err
    assert set(young.json()["purged_counts"].values()) == {0}
    for table in (b"dm_message", b"dm_conversation"):
        old = b"UPDATE storemirror.%b SET applied_at = applied_at - interval '100 days'"
        await damage(deployed, old % table)
    other = await deployed.runs("purge", "--check=follow", "--json")
    assert other.json() == {"purged_counts": {"follow": 0}, "is_finished": True}
    purged = await deployed.runs("purge")
    assert purged.status == 0
    assert "messages: 1 row removed" in purged.out
    assert "conversations: 1 row removed" in purged.out
    assert (await deployed.runs("check")).status == 0


@pytest.mark.parametrize("age", ["5m", "90", "0d", "-1d", "1y"])
async def test_an_age_that_cannot_be_one_is_wrong_usage(operator: Operator, age: str) -> None:
    """A purge of what is young would make every event of the day a read."""
    ended = await operator.runs("purge", f"--older-than={age}")
    assert ended.status == 2
    assert "--older-than" in ended.err


async def test_rights_are_rendered_for_what_a_user_does(operator: Operator) -> None:
    """Of declared entities as well, for either database, and without asking one."""
    shop = declared(operator, ORDERS)
    rendered = await shop.runs("schema", "grants", "--role", "w", "--for", "write", "--for=check")
    assert rendered.status == 0, rendered.err
    assert '"storemirror"."shop_order"' in rendered.out
    assert "--   check: check, backfill" in rendered.out
    other = await shop.runs("schema", "grants", "--role=w", "--for=write", "--dialect=sqlserver")
    assert "GRANT SELECT, EXECUTE, VIEW DEFINITION ON SCHEMA::[dbo] TO [w];" in other.out
    assert (await shop.runs("schema", "grants", "--role=w", "--for=everything")).status != 0
    assert (await shop.runs("schema", "grants", "--for=write")).status != 0
