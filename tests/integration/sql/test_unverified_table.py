"""An installation from before there were marks of unverified documents."""

from __future__ import annotations

import pytest

from storemirror.errors import SchemaMismatch
from storemirror.model.load import load_model
from tests.contract.sql.side_door import Server

#: Dialect -> the table's name.
MARKS = {"postgres": "unverified_document", "sqlserver": "StoreMirrorUnverifiedDocument"}


async def test_a_missing_table_is_named_and_added(server: Server, dialect: str) -> None:
    """A purge that found no place for its marks would have to forget what it removes."""
    old = await server.installed(load_model())
    await old.execute_text(f"DROP TABLE {old.spelling.schema_name}.{MARKS[dialect]}")
    with pytest.raises(SchemaMismatch, match=f"{MARKS[dialect]} is missing"):
        await old.mirror.verify_schema()
    await old.schema.apply()
    await old.mirror.verify_schema()
    assert await old.mirror.unverified_count() == 0
