"""What the schema should be, spelled as PostgreSQL's catalogue spells it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from storemirror.sql.catalogue import WantedSchema
from storemirror.sql.names import procedures_of
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.tables import wanted_tables
from storemirror.sql.render import SCHEMA_VERSION, SUPPORTED_VERSIONS, wanted_entities

#: A table of our own book-keeping: its name is the template's, and not quoted.
_OWN_TABLE: Final = re.compile(r"^CREATE TABLE IF NOT EXISTS \S+\.(\w+) \(", re.MULTILINE)
#: One routine of ours: its name, what stands between its parameters and its body, the body.
_ROUTINE: Final = re.compile(
    r"^CREATE OR REPLACE (?:FUNCTION|PROCEDURE) (\S+?)\((.*?)\sAS \$\$(.*?)\$\$;",
    re.DOTALL | re.MULTILINE,
)
_SETTING: Final = re.compile(r"\bSET (\w+) = '?(\w+)'?(?=\s+(?:SET|AS)\b|\s*\Z)")


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
        own_tables=tuple(_OWN_TABLE.findall(rendering.tables_sql())),
        routines=routines_of(rendering.procedures_sql()),
        procedures=frozenset(
            ".".join(rendering.procedure_parts(p.name)) for p in procedures_of(model)
        ),
    )


def routine_definition(body: str, settings: Mapping[str, str]) -> str:
    """Write down what a routine does, so that what is wanted and what is found compare."""
    pinned = sorted(f"{name.lower()}={value}" for name, value in settings.items())
    return "\n".join([*pinned, body])


def routines_of(text: str) -> Mapping[str, str]:
    """Give name, with its schema and without quotes, and definition of the routines in a script."""
    return {
        name.replace('"', ""): routine_definition(body, dict(_SETTING.findall(head)))
        for name, head, body in _ROUTINE.findall(text)
    }
