"""
Settings that would have StoreMirror write into what it watches, or take its own tables for rows.

Documents, bus and mirror may share a database, each in its schema.  A mirror whose schema is that
of the documents would write its tables and routines among them, and what is written there is
watched: a loop.  Pure; the caller says which settings name one database.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

#: Setting that names a database -> the schema that StoreMirror has for itself there.
OWN_SCHEMAS: Final[Mapping[str, str]] = {"documents.dsn": "documents", "bus.dsn": "bus"}


def collisions(
    *, places: Mapping[str, Hashable], schema_name: str, procedures: Mapping[str, str]
) -> list[str]:
    """
    Find what the mirror would write into the tables of documents or bus.

    Args:
        places: setting that names a database -> the database; equal values are one database.
            Settings that are not set are left out.
        schema_name: of the mirror's tables.
        procedures: setting -> name in the database, "schema.name" where it has a schema.

    Returns:
        One line for each, which names both settings.

    >>> collisions(places={"sql.dsn": 1, "bus.dsn": 2}, schema_name="bus", procedures={})
    []
    """
    mirror = places.get("sql.dsn")
    if mirror is None:
        return []
    written = {"sql.schema_name": schema_name}
    for setting, name in procedures.items():
        schema, dot, _ = name.partition(".")
        if dot:
            written[setting] = schema
    return [
        f"{setting} puts what the mirror writes into the schema {schema!r}, and {dsn} names the "
        f"same database as sql.dsn: that schema is StoreMirror's own, and what is written there "
        f"is {_what_happens(dsn)}. Choose another schema, or give the mirror a database of its own."
        for setting, schema in written.items()
        for dsn, own in OWN_SCHEMAS.items()
        if schema == own and places.get(dsn) == mirror
    ]


def _what_happens(dsn: str) -> str:
    return "mirrored again" if dsn == "documents.dsn" else "taken for events"
