"""
Logical column types, and what each database cannot hold.

Pure values; which SQL type a logical type becomes stands in `sql/<dialect>/types.py`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ColumnType(enum.StrEnum):
    """What a column holds; the Firestore value that it takes stands behind it."""

    STRING = "string"  #: stringValue, indexable
    TEXT = "text"  #: stringValue, of any length
    INTEGER = "integer"  #: integerValue, 64 bits
    DOUBLE = "double"  #: doubleValue, or an integerValue that a double holds exactly
    BOOLEAN = "boolean"  #: booleanValue
    TIMESTAMP = "timestamp"  #: timestampValue, microseconds
    BYTES = "bytes"  #: bytesValue
    REFERENCE = "reference"  #: referenceValue, by resource name
    GEOPOINT = "geopoint"  #: geoPointValue, as {"latitude": …, "longitude": …}
    JSON = "json"  #: any value, as plain JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectLimits:
    """What a database cannot hold, and so is stored as the nearest value and named as lossy."""

    #: Whether text may hold U+0000.
    holds_nul: bool
    #: Whether a double column may hold NaN and the infinities.
    holds_nan: bool
    #: Whether a double column tells -0.0 from 0.0.
    holds_negative_zero: bool
    #: Whether keys are compared without their trailing spaces.
    ignores_trailing_space: bool
