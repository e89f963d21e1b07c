"""Writes one T-SQL statement of our templates as PostgreSQL takes it.  Pure."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from typing import Final

from tests.standins.tsql.reading import tokens_of

_HINTS: Final = re.compile(
    r"\s+OPTION \([^()]*\)| WITH \((?:UPDLOCK|ROWLOCK|INDEX|FORCESEEK)(?:[^()]|\([^()]*\))*\)"
)
#: What is written otherwise, in this order.
_WORDS: Final = (
    (r"IsOnlyRow BIT", "IsOnlyRow smallint"),
    (r"\bNVARCHAR\((?:MAX|\d+)\)", "text"),
    (r"\bVARBINARY\(MAX\)", "bytea"),
    (r"\bDATETIME2\(6\)", "timestamp(6)"),
    (r"\bINT IDENTITY\(1, 1\)", "int GENERATED ALWAYS AS IDENTITY"),
    (r"\bFLOAT\b", "double precision"),
    (r"\bBIT\b", "boolean"),
    (r"PRIMARY KEY (?:NON)?CLUSTERED", "PRIMARY KEY"),
    (r"CREATE NONCLUSTERED INDEX", "CREATE INDEX"),
    (r"^DROP INDEX (\S+) ON (\S+)\.\S+", r"DROP INDEX \2.\1"),
    (r"CONSTRAINT \S+ DEFAULT", "DEFAULT"),
    (r"COLLATE Latin1_General_100_\w+", 'COLLATE "C"'),
    (r"SYSUTCDATETIME\(\)", "(clock_timestamp() AT TIME ZONE 'utc')"),
    (r"COUNT_BIG\(", "count("),
    (r"\bNCHAR\(", "chr("),
    (r"#(\w+)", r"tmp_\1"),
    (r"^CREATE TABLE tmp_", "CREATE TEMPORARY TABLE tmp_"),
    (r"CROSS APPLY LATERAL", "CROSS JOIN LATERAL"),
    (r" WITH NOCHECK ADD ", " ADD "),
)
_JSON_COLUMN: Final = re.compile(r"(\S+) \S+ '\$\.\"?(\w+)\"?'( AS JSON)?")
#: UPDATE or DELETE of a table that stands in the join under an alias.
_UPDATE: Final = re.compile(r"UPDATE (\w+) SET(.*?)\sFROM (.*?)(?:\sWHERE (.*))?$", re.DOTALL)
_DELETE: Final = re.compile(r"DELETE (\w+)\s+FROM (.*?)(?:\sWHERE (.*))?$", re.DOTALL)


@functools.lru_cache(maxsize=4_096)
def rewritten(statement: str) -> str:
    """Give the statement for PostgreSQL; variables stay as they are.  Kept: it takes a while."""
    text = _HINTS.sub("", statement)
    text = "".join(_token(*around) for around in _with_neighbours(tokens_of(text)))
    text = _calls(text, "CONVERT", lambda kind, value, _style: f"decode({value}, 'hex')::{kind}")
    text = _calls(text, "DATEDIFF", _difference)
    text = _calls(text, "DATEADD", _moved)
    text = _calls(text, "JSON_VALUE", _json_value)
    text = _json_tables(text)
    for pattern, replacement in _WORDS:
        text = re.sub(pattern, replacement, text)
    return _joined(_outer_applied(_limited(text)))


def _with_neighbours(tokens: list[str]) -> list[tuple[str, str, str]]:
    """Give each token with the words before and behind it."""
    words = [(place, token) for place, token in enumerate(tokens) if not token.isspace()]
    before = {b: token for (_, token), (b, _) in itertools.pairwise(words)}
    behind = {a: token for (a, _), (_, token) in itertools.pairwise(words)}
    return [(before.get(i, ""), token, behind.get(i, "")) for i, token in enumerate(tokens)]


def _token(before: str, token: str, behind: str) -> str:
    if token.startswith("["):
        return '"' + token[1:-1].lower() + '"'
    if token.startswith("N'"):
        return token[1:]
    if token == "+" and (before.endswith("'") or behind.endswith("'")):
        return "||"
    return token


def _end_of(text: str, opened: int) -> int:
    """Give the place behind the parenthesis that closes the one at `opened`."""
    depth, is_quoted = 0, False
    for place in range(opened, len(text)):
        character = text[place]
        is_quoted ^= character == "'"
        if not is_quoted:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and not is_quoted:
            return place + 1
    raise ValueError(f"a parenthesis stays open: {text[opened : opened + 60]}")


def _arguments(text: str) -> list[str]:
    found, depth = [""], 0
    for token in tokens_of(text):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == "," and depth == 0:
            found.append("")
        else:
            found[-1] += token
    return [argument.strip() for argument in found]


def _calls(text: str, name: str, make: Callable[..., str]) -> str:
    """Rewrite the calls of a function from its arguments."""
    while (found := re.search(rf"\b{name}\(", text)) is not None:
        end = _end_of(text, found.end() - 1)
        arguments = _arguments(text[found.end() : end - 1])
        text = text[: found.start()] + make(*arguments) + text[end:]
    return text


def _difference(unit: str, begin: str, end: str) -> str:
    if unit == "DAY":
        return f"(({end}) - ({begin}))"
    return f"floor(extract(epoch FROM ({end}) - ({begin})))::bigint"


def _moved(unit: str, count: str, moment: str) -> str:
    return f"(({moment}) + ({count}) * interval '1 {unit.lower()}')"


def _json_value(value: str, path: str) -> str:
    return f"json_text(jsonb_path_query_first(({value})::jsonb, {path}))"


def _json_tables(text: str) -> str:
    """Rewrite OPENJSON … WITH."""
    while (found := re.search(r"\bOPENJSON\(", text)) is not None:
        end = _end_of(text, found.end() - 1)
        source, *path = _arguments(text[found.end() : end - 1])
        begun = text.index("(", end)
        closed = _end_of(text, begun)
        columns = ", ".join(map(_json_column, _arguments(text[begun + 1 : closed - 1])))
        inner = f" -> '{path[0][3:-1]}'" if path else ""
        rows = f"jsonb_array_elements(COALESCE(({source})::jsonb{inner}, '[]')) AS e_"
        text = f"{text[: found.start()]}LATERAL (SELECT {columns} FROM {rows}){text[closed:]}"
    return text


def _json_column(column: str) -> str:
    found = _JSON_COLUMN.fullmatch(column)
    assert found is not None, column
    name, key, is_json = found.groups()
    # A JSON null is SQL's NULL either way.
    read = f"NULLIF(e_ -> '{key}', 'null')::text" if is_json else f"json_text(e_ -> '{key}')"
    return f"({read}) AS {name}"


def _limited(text: str) -> str:
    """Move TOP behind ORDER BY, the innermost first."""
    while found := list(re.finditer(r"SELECT TOP \(([^()]*)\)", text)):
        last = found[-1]
        opened = _opened_before(text, last.start())
        end = len(text) if opened is None else _end_of(text, opened) - 1
        text = f"{text[: last.start()]}SELECT{text[last.end() : end]} LIMIT {last[1]}{text[end:]}"
    return text


def _opened_before(text: str, place: int) -> int | None:
    """Give the parenthesis in which a place lies."""
    depth = 0
    for at in range(place - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[at], 0)
        if depth < 0:
            return at
    return None


def _outer_applied(text: str) -> str:
    while (found := re.search(r"OUTER APPLY \(", text)) is not None:
        end = _end_of(text, found.end() - 1)
        alias = re.match(r"\s+AS \w+", text[end:])
        assert alias is not None
        inner = text[found.end() : end] + alias[0]
        text = (
            f"{text[: found.start()]}LEFT JOIN LATERAL ({inner} ON true{text[end + alias.end() :]}"
        )
    return text


def _joined(text: str) -> str:
    """Name the target apart from the join that it stands in."""
    if (found := _UPDATE.match(text)) is not None:
        alias, assignments, join, condition = found.groups()
        begin, using = "UPDATE {} AS target_ SET" + assignments, "FROM"
    elif (found := _DELETE.match(text)) is not None:
        alias, join, condition = found.groups()
        begin, using = "DELETE FROM {} AS target_", "USING"
    else:
        return text
    table = re.search(rf"(\S+) AS {alias}\b", join)
    assert table is not None, text
    same = f"target_.ctid = {alias}.ctid"
    return f"{begin.format(table[1])} {using} {join} WHERE ({condition or 'true'}) AND {same}"
