"""
Key ranges in T-SQL, which compares no rows of values.  Pure.

A range over several key columns is read as one look-up for each column: those that agree with the
bound in all columns before it, and lie beyond it in this one.  Written as one condition with OR,
each page would begin again at the first row of its first column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from storemirror.sql.sqlserver.order import Bound

_PART: Final = (
    "SELECT * FROM (SELECT TOP ({count}) {columns} FROM {table}"
    " WHERE {condition} ORDER BY {order}) AS p{place}"
)
_WHOLE: Final = "SELECT TOP ({count}) * FROM ({parts}) AS p ORDER BY {order}"
_LAST: Final = "SELECT TOP (1) {taken} FROM ({rows}) AS q ORDER BY {down};"


def after(names: Sequence[str], bound: Bound | None, variable: str) -> Iterator[str]:
    """
    Give conditions that no two rows share, and that together are what lies after a bound.

    Args:
        names: the key's columns, quoted.
        bound: None: everything lies after it.
        variable: the variables that hold its parts begin so.

    >>> bound = Bound(parts=("a", "x"), is_inclusive=False)
    >>> list(after(["[A]", "[B]"], bound, "@a"))
    ['[A] = @a0 AND [B] > @a1', '[A] > @a0']
    """
    if bound is None:
        yield "1 = 1"
        return
    for place in reversed(range(len(bound.parts))):
        is_last = place == len(bound.parts) - 1
        sign = ">=" if is_last and bound.is_inclusive else ">"
        alike = [f"{names[i]} = {variable}{i}" for i in range(place)]
        yield " AND ".join([*alike, f"{names[place]} {sign} {variable}{place}"])


def up_to(names: Sequence[str], bound: Bound | None, variable: str) -> str:
    """
    Give the condition for what lies before a bound, which begins so that an index ends there.

    >>> up_to(["[A]", "[B]"], Bound(parts=("a", "x"), is_inclusive=True), "@u")
    '[A] <= @u0 AND ([A] < @u0 OR [A] = @u0 AND [B] <= @u1)'
    """
    if bound is None:
        return "1 = 1"
    count = len(bound.parts)
    last = "<=" if bound.is_inclusive else "<"
    choices = []
    for place in range(count):
        alike = [f"{names[i]} = {variable}{i}" for i in range(place)]
        sign = last if place == count - 1 else "<"
        choices.append(" AND ".join([*alike, f"{names[place]} {sign} {variable}{place}"]))
    if count == 1:
        return choices[0]
    return f"{names[0]} <= {variable}0 AND ({' OR '.join(choices)})"


def declared(bound: Bound | None, variable: str) -> list[str]:
    """
    Declare the variables of a bound, each with a place for its value.

    >>> declared(Bound(parts=("a",), is_inclusive=True), "@u")
    ['DECLARE @u0 NVARCHAR(4000) = ?;']
    """
    parts = () if bound is None else bound.parts
    return [f"DECLARE {variable}{place} NVARCHAR(4000) = ?;" for place in range(len(parts))]


def first_rows(
    table: str,
    columns: Sequence[str],
    keys: Sequence[str],
    *,
    beyond: Iterable[str],
    within: str,
    count: str,
) -> str:
    """
    Write the query for the first rows of a range, in the order of their keys.

    Args:
        table: qualified and quoted.
        columns: what is read, quoted; the keys among it.
        keys: the key's columns, quoted.
        beyond: what `after` gives.
        within: what `up_to` gives.
        count: how many rows at most: a number, or a variable.
    """
    order = ", ".join(keys)
    parts = [
        _PART.format(
            count=count,
            columns=", ".join(columns),
            table=table,
            condition=f"{condition} AND {within}",
            order=order,
            place=place,
        )
        for place, condition in enumerate(beyond)
    ]
    return _WHOLE.format(count=count, parts=" UNION ALL ".join(parts), order=order)


def last_key(
    table: str, keys: Sequence[str], *, beyond: Iterable[str], within: str, count: str
) -> Iterator[str]:
    """Write the statements that keep the last key of such rows in @Last0, @Last1 and so on."""
    for place in range(len(keys)):
        yield f"DECLARE @Last{place} NVARCHAR(4000);"
    taken = ", ".join(f"@Last{place} = q.{name}" for place, name in enumerate(keys))
    down = ", ".join(f"q.{name} DESC" for name in keys)
    rows = first_rows(table, keys, keys, beyond=beyond, within=within, count=count)
    yield _LAST.format(taken=taken, rows=rows, down=down)


def up_to_last(keys: Sequence[str]) -> str:
    """Give the condition for what lies up to the key that `last_key` kept."""
    return up_to(keys, Bound(parts=("",) * len(keys), is_inclusive=True), "@Last")
