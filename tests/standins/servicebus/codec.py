"""
The types of AMQP 1.0 and their bytes, as far as Service Bus uses them.

Source: OASIS AMQP 1.0, part 1 (types) and part 2 (framing).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final


class UByte(int):
    """8 bits, unsigned."""


class UShort(int):
    """16 bits, unsigned."""


class UInt(int):
    """32 bits, unsigned."""


class ULong(int):
    """64 bits, unsigned."""


class Int(int):
    """32 bits, signed; a plain `int` is 64 bits, signed."""


class Timestamp(int):
    """Milliseconds since the Unix epoch."""


class Symbol(str):
    """A word of the protocol."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Described:
    """A value with the code of what it is."""

    code: int
    value: Any


@dataclass(frozen=True, slots=True)
class Array:
    """Values of one type."""

    kind: type
    items: tuple[Any, ...]


#: Size class of a constructor -> bytes of its value.
_FIXED_WIDTHS: Final = {0x0: 0, 0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_SHORT_SIZES: Final = (0xA, 0xC, 0xE)


def _u32(data: bytes, place: int) -> int:
    value: int = struct.unpack_from(">I", data, place)[0]
    return value


def end_of(data: bytes, place: int) -> int:
    """Give the place after the value that begins at `place`."""
    code = data[place]
    place += 1
    if code == 0:
        return end_of(data, end_of(data, place))
    size_class = code >> 4
    if size_class in _FIXED_WIDTHS:
        return place + _FIXED_WIDTHS[size_class]
    if size_class in _SHORT_SIZES:
        return place + 1 + data[place]
    return place + 4 + _u32(data, place)


_CONSTANTS: Final[dict[int, Any]] = {
    0x40: None,
    0x41: True,
    0x42: False,
    0x43: UInt(0),
    0x44: ULong(0),
}
#: Constructor -> format of its value, and the class it becomes.
_FIXED: Final[dict[int, tuple[str, Callable[[Any], Any]]]] = {
    0x50: (">B", UByte),
    0x51: (">b", int),
    0x52: (">B", UInt),
    0x53: (">B", ULong),
    0x54: (">b", Int),
    0x55: (">b", int),
    0x56: (">B", bool),
    0x60: (">H", UShort),
    0x61: (">h", int),
    0x70: (">I", UInt),
    0x71: (">i", Int),
    0x72: (">f", float),
    0x80: (">Q", ULong),
    0x81: (">q", int),
    0x82: (">d", float),
    0x83: (">q", Timestamp),
}


def decode(data: bytes, place: int = 0) -> tuple[Any, int]:
    """Read the value at `place`; gives it and the place after it."""
    return _decode(data, place + 1, data[place])


def _decode(data: bytes, place: int, code: int) -> tuple[Any, int]:
    if code == 0:
        descriptor, place = decode(data, place)
        value, place = decode(data, place)
        return Described(int(descriptor), value), place
    if code in _CONSTANTS:
        return _CONSTANTS[code], place
    if code in _FIXED:
        layout, kind = _FIXED[code]
        return kind(struct.unpack_from(layout, data, place)[0]), place + struct.calcsize(layout)
    if code == 0x98:
        return uuid.UUID(bytes=bytes(data[place : place + 16])), place + 16
    if code >> 4 in (0xA, 0xB):
        return _decode_variable(data, place, code)
    return _decode_compound(data, place, code)


def _decode_variable(data: bytes, place: int, code: int) -> tuple[Any, int]:
    is_short = code < 0xB0
    size = data[place] if is_short else _u32(data, place)
    place += 1 if is_short else 4
    raw = bytes(data[place : place + size])
    kind = code & 0xF
    value = raw if kind == 0 else raw.decode() if kind == 1 else Symbol(raw.decode("ascii"))
    return value, place + size


def _decode_compound(data: bytes, place: int, code: int) -> tuple[Any, int]:
    if code == 0x45:
        return [], place
    if code in (0xC0, 0xC1, 0xE0):
        count, start, end = data[place + 1], place + 2, place + 1 + data[place]
    else:
        count, start, end = _u32(data, place + 4), place + 8, place + 4 + _u32(data, place)
    items: list[Any] = []
    if code in (0xE0, 0xF0):
        element = data[start]
        start += 1
        for _ in range(count):
            item, start = _decode(data, start, element)
            items.append(item)
        return items, end
    for _ in range(count):
        item, start = decode(data, start)
        items.append(item)
    if code & 0xF == 0:
        return items, end
    return dict(zip(items[::2], items[1::2], strict=True)), end


def _sized(short_code: int, raw: bytes) -> bytes:
    if len(raw) < 256:
        return bytes((short_code, len(raw))) + raw
    return bytes((short_code + 0x10,)) + struct.pack(">I", len(raw)) + raw


def _encode_small(zero: int, short: int, wide: int, layout: str) -> Callable[[Any], bytes]:
    """Give the encoder of an unsigned number, which has a form for 0 and one for a byte."""

    def encode_number(value: int) -> bytes:
        if value == 0:
            return bytes((zero,))
        return bytes((short, value)) if value < 256 else bytes((wide,)) + struct.pack(layout, value)

    return encode_number


def _encode_long(value: int) -> bytes:
    is_short = -128 <= value < 128
    return struct.pack(">Bb", 0x55, value) if is_short else b"\x81" + struct.pack(">q", value)


def _encode_array(array: Array) -> bytes:
    code, encode_item = _ARRAY_ITEMS[array.kind]
    body = bytes((code,)) + b"".join(encode_item(item) for item in array.items)
    return b"\xf0" + struct.pack(">II", len(body) + 4, len(array.items)) + body


def _encode_items(short_code: int, parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    if len(body) < 255 and len(parts) < 256:
        return bytes((short_code, len(body) + 1, len(parts))) + body
    return bytes((short_code + 0x10,)) + struct.pack(">II", len(body) + 4, len(parts)) + body


_ARRAY_ITEMS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    uuid.UUID: (0x98, lambda item: item.bytes),
    int: (0x81, lambda item: struct.pack(">q", item)),
    Timestamp: (0x83, lambda item: struct.pack(">q", item)),
    Symbol: (0xB3, lambda item: struct.pack(">I", len(item)) + item.encode()),
}
_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    UInt: _encode_small(0x43, 0x52, 0x70, ">I"),
    ULong: _encode_small(0x44, 0x53, 0x80, ">Q"),
    Symbol: lambda value: _sized(0xA3, value.encode()),
    str: lambda value: _sized(0xA1, value.encode()),
    bytes: lambda value: _sized(0xA0, value),
    int: _encode_long,
    Int: lambda value: b"\x71" + struct.pack(">i", value),
    Timestamp: lambda value: b"\x83" + struct.pack(">q", value),
    UByte: lambda value: bytes((0x50, value)),
    UShort: lambda value: b"\x60" + struct.pack(">H", value),
    float: lambda value: b"\x82" + struct.pack(">d", value),
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    Described: lambda value: b"\x00" + encode(ULong(value.code)) + encode(value.value),
    Array: _encode_array,
    dict: lambda value: _encode_items(
        0xC1, [encode(part) for pair in value.items() for part in pair]
    ),
    list: lambda value: _encode_items(0xC0, [encode(part) for part in value]),
}


def encode(value: Any) -> bytes:
    """Write a value; its class says which AMQP type it is."""
    return _ENCODERS[type(value)](value)


#: Performative -> number of its fields.  The SDK before 7.15 failed on trailing fields left out.
_FIELD_COUNTS: Final = {
    0x10: 10, 0x11: 8, 0x12: 14, 0x13: 11, 0x14: 11, 0x15: 6, 0x16: 3, 0x17: 1, 0x18: 1,
}  # fmt: skip


def frame(
    channel: int, code: int, fields: list[Any], payload: bytes = b"", frame_type: int = 0
) -> bytes:
    """Write one frame: type 0 is AMQP, 1 is SASL."""
    missing = _FIELD_COUNTS.get(code, len(fields)) - len(fields)
    body = b"\x00\x53" + bytes((code,)) + encode(fields + [None] * missing)
    size = 8 + len(body) + len(payload)
    return struct.pack(">IBBH", size, 2, frame_type, channel) + body + payload


def sections(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Walk a message's sections: code, start, start of the value, end."""
    place = 0
    while place < len(message):
        if message[place] != 0:
            raise ValueError("not an AMQP message")
        code, value_place = decode(message, place + 1)
        end = end_of(message, value_place)
        yield int(code), place, value_place, end
        place = end
