"""What is installed is known however a server's catalogue tells of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import pytest

from storemirror.model.load import load_model
from storemirror.sql.catalogue import FoundSchema, WantedSchema, WantedTable, rollup_entry
from storemirror.sql.planning import decide_differences, decide_plan
from storemirror.sql.sqlserver.catalogue import read_catalogue, spelled
from storemirror.sql.sqlserver.connection import Session
from storemirror.sql.sqlserver.facts import ServerFacts
from storemirror.sql.sqlserver.rendering import Rendering
from storemirror.sql.sqlserver.wanted import wanted_schema
from tests.support.babelfish import kept_name
from tests.support.declarations import EVERY_KIND

Rows = list[tuple[Any, ...]]
#: Object ids of routines begin here, those of tables at 0.
_FIRST_ROUTINE: Final = 1_000
BABELFISH: Final = ServerFacts(is_microsofts=False, compatibility_level=150, database="db")


@pytest.fixture
def rendering(tmp_path: Path) -> Rendering:
    """Everything that can be declared."""
    file = tmp_path / "every.toml"
    file.write_text(EVERY_KIND)
    return Rendering(load_model([file]), schema_name="dbo", procedures={})


class Babelfish:
    """
    Answers as Babelfish's catalogue of 2023 does, where all is installed.

    Names are in lower case, those of indexes and constraints go on with a digest, checks are
    written as PostgreSQL has them, and 4,000 characters of a routine are told.
    """

    def __init__(self, rendering: Rendering, wanted: WantedSchema) -> None:
        self._wanted = wanted
        self.texts = {
            re.sub(r"[\[\]]", "", found[1]): batch[:4_000]
            for batch in rendering.procedures_batches()
            if (found := re.search(r"^CREATE OR ALTER PROCEDURE (\S+)$", batch, re.MULTILINE))
        }

    async def run(
        self, batch: str, parameters: Sequence[object] = (), timeout_s: float = 0
    ) -> list[Rows]:
        """Answer the batches of `read_catalogue`."""
        del parameters, timeout_s
        wanted = self._wanted
        if "OBJECT_ID(w.Name)" in batch:
            first = _FIRST_ROUTINE if "sp_StoreMirror_" in batch else 0
            return [[(place, first + place) for place in range(batch.count("N'["))]]
        if "StoreMirrorSchemaInfo" in batch:
            return [[(wanted.version, wanted.project, wanted.database)]]
        if "StoreMirrorDeclaration" in batch:
            digests = {e.name: e.digest for e in wanted.entities}
            digests |= {rollup_entry(e.name): e.rollup_digest for e in wanted.entities}
            return [[(name, 1, digest) for name, digest in digests.items()]]
        objects = len(wanted.tables) + len(wanted.own_tables)
        told = (
            [row for place, table in enumerate(wanted.tables) for row in rows(place, table)]
            for rows in (_columns, _indexes, _checks)
        )
        texts: Rows = [
            (_FIRST_ROUTINE + place, self.texts[name]) for place, name in enumerate(wanted.routines)
        ]
        return [[(place, "U") for place in range(objects)], *told, [], texts]


def _columns(place: int, table: WantedTable) -> Rows:
    rows: Rows = []
    for column in table:
        kind, _, rest = column.type.partition("(")
        size = rest.rstrip(")")
        length = -1 if size == "max" else 2 * int(size or 4)
        text = None if column.expression is None else column.expression.upper()
        collation = "bbf_unicode_bin2" if kind == "nvarchar" else None
        scale = int(size) if kind == "datetime2" else 0
        rows.append(
            (place, column.name.lower(), kind, length, 0, scale, int(column.is_nullable),
             int(column.has_default), collation, 0, text)
        )  # fmt: skip
    return rows


def _indexes(place: int, table: WantedTable) -> Rows:
    rows: Rows = [
        (place, kept_name(f"PK_{table.name}", table.name), 1, 0, 0, key.lower(), 0, 0)
        for key in table.key
    ]
    for name, definition in table.indexes.items():
        kept = kept_name(name, table.name)
        keys, _, covered = definition.removesuffix(" (partial)").partition(" including ")
        for part in keys.split(", "):
            column, _, order = part.partition(" ")
            rows.append((place, kept, 0, 0, 0, column.lower(), int(order == "DESC"), 0))
        rows += [(place, kept, 0, 0, 0, c.lower(), 0, 1) for c in covered.split(", ") if c]
    return rows


def _checks(place: int, table: WantedTable) -> Rows:
    states = "'live'::text, 'tombstone'::text, 'stub'::text"
    name = f"CK_{table.name}_RowState"
    rows: Rows = [] if not table.required_name else [
        (place, kept_name(name, table.name),
         f"((rowstate)::text = ANY ((ARRAY[{states}])::text[]))")
    ]  # fmt: skip
    if table.required:
        named = " AND ".join(f"({c.lower()} IS NOT NULL)" for c in sorted(table.required))
        text = f"(((rowstate)::sys.nvarchar <> 'live'::sys.nvarchar(16)) OR ({named}))"
        rows.append((place, kept_name(table.required_name, table.name), text))
    return rows


async def found_by(server: Babelfish, wanted: WantedSchema) -> FoundSchema:
    """Read what the server tells."""
    return await read_catalogue(cast("Session", server), wanted, BABELFISH)


async def test_what_is_installed_on_babelfish_is_what_is_wanted(rendering: Rendering) -> None:
    """Else every `schema apply` would install anew what is there, and be refused."""
    wanted = wanted_schema(rendering, project="demo", store="(default)")
    found = await found_by(Babelfish(rendering, wanted), wanted)
    assert decide_differences(wanted, found) == []
    assert decide_plan(wanted, found).changes == ()


async def test_a_column_that_is_required_no_more_is_seen(rendering: Rendering) -> None:
    """A constraint that is found by half its name is read all the same."""
    wanted = wanted_schema(rendering, project="demo", store="(default)")
    tables = tuple(
        replace(table, required=frozenset()) if table.name == "DmMessage" else table
        for table in wanted.tables
    )
    found = await found_by(Babelfish(rendering, wanted), wanted)
    changes = decide_plan(replace(wanted, tables=tables), found).changes
    assert [change.name for change in changes] == ["CK_DmMessage_Required"]


async def test_a_routine_that_begins_otherwise_is_seen(rendering: Rendering) -> None:
    """Where the server tells no more than the beginning, that much is compared."""
    wanted = wanted_schema(rendering, project="demo", store="(default)")
    server = Babelfish(rendering, wanted)
    name = next(name for name, text in server.texts.items() if len(text) == 4_000)
    server.texts[name] = server.texts[name].replace("SET NOCOUNT ON", "SET NOCOUNT  ON", 1)
    changes = decide_plan(wanted, await found_by(server, wanted)).changes
    assert [change.name for change in changes] == [name]


@pytest.mark.parametrize("name", ["CK_DmMessage_Required", "ck_dmmessage_required"])
def test_a_name_is_looked_for_as_it_may_be_kept(name: str) -> None:
    """Whole, in any letters, or with the table's and a digest behind."""
    wanted = ["CK_DmMessage_Required"]
    assert spelled(name, wanted, may_go_on=True) == wanted[0]
    assert spelled(kept_name(name, "DmMessage"), wanted, may_go_on=True) == wanted[0]
    assert spelled(f"{name}_2", wanted, may_go_on=True) == f"{name}_2"
