"""A configuration that would have the mirror call for itself is refused before anything runs."""

from __future__ import annotations

import pytest

from storemirror.sql.postgres.connection import MIRROR, Database
from tests.acceptance.conftest import Operator

pytestmark = pytest.mark.postgres


async def tables_in(dsn: str, schema: str) -> list[str]:
    database = Database(dsn, MIRROR, max_size=1)
    await database.open()
    found = await database.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema,)
    )
    await database.aclose()
    return [name for (name,) in found]


@pytest.mark.parametrize(
    ("dsn", "schema"), [("STOREMIRROR_DOCUMENTS_DSN", "documents"), ("STOREMIRROR_BUS_DSN", "bus")]
)
async def test_a_mirror_among_watched_tables_is_refused(
    deployed: Operator, dsn: str, schema: str
) -> None:
    """Every row it wrote would be told of again: the bill of a loop comes at the month's end."""
    shared = deployed.environment[dsn]
    before = await tables_in(shared, schema)
    assert before
    looped = {"STOREMIRROR_SQL_DSN": shared, "STOREMIRROR_SQL_SCHEMA_NAME": schema}
    for command in (("up",), ("schema", "apply")):
        ended = await deployed.runs(*command, **looped)
        assert ended.status == 4, ended.err
        assert "sql.schema_name" in ended.err
        assert f"{schema}.dsn" in ended.err
    assert await tables_in(shared, schema) == before


async def test_one_database_for_everything_runs(deployed: Operator) -> None:
    """Each part has a schema of its own: nothing collides."""
    one = deployed.environment["STOREMIRROR_SQL_DSN"]
    shared = {"STOREMIRROR_DOCUMENTS_DSN": one, "STOREMIRROR_BUS_DSN": one}
    together = Operator({**deployed.environment, **shared}, deployed.folder)
    assert (await together.runs("bus", "provision")).status == 0
    ended = await together.runs("check")
    assert ended.status == 0, ended.err
