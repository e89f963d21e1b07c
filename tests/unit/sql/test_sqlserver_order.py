"""Keys that SQL Server orders by UTF-16 units are read in Firestore's order all the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storemirror.sql.sqlserver.order import (
    Bound,
    Key,
    block_of,
    blocks,
    is_within,
    lower_bound,
    rank,
    upper_bound,
)

#: Characters around every place where the two orders part.
_PARTS = st.text(
    st.sampled_from("ab\ud7ff\ue000\uffee\U00010000\U0001f600"), min_size=1, max_size=3
)
_KEYS = st.tuples(_PARTS, _PARTS)


def units(key: Key) -> tuple[list[int], ...]:
    """What Latin1_General_100_BIN2 compares."""
    encoded = (part.encode("utf-16-be") for part in key)
    return tuple(
        [int.from_bytes(part[i : i + 2]) for i in range(0, len(part), 2)] for part in encoded
    )


def lies_beyond(key: Key, bound: Bound) -> bool:
    """Whether the database gives a key as one behind a lower bound."""
    first, edge = units(key[: len(bound.parts)]), units(bound.parts)
    return first > edge or (first == edge and (bound.is_inclusive or len(bound.parts) < len(key)))


def lies_before(key: Key, bound: Bound | None) -> bool:
    """Whether the database gives a key as one before an upper bound."""
    if bound is None:
        return True
    first, edge = units(key[: len(bound.parts)]), units(bound.parts)
    return first < edge or (first == edge and bound.is_inclusive)


@given(st.sets(_KEYS, max_size=30))
def test_blocks_in_order_are_firestore_s_order(keys: set[Key]) -> None:
    """The database's own order, cut into blocks, each sorted by itself."""
    found = sorted(keys, key=units)
    ordered: list[Key] = []
    for piece in blocks(found):
        part = found[piece]
        is_unsure = block_of(part[0]) is not None
        ordered += sorted(part, key=rank) if is_unsure else part
    assert ordered == sorted(keys, key=rank)


@given(st.sets(_KEYS, max_size=30), st.none() | _KEYS, st.none() | _KEYS)
def test_a_range_holds_what_lies_between_its_ends_in_firestore_s_order(
    keys: set[Key], after: Key | None, up_to: Key | None
) -> None:
    """What the database is asked for holds all of it; what it holds besides is passed over."""
    asked = [
        key
        for key in keys
        if (after is None or lies_beyond(key, lower_bound(after)))
        and (up_to is None or lies_before(key, upper_bound(up_to)))
    ]
    kept = {key for key in asked if is_within(key, after, up_to)}
    expected = {
        key
        for key in keys
        if (after is None or rank(key) > rank(after))
        and (up_to is None or rank(key) <= rank(up_to))
    }
    assert kept == expected
