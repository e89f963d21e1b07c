"""Logical column types in SQL Server, and what SQL Server cannot hold.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from storemirror.model.types import ColumnType, DialectLimits

#: U+0000 can be stored, but most collations pass over it.  -0.0 may lose its sign on the way from
#: text.  Trailing spaces are passed over by every comparison.
LIMITS: Final = DialectLimits(
    holds_nul=False, holds_nan=False, holds_negative_zero=False, ignores_trailing_space=True
)
#: Ids and words of our own are compared unit by unit.  See ADR 11.
COLLATION: Final = "Latin1_General_100_BIN2"
#: Counts code points, and not the two surrogates of one.
COUNTING_COLLATION: Final = "Latin1_General_100_CI_AS_SC"
#: Compares names in the catalogue, whose own collation need not be the database's.  Without a
#: version, which Babelfish does not know.
NAME_COLLATION: Final = "Latin1_General_CI_AS"
#: What Babelfish makes of `COLLATION`.
BABELFISH_COLLATION: Final = "bbf_unicode_bin2"
#: Longest text in UTF-16 units that can be the key of an index and is no key part.
MAX_ORDERED_LENGTH: Final = 400
#: UTF-16 units of all key columns of a non-clustered index, and of a clustered one.
MAX_INDEX_UNITS: Final = 850
MAX_CLUSTERED_UNITS: Final = 450

#: With five decimals or more.
_DATETIME2_BYTES: Final = 8

_TEXT: Final = (
    "({a} COLLATE Latin1_General_100_BIN2 <> {b} COLLATE Latin1_General_100_BIN2"
    # Comparisons pass over trailing spaces; lengths do not.
    " OR DATALENGTH({a}) <> DATALENGTH({b})"
    " OR ({a} IS NULL AND {b} IS NOT NULL) OR ({a} IS NOT NULL AND {b} IS NULL))"
)
_PLAIN: Final = (
    "({a} <> {b} OR ({a} IS NULL AND {b} IS NOT NULL) OR ({a} IS NOT NULL AND {b} IS NULL))"
)
_BYTES: Final = (
    # Comparisons pass over trailing zero bytes; lengths do not.
    "({a} <> {b} OR DATALENGTH({a}) <> DATALENGTH({b})"
    " OR ({a} IS NULL AND {b} IS NOT NULL) OR ({a} IS NOT NULL AND {b} IS NULL))"
)
_BINARY_TEXT: Final = f"NVARCHAR(MAX) COLLATE {COLLATION}"


@dataclass(frozen=True, slots=True)
class SqlType:
    """One logical type in several places."""

    #: In the table.
    column: str
    #: In `OPENJSON … WITH`: what the JSON value is read as.
    record: str
    #: From the record to the table; `{}` stands for the record's column.
    expression: str = "{}"
    #: True where `{a}` and `{b}` are not stored alike, NULL being a value like another.
    difference: str = _PLAIN
    #: In a temporary table, whose collation would else be that of tempdb.
    staged: str = ""

    @property
    def is_text(self) -> bool:
        """Tell whether JSON may have escapes in it."""
        return self.difference is _TEXT

    @property
    def temporary(self) -> str:
        """Give the type of the column in a temporary table."""
        return self.staged or self.column

    def differs(self, a: str, b: str) -> str:
        """Give the condition under which two expressions of this type are not stored alike."""
        return self.difference.format(a=a, b=b)


TYPES: Final[Mapping[ColumnType, SqlType]] = {
    ColumnType.STRING: SqlType(_BINARY_TEXT, "NVARCHAR(MAX)", difference=_TEXT),
    ColumnType.TEXT: SqlType(
        "NVARCHAR(MAX)", "NVARCHAR(MAX)", difference=_TEXT, staged=_BINARY_TEXT
    ),
    ColumnType.INTEGER: SqlType("BIGINT", "NVARCHAR(4000)", "CAST({} AS BIGINT)"),
    ColumnType.DOUBLE: SqlType("FLOAT", "NVARCHAR(4000)", "CAST({} AS FLOAT)"),
    ColumnType.BOOLEAN: SqlType("BIT", "NVARCHAR(4000)", "CAST({} AS BIT)"),
    # Always UTC, with six decimals and a Z: what stands before it is read the same by every
    # server and under every language setting.
    ColumnType.TIMESTAMP: SqlType(
        "DATETIME2(6)", "NVARCHAR(4000)", "CAST(LEFT({}, 26) AS DATETIME2(6))"
    ),
    ColumnType.BYTES: SqlType(
        "VARBINARY(MAX)",
        "NVARCHAR(MAX)",
        "CONVERT(VARBINARY(MAX), {}, 2)",
        difference=_BYTES,
    ),
    ColumnType.REFERENCE: SqlType(_BINARY_TEXT, "NVARCHAR(MAX)", difference=_TEXT),
    # A JSON value travels as text, and stays text: a value may be a mere number or string, which
    # ISJSON does not take.
    ColumnType.GEOPOINT: SqlType(_BINARY_TEXT, "NVARCHAR(MAX)", difference=_TEXT),
    ColumnType.JSON: SqlType(_BINARY_TEXT, "NVARCHAR(MAX)", difference=_TEXT),
}


def text_type(max_length: int) -> SqlType:
    """Give the type of a text that an index orders; `max_length` in UTF-16 units."""
    column = f"NVARCHAR({max_length}) COLLATE {COLLATION}"
    # JSON may have longer words for it.
    return SqlType(column, "NVARCHAR(MAX)", difference=_TEXT, staged=_BINARY_TEXT)


def byte_limit(kind: str) -> int | None:
    """
    Give the bytes that a column of this type has in the catalogue; -1: without a limit.

    >>> [byte_limit(kind) for kind in ("nvarchar(16)", "varbinary(max)", "datetime2(6)", "bigint")]
    [32, -1, 8, None]
    """
    name, _, rest = kind.rstrip(")").partition("(")
    if rest == "max":
        return -1
    if name == "nvarchar":
        return 2 * int(rest)
    return _DATETIME2_BYTES if name == "datetime2" else None


def spelled_type(
    name: str, max_length: int | None, scale: int | None = None, *, wanted: str = ""
) -> str:
    """
    Spell a column's type as it was found, beside the one that is wanted.

    Args:
        name: as `sys.types` has it.
        max_length: of a text in UTF-16 units, of bytes in bytes; None or -1: without a limit.
        scale: decimals of a second.
        wanted: type of the column of this name, as `storemirror.sql.sqlserver.tables` spells it;
            empty for none.

    Returns:
        The wanted type, where the found one holds every value of it; its bare name, where every
        value that is there would be kept by the wanted one; else the type as it is.

    >>> [spelled_type("nvarchar", n, wanted="nvarchar(128)") for n in (64, 128, 200)]
    ['nvarchar', 'nvarchar(128)', 'nvarchar(128)']
    >>> spelled_type("varchar", 200, wanted="nvarchar(128)")
    'varchar(200)'
    >>> spelled_type("nvarchar", 200, wanted="nvarchar(max)")
    'nvarchar'
    >>> spelled_type("datetime2", 8, 3)
    'datetime2(3)'
    """
    name = name.lower()
    if name == "datetime2":
        return f"datetime2({scale})"
    if name not in ("nvarchar", "varchar", "varbinary"):
        return name
    if max_length is None or max_length < 0:
        return f"{name}(max)"
    wanted_name, _, rest = wanted.partition("(")
    wanted_length = int(rest[:-1]) if rest[:-1].isdigit() else None
    if name == wanted_name and wanted_length is not None and max_length >= wanted_length:
        return wanted
    is_kept = rest and (wanted_length is None or max_length <= wanted_length)
    return name if is_kept else f"{name}({max_length})"
