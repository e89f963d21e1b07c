"""
SQL Server's order of keys beside Firestore's.  Pure.

Latin1_General_100_BIN2 compares UTF-16 units, Firestore code points.  They differ only between
two keys that are alike up to a place where one has a surrogate (U+10000 and up) and the other a
character from U+E000 to U+FFFF.  Keys that are alike up to their first unit of this kind lie
together in both orders: such a *block* is read whole, and put in order here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

Key = tuple[str, ...]

#: From here on the orders may differ.  One below the surrogates: a bound is made by counting the
#: last character before up, and a surrogate by itself is no text.
_FIRST_UNSURE: Final = "\ud7ff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One end of a range, by the database's order."""

    #: All parts of a key, or the first ones.
    parts: Key
    is_inclusive: bool


def rank(key: Key) -> tuple[bytes, ...]:
    r"""
    Give what keys are compared by, as Firestore does.

    >>> rank(("\uffee",)) < rank(("\U0001f600",))
    True
    """
    return tuple(part.encode() for part in key)


def block_of(key: Key) -> Key | None:
    r"""
    Name the block that a key lies in; None when its place is the same in both orders.

    >>> block_of(("a", "b\U0001f600c", "d")), block_of(("a", "b"))
    (('a', 'b'), None)
    """
    for place, part in enumerate(key):
        stem = _stem(part)
        if stem is not None:
            return (*key[:place], stem)
    return None


def lower_bound(after: Key) -> Bound:
    """Give where to begin to read what comes after a key; some of it may have to be passed over."""
    block = block_of(after)
    if block is None:
        return Bound(parts=after, is_inclusive=False)
    return Bound(parts=block, is_inclusive=True)


def upper_bound(up_to: Key) -> Bound | None:
    """Give where to end; None: at the table's end.  Some may have to be passed over."""
    block = block_of(up_to)
    if block is None:
        return Bound(parts=up_to, is_inclusive=True)
    *before, stem = block
    if stem:
        return Bound(parts=(*before, stem[:-1] + chr(ord(stem[-1]) + 1)), is_inclusive=False)
    return Bound(parts=tuple(before), is_inclusive=True) if before else None


def is_within(key: Key, after: Key | None, up_to: Key | None) -> bool:
    """
    Tell whether a key that was read lies in the range that was asked for.

    >>> is_within(("a", "b"), after=("a", "b "), up_to=None)
    False
    """
    is_after = after is None or block_of(after) is None or rank(key) > rank(after)
    return is_after and (up_to is None or block_of(up_to) is None or rank(key) <= rank(up_to))


def blocks(keys: Sequence[Key]) -> Iterator[slice]:
    """Cut keys in the database's order into blocks, and what lies between them."""
    start = 0
    for place in range(1, len(keys) + 1):
        if place == len(keys) or block_of(keys[place]) != block_of(keys[start]):
            yield slice(start, place)
            start = place


def _stem(part: str) -> str | None:
    """
    Give what stands before the first character of no sure place; None when there is none.

    Spaces at the end have none: they are passed over in comparisons.  No key that is stored ends
    in one, but a bound may.
    """
    for place, character in enumerate(part):
        if character >= _FIRST_UNSURE:
            return part[:place]
    return part.rstrip(" ") if part.endswith(" ") else None
