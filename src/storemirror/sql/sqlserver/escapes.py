r"""
Takes JSON's escapes out of texts, as T-SQL.  Pure.

Babelfish's OPENJSON and JSON_VALUE give a text as JSON has it between its quotation marks: a
quotation mark as `\"`, the end of a line as `\n`.  What the server does is asked of it, by one
backslash: SQL Server's answer makes all of this idle.

Source:
    tsql_openjson_with_columnize in babelfish-for-postgresql/postgresql_modified_for_babelfish
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: One backslash, as JSON.
PROBE: Final = r'[{"Probe":"\\"}]'
#: Declares what `unescaped` needs.
DECLARED: Final = f"""
DECLARE @IsEscaped INT = (
    SELECT LEN(x.Probe) - 1
    FROM OPENJSON(N'{PROBE}') WITH (Probe NVARCHAR(10) '$.Probe') AS x
);
DECLARE @Code INT;
DECLARE @Escape NVARCHAR(10);
""".strip()  # noqa: S608
#: Every escape begins with a backslash.  One that stands for itself is first made what no escape
#: is, so that what follows it is not taken for a part of one; last it becomes itself.  What is
#: below a space has a letter or two digits.
_TAKEN_OUT: Final = r"""
IF @IsEscaped = 1 AND EXISTS (SELECT 1 FROM {table} AS x WHERE {has_any})
BEGIN
    UPDATE {table} SET {marked};
    SET @Code = 1;
    WHILE @Code < 32 AND EXISTS (SELECT 1 FROM {table} AS x WHERE {has_more})
    BEGIN
        SET @Escape = CASE @Code
            WHEN 8 THEN N'\b' WHEN 9 THEN N'\t' WHEN 10 THEN N'\n' WHEN 12 THEN N'\f' WHEN 13 THEN N'\r'
            ELSE N'\u00' + SUBSTRING(N'{digits}', 2 * @Code + 1, 2)
        END;
        UPDATE {table} SET {replaced};
        SET @Code = @Code + 1;
    END;
    UPDATE {table} SET {ended};
END;
""".strip()  # noqa: E501
_DIGITS: Final = "".join(f"{code:02x}" for code in range(32))


def unescaped(table: str, columns: Sequence[str], indent: str = " " * 8) -> str:
    """
    Write the statements that take the escapes out of a temporary table's texts.

    Args:
        table: with its `#`.
        columns: quoted.
        indent: before each line.
    """
    text = _TAKEN_OUT.format(
        table=table,
        digits=_DIGITS,
        has_any=" OR ".join(rf"CHARINDEX(N'\', x.{c}) > 0" for c in columns),
        has_more=" OR ".join(rf"CHARINDEX(N'\', REPLACE(x.{c}, N'\,', N'')) > 0" for c in columns),
        marked=_set(columns, r"""REPLACE(REPLACE({}, N'\\', N'\,'), N'\"', N'"')"""),
        replaced=_set(columns, "REPLACE({}, @Escape, NCHAR(@Code))"),
        ended=_set(columns, r"REPLACE({}, N'\,', N'\')"),
    )
    return "\n".join(f"{indent}{line}" for line in text.split("\n"))


def declared(indent: str = " " * 4) -> str:
    """Write what `unescaped` needs before it."""
    return "\n".join(f"{indent}{line}" for line in DECLARED.split("\n"))


def _set(columns: Sequence[str], expression: str) -> str:
    return ", ".join(f"{column} = {expression.format(column)}" for column in columns)
