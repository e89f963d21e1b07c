"""Logical column types in PostgreSQL, and what PostgreSQL cannot hold.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from storemirror.model.types import ColumnType, DialectLimits

LIMITS: Final = DialectLimits(
    holds_nul=False, holds_nan=True, holds_negative_zero=True, ignores_trailing_space=False
)


@dataclass(frozen=True, slots=True)
class SqlType:
    """One logical type in three places."""

    #: In the table.
    column: str
    #: In `jsonb_to_recordset`: what the JSON value is read as.
    record: str
    #: From the record to the table; `{}` stands for the record's column.
    expression: str = "{}"


TYPES: Final[Mapping[ColumnType, SqlType]] = {
    ColumnType.STRING: SqlType('text COLLATE "C"', "text"),
    ColumnType.TEXT: SqlType("text", "text"),
    ColumnType.INTEGER: SqlType("bigint", "bigint"),
    ColumnType.DOUBLE: SqlType("double precision", "double precision"),
    ColumnType.BOOLEAN: SqlType("boolean", "boolean"),
    ColumnType.TIMESTAMP: SqlType("timestamptz", "timestamptz"),
    ColumnType.BYTES: SqlType("bytea", "text", "decode({}, 'base64')"),
    ColumnType.REFERENCE: SqlType('text COLLATE "C"', "text"),
    # A JSON value travels as text: read as jsonb, it would become a JSON string.
    ColumnType.GEOPOINT: SqlType("jsonb", "text", "{}::jsonb"),
    ColumnType.JSON: SqlType("jsonb", "text", "{}::jsonb"),
}
