"""What is sent to SQL Server for users' reads: every table is sought, none is scanned."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from storemirror.model.load import load_model
from storemirror.sql.sqlserver.reads import ReadStatements
from storemirror.sql.sqlserver.rendering import Rendering

#: A table of the mirror under its alias, and its hint if it has one.
_TABLE = re.compile(
    r"(?:FROM|JOIN) (\[dbo\]\.\[\w+\] AS \w+)( WITH \((?:INDEX \(\S+\), )?FORCESEEK\))?"
)


def batches() -> Iterator[str]:
    """Every batch that reads."""
    made = ReadStatements(Rendering(load_model(), schema_name="dbo", procedures={}))
    yield from made.inbox
    yield from made.inbox_but_unfit
    yield from made.messages.values()
    yield made.relationship
    yield from (made.version_of(entity) for entity in load_model())


def unsought(batch: str) -> list[str]:
    """Give the tables that the server might scan."""
    return [table for table, hint in _TABLE.findall(batch) if not hint]


@pytest.mark.parametrize("batch", list(batches()), ids=lambda text: text.split()[1][:20])
def test_every_table_is_sought(batch: str) -> None:
    """A plan that was made while the tables were small would scan them once they are large."""
    assert len(_TABLE.findall(batch)) == batch.count("[dbo].")
    assert unsought(batch) == []


def test_a_table_without_a_hint_is_noticed() -> None:
    """Else the test above would hold for anything."""
    batch = next(batches()).replace(
        "[DmConversation] AS c WITH (FORCESEEK)", "[DmConversation] AS c"
    )
    assert unsought(batch) == ["[dbo].[DmConversation] AS c"]


@pytest.mark.parametrize("batch", list(batches()), ids=lambda text: text.split()[1][:20])
def test_joins_are_not_left_to_statistics(batch: str) -> None:
    """Where tables are joined it is from the user's own rows on, one by one."""
    has_join = " JOIN " in batch
    assert has_join == ("OPTION (LOOP JOIN, FORCE ORDER, MAXDOP 1)" in batch)
