"""The stand-in's AMQP types: what is written is read back, and ends where it ends."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.standins.servicebus.codec import (
    Array,
    Described,
    Int,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
    end_of,
    frame,
    sections,
)

INTEGERS = [
    (UByte, 0, 2**8 - 1),
    (UShort, 0, 2**16 - 1),
    (UInt, 0, 2**32 - 1),
    (ULong, 0, 2**64 - 1),
    (Int, -(2**31), 2**31 - 1),
    (int, -(2**63), 2**63 - 1),
    (Timestamp, -(2**63), 2**63 - 1),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=400),
    st.binary(max_size=400),
    st.floats(allow_nan=False),
    st.uuids(),
    *(st.integers(low, high).map(kind) for kind, low, high in INTEGERS),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    """A double that mangles a value proves nothing of who speaks with it."""
    data = encode(value) + b"more"
    found, end = decode(data)
    assert (found, data[end:], end_of(data, 0)) == (value, b"more", end)


@given(st.lists(st.uuids(), max_size=300))
def test_an_array_is_read_back_as_its_items(items: list[uuid.UUID]) -> None:
    """Lock tokens come as arrays."""
    data = encode(Array(uuid.UUID, tuple(items)))
    assert decode(data) == (items, len(data))


def test_a_described_value_keeps_what_it_is() -> None:
    """Every performative is one."""
    assert decode(encode(Described(0x24, []))) == (Described(0x24, []), 6)


def test_a_symbol_is_a_word_of_its_own_type() -> None:
    """The SDK compares annotations by it."""
    found, _ = decode(encode(Symbol("x-opt-sequence-number")))
    assert isinstance(found, Symbol)


def test_a_frame_says_its_size_and_fills_up_its_fields() -> None:
    """The SDK reads fields by their place."""
    written = frame(1, 0x16, [UInt(0), True], b"payload")
    assert int.from_bytes(written[:4], "big") == len(written)
    described, end = decode(written, 8)
    assert described == Described(0x16, [UInt(0), True, None])
    assert written[end:] == b"payload"


def test_what_is_no_message_is_said_to_be_none() -> None:
    """Read on, it would be taken for an empty one."""
    with pytest.raises(ValueError, match="not an AMQP message"):
        list(sections(b"\x40"))
