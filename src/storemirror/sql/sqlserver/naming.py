"""How names stand in T-SQL: in brackets, in literals, and in lists of them.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from storemirror.errors import ConfigError
from storemirror.sql.names import pascal_case
from storemirror.sql.sqlserver.escapes import unescaped

#: UTF-16 code units of an identifier.
MAX_IDENTIFIER_UNITS: Final = 128
#: Babelfish keeps the name of an index or a constraint as this much of it and of the table's, and a
#: digest behind; catalogues of before 2025 show that.
KEPT_OF_NAME: Final = 31
DIGEST_LENGTH: Final = 32
#: Before the declared-style name of every procedure.
PROCEDURE_PREFIX: Final = "sp_StoreMirror_"
_BATCH_END: Final = re.compile(r"^GO$\n?", re.MULTILINE)

#: A column in a template: "column" is quoted, "name" is not, "type" is what it is made with.
Columns = Sequence[Mapping[str, Any]]


def quoted(name: str) -> str:
    """
    Quote an identifier.

    Raises:
        ConfigError: SQL Server takes no such name.

    >>> quoted("DmMessage")
    '[DmMessage]'
    """
    if not name or len(name.encode("utf-16-le")) > 2 * MAX_IDENTIFIER_UNITS:
        raise ConfigError(
            f"{name}: SQL Server's names have at most {MAX_IDENTIFIER_UNITS} characters"
        )
    return "[" + name.replace("]", "]]") + "]"


def procedure_name(name: str) -> str:
    """
    Spell a procedure's declared-style name.

    >>> procedure_name("UpsertDmMessage")
    'sp_StoreMirror_UpsertDmMessage'
    """
    return PROCEDURE_PREFIX + pascal_case(name)


def latest_index(entity: str) -> str:
    """Give the index over an entity's live rows by roll-up parent and time, quoted."""
    return quoted(f"IX_{pascal_case(entity)}_Latest")


def next_index(entity: str) -> str:
    """Give the name, quoted, under which the index is built that is to take its place."""
    return quoted(f"IX_{pascal_case(entity)}_Latest_Next")


def child_index(child: str, key: str) -> str:
    """
    Give the index from a child table's key to its documents, quoted.

    >>> child_index("DmParticipant", "userId")
    '[IX_DmParticipant_ByUserId]'
    """
    return quoted(f"IX_{pascal_case(child)}_By{pascal_case(key)}")


def batches_of(text: str) -> list[str]:
    r"""
    Take a script apart where `GO` stands on a line of its own; what holds no statement goes.

    >>> batches_of("SELECT 1;\nGO\n-- only words\nGO\nSELECT 2;\nGO\n")
    ['SELECT 1;', 'SELECT 2;']
    """
    batches = (batch.strip() for batch in _BATCH_END.split(text))
    return [batch for batch in batches if re.sub(r"(?m)--.*$", "", batch).strip()]


def _literal(text: str) -> str:
    return text.replace("'", "''")


def _bare(name: str) -> str:
    return _literal(name.removeprefix("[").removesuffix("]").replace("]]", "]"))


def _names(columns: Columns, alias: str = "") -> str:
    prefix = f"{alias}." if alias else ""
    return ", ".join(prefix + c["column"] for c in columns)


def _same(columns: Columns, a: str, b: str) -> str:
    return " AND ".join(f"{a}.{c['column']} = {b}.{c['column']}" for c in columns)


def _declared(columns: Columns) -> str:
    return ", ".join(f"{c['column']} {c['type']} NOT NULL" for c in columns)


def _unsound(columns: Columns, alias: str) -> str:
    """
    Say when a key part cannot be one.  RIGHT, since comparisons pass over trailing spaces.

    LEN passes over them as well, so one character is put behind.  Not DATALENGTH: Babelfish counts
    the bytes of UTF-8 in it.
    """
    return " OR ".join(
        f"{alias}.{c['column']} IS NULL OR LEN({alias}.{c['column']} + N'.') > {c['units'] + 1}"
        f" OR {alias}.{c['column']} = N'' OR RIGHT({alias}.{c['column']}, 1) = N' '"
        for c in columns
    )


def _is_name(name: str, column: str) -> str:
    """Say when a column of the catalogue has the name of an index or a constraint of ours."""
    bare = _bare(name)
    kept = bare.lower()[:KEPT_OF_NAME]
    return (
        f"({column} = N'{bare}' OR (LEFT(LOWER({column}), {len(kept)}) = N'{kept}'"
        f" AND LEN({column}) >= {len(kept) + DIGEST_LENGTH}))"
    )


#: What templates spell with.
FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    "literal": _literal,
    "bare": _bare,
    "names": _names,
    "same": _same,
    "declared": _declared,
    "unsound": _unsound,
    "is_name": _is_name,
    "unescaped": unescaped,
}
