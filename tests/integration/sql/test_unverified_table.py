"""An installation from before there were marks of unverified documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from storemirror.errors import SchemaMismatch
from storemirror.model.load import load_model
from tests.support.mirrors import installed_mirror

pytestmark = pytest.mark.postgres


async def test_a_missing_table_is_named_and_added(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """A purge that found no place for its marks would have to forget what it removes."""
    async with installed_mirror(load_model(), await new_database()) as old:
        await old.execute("DROP TABLE storemirror.unverified_document")
        with pytest.raises(SchemaMismatch, match="unverified_document is missing"):
            await old.mirror.verify_schema()
        await old.schema.apply()
        await old.mirror.verify_schema()
        assert await old.mirror.unverified_count() == 0
