"""
Key ranges for stores that cannot tell where their documents are.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from storemirror.source.port import Key, KeyRange

#: What Firestore's automatic ids, and Firebase's user ids, are made of; in the order of bytes.
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def ranges_between(bounds: Iterable[Key]) -> list[KeyRange]:
    """
    Give the ranges that keys divide: one more than there are keys.

    Args:
        bounds: rising keys.

    >>> [(r.after, r.up_to) for r in ranges_between([("a",), ("b",)])]
    [(None, ('a',)), (('a',), ('b',)), (('b',), None)]
    """
    return [KeyRange(after=a, up_to=b) for a, b in pairwise([None, *bounds, None])]


def even_ranges(part_count: int, max_count: int) -> list[KeyRange]:
    """
    Divide the keys as if ids were spread evenly over letters and digits, as automatic ids are.

    With ids of another kind the ranges are unequally full, but none is missing.

    Args:
        part_count: how many parts a key has.
        max_count: most ranges, at least 1.

    >>> [r.up_to for r in even_ranges(2, 3)]
    [('K', '0'), ('f', '0'), None]
    """
    count = min(max_count, len(_ALPHABET))
    firsts = [_ALPHABET[len(_ALPHABET) * n // count] for n in range(1, count)]
    return ranges_between((first, *(_ALPHABET[0],) * (part_count - 1)) for first in firsts)


def path_of_key(pattern: Sequence[str], key: Key) -> str:
    """
    Give the path that a key stands for.

    Raises:
        ValueError: the key has not one part for each parameter of the pattern.

    >>> path_of_key(["users", "{a}", "blocks", "{b}"], ("u1", "u2"))
    'users/u1/blocks/u2'
    """
    if len(key) != sum(segment.startswith("{") for segment in pattern):
        raise ValueError(f"{'/'.join(pattern)} has another number of parameters than {len(key)}")
    parts = iter(key)
    return "/".join(next(parts) if s.startswith("{") else s for s in pattern)


def key_of_path(pattern: Sequence[str], segments: Sequence[str]) -> Key | None:
    """
    Give the key in a path; None when the path does not fit.

    >>> key_of_path(["users", "{a}"], ["users", "u1"]), key_of_path(["users", "{a}"], ["x", "u1"])
    (('u1',), None)
    """
    if len(segments) != len(pattern):
        return None
    pairs = list(zip(pattern, segments, strict=True))
    if any(not wanted.startswith("{") and wanted != found for wanted, found in pairs):
        return None
    return tuple(found for wanted, found in pairs if wanted.startswith("{"))
