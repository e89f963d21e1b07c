"""What the schema should be, spelled as SQL Server's catalogue spells it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from storemirror.sql.catalogue import WantedSchema
from storemirror.sql.names import procedures_of
from storemirror.sql.render import SCHEMA_VERSION, SUPPORTED_VERSIONS, wanted_entities
from storemirror.sql.sqlserver.rendering import OWN_TABLES, Rendering
from storemirror.sql.sqlserver.tables import wanted_tables

_NAME: Final = re.compile(
    r"^CREATE (?:OR ALTER )?PROCEDURE \[((?:[^\]]|\]\])+)\]\.\[((?:[^\]]|\]\])+)\]$", re.MULTILINE
)
#: Where a routine's parameters end and what it does begins: once in each.
#: Servers may write the lines anew.
_BODY: Final = re.compile(r"\bAS\s+BEGIN\b")


def wanted_schema(rendering: Rendering, *, project: str, store: str) -> WantedSchema:
    """
    Give everything that a rendering installs.

    Args:
        rendering: the declarations, and how procedures are called.
        project: Firestore project that the mirror is of.
        store: Firestore database in it.
    """
    model = rendering.model
    return WantedSchema(
        name=rendering.schema_name,
        version=SCHEMA_VERSION,
        supported_versions=SUPPORTED_VERSIONS,
        project=project,
        database=store,
        entities=wanted_entities(model),
        tables=wanted_tables(model),
        own_tables=tuple(OWN_TABLES.values()),
        routines=routines_of(rendering.procedures_batches()),
        procedures=frozenset(
            ".".join(rendering.procedure_parts(p.name)) for p in procedures_of(model)
        ),
    )


def routine_definition(text: str) -> str:
    r"""
    Write down what a routine does, so that what is wanted and what is found compare.

    Args:
        text: the whole batch that made it, as `sys.sql_modules` keeps it; or its body.

    >>> routine_definition("CREATE PROCEDURE [a].[b]\n    @C INT\nAS\nBEGIN\n    X;\nEND;\n")
    'X;\nEND;'
    """
    found = _BODY.search(text.replace("\r\n", "\n"))
    return text.replace("\r\n", "\n")[found.end() if found else 0 :].strip()


def routines_of(batches: Iterable[str]) -> Mapping[str, str]:
    """Give name, with its schema and without brackets, and definition of the routines."""
    return {
        ".".join(part.replace("]]", "]") for part in found.groups()): routine_definition(batch)
        for batch in batches
        if (found := _NAME.search(batch)) is not None
    }
