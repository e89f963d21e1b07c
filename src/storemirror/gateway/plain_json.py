"""
JSON columns as every source gives them.

A double of 1e16 or more may come as an integer: PostgreSQL writes its digits out.  Firestore's own
integers have 64 bits, so that what is larger can only be a double.  Pure.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

#: From here on Python and JSON's writers give a double an exponent, and so no decimals.
_WRITTEN_OUT: Final = 1e16
#: Every digit as a zero, so that a search finds what a pattern would take twenty times as long for.
_ANY_DIGIT: Final = bytes.maketrans(b"123456789", b"0" * 9)
#: What a text has that has a number of 1e16 or more, or one of more than 64 bits.
_LARGE: Final = (b"0" * 16, b"0e", b"0E")
_DECODER: Final = msgspec.json.Decoder()


def plain_json(text: str) -> object:
    """
    Read a JSON column in the form that is the same whichever source it came from.

    A walk through all values takes ten times as long as reading them, and few have large numbers:
    only a text that may have some is read with a look at each number.

    >>> plain_json('[1' + '0' * 300 + ', 1e16, 2.0, 1000000000000000000, {"n": 5}]')
    [1e+300, 10000000000000000, 2.0, 1000000000000000000, {'n': 5}]
    """
    digits = text.encode().translate(_ANY_DIGIT)
    if not any(sign in digits for sign in _LARGE):
        return _DECODER.decode(text)
    return json.loads(text, parse_int=_integer, parse_float=_double)


def _integer(digits: str) -> int | float:
    value = int(digits)
    return value if -(2**63) <= value < 2**63 else float(value)


def _double(digits: str) -> int | float:
    value = float(digits)
    return int(value) if _WRITTEN_OUT <= abs(value) < 2**63 else value
