"""
Numbers in JSON columns as every source gives them.

A double of 1e16 or more may come as an integer: PostgreSQL writes its digits out.  Firestore's own
integers have 64 bits, so that what is larger can only be a double.  Pure.
"""

from __future__ import annotations

from typing import Final

#: From here on Python and JSON's writers give a double an exponent, and so no decimals.
_WRITTEN_OUT: Final = 1e16


def same_everywhere(value: object) -> object:
    """
    Give plain JSON values in the form that is the same whichever source they came from.

    >>> same_everywhere([10**300, 1e16, 2.0, 10**18, {"n": 5}])
    [1e+300, 10000000000000000, 2.0, 1000000000000000000, {'n': 5}]
    """
    match value:
        case dict():
            return {name: same_everywhere(item) for name, item in value.items()}
        case list():
            return [same_everywhere(item) for item in value]
        case int() if not -(2**63) <= value < 2**63:
            return float(value)
        case float() if _WRITTEN_OUT <= abs(value) < 2**63:
            return int(value)
    return value
