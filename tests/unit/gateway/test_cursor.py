"""Cursors and tokens: what clients hand back, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storemirror.clock import FIRST_US, LAST_US
from storemirror.errors import CallRefused
from storemirror.gateway.cursor import cursor_of, position_of, token_of, write_of
from storemirror.gateway.port import Position, WriteToken

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
_IDS = _TEXTS.map(lambda text: f"i{text.replace('/', '')}")


@given(st.integers(FIRST_US, LAST_US), _IDS, st.sampled_from(["older", "newer"]))
def test_a_cursor_names_the_place_it_was_made_of(time_us: int, name: str, direction: str) -> None:
    """An id of any letters, at any moment."""
    place = Position(time_us=time_us, id=name)
    assert position_of(cursor_of(place, direction=direction)) == (direction, place)


@given(_TEXTS, st.integers(0, 2**63 - 1))
def test_a_token_names_the_write_it_was_made_of(path: str, version: int) -> None:
    """Versions have 64 bits, more than a JSON number in JavaScript."""
    write = WriteToken(path=path, version=version)
    assert write_of(token_of(write)) == write


@given(st.text(max_size=60))
def test_what_is_no_cursor_is_refused_and_nothing_else_happens(text: str) -> None:
    """A client may send anything."""
    with pytest.raises(CallRefused) as refused:
        position_of(text)
    assert refused.value.status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "text",
    [
        "bnVsbA",
        "W10",
        "WyJzaWRld2F5cyIsMSwiYSJd",
        "WyJvbGRlciIsLTk5OTk5OTk5OTk5OTk5OTk5LCJhIl0",
        "WyJvbGRlciIsMSwiXHUwMDAwIl0",
        "x" * 9_000,
        "WyJvbGRlciIsOTk5OTk5OTk5OTk5OTk5OTk5OTksImEiXQ",
    ],
    ids=["null", "empty", "sideways", "too early", "nul", "long", "too late"],
)
def test_cursors_that_decode_to_nonsense_are_refused(text: str) -> None:
    """Each would reach the database, or Python's limits, otherwise."""
    with pytest.raises(CallRefused, match="none that the gateway gave"):
        position_of(text)


@pytest.mark.parametrize("name", ["", "a/b", "a/b/c", "/", ".", "..", "__x__", "x" * 1_501])
def test_a_place_that_is_no_documents_is_refused(name: str) -> None:
    """Firestore would refuse the query behind it: a client's doing, answered as the gateway's."""
    cursor = cursor_of(Position(time_us=1, id=name), direction="older")
    with pytest.raises(CallRefused, match="none that the gateway gave"):
        position_of(cursor)


@pytest.mark.parametrize(
    "text", ["", "bnVsbA", "WyJhIiwtMV0", "WyJhIiw5MjIzMzcyMDM2ODU0Nzc1ODA4XQ"]
)
def test_tokens_that_decode_to_nonsense_are_refused(text: str) -> None:
    """A version beyond 64 bits would fail in the database."""
    with pytest.raises(CallRefused, match="none that the gateway gave"):
        write_of(text)
