"""
A document as a row: which field goes into which column, and what does not fit.

Pure: no I/O, no vendor library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: A column's value on its way into a procedure: what JSON can carry without loss.  64-bit integers
#: and doubles are strings, times RFC 3339, bytes base64, JSON columns JSON text.
JsonScalar = str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRow:
    """The contents of one live row."""

    #: Column name -> value; every declared column is there.
    columns: Mapping[str, JsonScalar]
    #: Child table name -> its rows, as column name -> value, the child's key included.
    children: Mapping[str, Sequence[Mapping[str, JsonScalar]]]
    #: The whole document as canonical JSON text, when the entity keeps it.
    raw: str | None
    #: Columns (and "Table.column" of children) stored as the nearest value, sorted.
    lossy_fields: tuple[str, ...]
