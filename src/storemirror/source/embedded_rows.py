"""
Rows of the embedded store's tables as documents.

Pure: no I/O, no vendor library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from storemirror.event.change import Fields
from storemirror.source.port import Document, DocumentChange

_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder(dict[str, dict[str, Any]])


def encoded(fields: Fields) -> str:
    """Write canonical fields as canonical JSON text, with sorted names."""
    return _ENCODER.encode(fields).decode()


def decoded(fields: str) -> Fields:
    """Read canonical JSON text; doubles come back as doubles, -0.0 as -0.0."""
    return _DECODER.decode(fields)


def document_of(
    path: str, fields: str | None, create_time_us: int, update_time_us: int
) -> Document | None:
    """Make the document of a row; None when there are no fields."""
    if fields is None:
        return None
    return Document(
        path=path,
        fields=decoded(fields),
        create_time_us=create_time_us,
        update_time_us=update_time_us,
    )


def document_change_of(row: Sequence[Any]) -> DocumentChange:
    """Make the change of an outbox row, as `_OUTBOX` reads it."""
    path = row[1]
    return DocumentChange(
        path=path, before=document_of(path, *row[2:5]), after=document_of(path, *row[5:8])
    )
